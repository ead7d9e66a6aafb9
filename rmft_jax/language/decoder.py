"""Decoders of the Llama and Qwen families: their sizes."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and choices of a decoder."""

    vocab_size: int
    num_layers: int
    width: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    rope_theta: float = 10000.0
    rope_scaling: tuple[float, float, float, int] | None = None
    norm_eps: float = 1e-5
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int = 2048
