"""Ablations, one script per question. Run them from the repository's root."""
