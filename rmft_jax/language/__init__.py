"""Bandit problems told in words, and language models that play them."""
