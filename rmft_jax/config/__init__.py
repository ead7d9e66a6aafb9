"""What every setting shares: how it is checked, chosen by name, written down and refused."""

from rmft_jax.config.checks import ConfigError as ConfigError
from rmft_jax.config.choices import Choice as Choice
from rmft_jax.config.choices import Group as Group
from rmft_jax.config.choices import Register as Register
from rmft_jax.config.plugins import import_code as import_code
from rmft_jax.config.pytrees import Fixed as Fixed
from rmft_jax.config.pytrees import Number as Number
from rmft_jax.config.pytrees import Params as Params
from rmft_jax.config.pytrees import ScalarKey as ScalarKey
from rmft_jax.config.pytrees import pytree as pytree
from rmft_jax.config.pytrees import static_field as static_field
from rmft_jax.config.settings import Settings as Settings
from rmft_jax.config.settings import Value as Value
