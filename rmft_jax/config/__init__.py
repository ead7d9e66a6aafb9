"""What every setting shares: how it is checked, chosen by name, written down and refused."""

from rmft_jax.config.checks import ConfigError
from rmft_jax.config.choices import Choice, Group, Register
from rmft_jax.config.plugins import import_code
from rmft_jax.config.pytrees import Number, Params, ScalarKey, pytree, static_field
from rmft_jax.config.settings import Settings, Value

__all__ = [
    "Choice",
    "ConfigError",
    "Group",
    "Number",
    "Params",
    "Register",
    "ScalarKey",
    "Settings",
    "Value",
    "import_code",
    "pytree",
    "static_field",
]
