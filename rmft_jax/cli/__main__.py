"""`python -m rmft_jax.cli` is `rmft`."""

import sys

from rmft_jax.cli import main

sys.exit(main())
