"""Other ways to do the work of the package. What they share with it, they have from it; tests hold the rest to it."""

from rmft_jax.agents import Transformer
from rmft_jax.config import Value
from rmft_jax.config.checks import require
from rmft_jax.method.fine_tuning import GradientSteps
from rmft_jax.method.settings import RMFTConfig

# What every contender that is written out by hand knows, and nothing else.
_KNOWN: dict[str, Value] = {
    "policy": "transformer", "arms": "one_hot", "position": "none", "feedback": "bandit", "objective": "imitation",
    "kl_reference": "none", "update": "gradient", "refresh_every": 1,
}  # fmt: skip


def require_known(config: RMFTConfig, **known: Value) -> tuple[Transformer, GradientSteps]:
    """The policy and the update of a configuration.

    Args:
      config: what is asked for.
      known: further settings of which a contender knows one value only.

    Raises:
      ConfigError: if it has another value of such a setting.
    """
    settings = config.flat()
    for name, value in {**_KNOWN, **known}.items():
        got, need = f"{name}={settings.get(name)!r}", f"{value!r}, all that this contender knows"
        require(settings.get(name) == value, got, need, "the default settings")
    policy, update = config.policy, config.update
    assert isinstance(policy, Transformer)
    assert isinstance(update, GradientSteps)
    return policy, update
