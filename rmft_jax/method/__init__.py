"""The method: rollouts, their regrets, selection, fine-tuning, and the page that puts them together (`rmft.py`)."""
