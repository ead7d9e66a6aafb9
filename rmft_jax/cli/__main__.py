"""`python -m rmft_jax.cli` is `rmft`."""

from rmft_jax.cli import run

run()
