"""Runs: training from start to end, and every file that it leaves."""
