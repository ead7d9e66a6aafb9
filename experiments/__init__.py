"""One script per figure or table. Run them from the repository's root, as `python -m experiments.NAME`."""
