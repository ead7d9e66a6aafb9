"""The settings of the policies that are trained."""

import dataclasses
from typing import Literal

from rmft_jax.config.checks import largest_divisor, require, require_choice, require_count, require_number


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """What all policies have: a check."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""


@dataclasses.dataclass(frozen=True)
class TransformerConfig(PolicyConfig):
    """The numerical Transformer: pre-norm, causal, numbers in and arm logits out."""

    num_layers: int = 2
    """Number of blocks."""
    width: int = 32
    """Width of the residual stream."""
    num_heads: int = 2
    """Attention heads; must divide the width."""
    mlp_ratio: int = 4
    """Hidden width of the MLP, as a multiple of the width."""
    position: Literal["none", "learned", "sinusoidal", "alibi"] = "none"
    """Position encoding: none; a table or sine waves, added to the input; or `alibi`, a bias on attention scores that
    falls linearly with age. With `learned`, no horizon beyond the trained one can be played."""
    arms: Literal["one_hot", "token"] = "one_hot"
    """How a round is told: as one token that lists the arms, or as a token per arm, with weights that all arms share.
    With `token` the policy treats all arms alike and plays any number of them, at K times the cost."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        require_count(self.num_layers, "num_layers", 1, 2)
        require_count(self.width, "width", 2, 32)
        require_count(self.num_heads, "num_heads", 1, 2)
        require_count(self.mlp_ratio, "mlp_ratio", 1, 4)
        require_choice(self.position, TransformerConfig, "position")
        require_choice(self.arms, TransformerConfig, "arms")
        require(
            self.width % self.num_heads == 0,
            f"width={self.width} with num_heads={self.num_heads}",
            "a width that the heads divide",
            f"num_heads={largest_divisor(self.width, self.num_heads)}",
        )
        require(
            self.position != "sinusoidal" or self.width % 2 == 0,
            f"position='sinusoidal' with width={self.width}",
            "an even width for sine and cosine pairs",
            f"width={self.width + 1}",
        )


@dataclasses.dataclass(frozen=True)
class SingleLayerConfig(PolicyConfig):
    """The theory's model: one layer of self-attention with a constant query over the past reward vectors.

    It starts as `z_t = V S_{t-1}` with V = 0 under linear attention, and as V times the mean reward under softmax
    attention: K = 0, v = 0, and all scores equal to 1.
    """

    attention: Literal["linear", "softmax"] = "linear"
    """Weights of past rounds: the scores themselves, or their softmax."""
    key_size: int = 8
    """Size of keys and queries."""
    trained: Literal["value", "all"] = "value"
    """What gradient steps change: the value matrix V alone, as in the theorems, or every parameter."""
    init_std: float = 0.0
    """Standard deviation of Gaussian noise added to every parameter at the start; 0 is the theorems' start."""

    def validate(self) -> None:
        """Raises `ConfigError` for the first setting that cannot work."""
        require_choice(self.attention, SingleLayerConfig, "attention")
        require_count(self.key_size, "key_size", 1, 8)
        require_choice(self.trained, SingleLayerConfig, "trained")
        require_number(self.init_std, "init_std", "of at least 0", self.init_std >= 0, 0.0)


POLICIES: dict[str, type[PolicyConfig]] = {"transformer": TransformerConfig, "single_layer": SingleLayerConfig}
"""The classes by the name under which a file keeps them."""
