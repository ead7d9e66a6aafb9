"""Iterative regret-minimization fine-tuning of numerical Transformers, in JAX.

The public names and where they come from are in `__init__.pyi`. They are imported on first use, so that importing the
package stays fast and needs no JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
