"""Speed, measured as ratios within one run. Run them from the repository's root on an otherwise idle machine."""
