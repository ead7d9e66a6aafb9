"""Ablation sweeps: what they consist of, and where their results are kept."""
