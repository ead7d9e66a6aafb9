"""The network of the PyTorch contender: one round behind a cache, and whole trajectories at once.

Annotations tell shapes: `B` rollouts stepped together, `n` trajectories or rows, `T` rounds, `P` those up to the
present one, `K` arms, `I` numbers of a token, `D` width, `H` heads, `h` head size.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Int
from torch import Tensor  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from rmft_jax.agents import Transformer

# By path, as `blocks/0/mlp_in/kernel`; kernels are [in, out], as in Flax.
Params = dict[str, Tensor]
# Keys and values of one layer.
Cache = tuple[Float[Tensor, "B H T h"], Float[Tensor, "B H T h"]]


def play_round(
    params: Params,
    x: Float[Tensor, "B D"],
    past: list[Cache],
    gumbels: Float[Tensor, "B K"],
    table: Float[Tensor, "B K"],
    fused: bool,
) -> tuple[Float[Tensor, "B D"], Int[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B K"]]:
    """One round of a block: the embedded token of the next one, actions, rewards and logits.

    Writes keys and values of this round into the last place of `past`, `[B, H, P, h]` each. `fused` says that sums of
    products become one loop; otherwise small matrix products are faster.
    """
    for layer, (keys, values) in enumerate(past):
        block = f"blocks/{layer}"
        normed = norm(params, f"{block}/attention_norm", x)
        heads = (normed @ params[f"{block}/attention/query_key_value/kernel"]).view(len(x), 3, keys.shape[1], -1)
        query = heads[:, 0]
        keys[:, :, -1], values[:, :, -1] = heads[:, 1], heads[:, 2]
        if fused:
            weights = torch.softmax((query[:, :, None] * keys).sum(-1), -1)
            mixed = (weights[..., None] * values).sum(2)
        else:
            mixed = torch.softmax(query[:, :, None] @ keys.transpose(2, 3), -1) @ values
        x = rest_of_block(params, block, x, mixed.reshape(x.shape))
    logits = linear(params, "out", norm(params, "out_norm", x))
    actions = (logits + gumbels).argmax(-1)
    rewards = table.gather(1, actions[:, None])
    played, earned = functional.embedding(actions, params["seen"]).chunk(2, 1)
    return torch.addcmul(played, earned, rewards), actions, rewards[:, 0], logits


def forward(num_heads: int, params: Params, seen: Float[Tensor, "n T I"]) -> Float[Tensor, "n T K"]:
    """Logits of every round."""
    size, horizon, _ = seen.shape
    x = linear(params, "embed", seen.flatten(0, 1))
    for layer in range(sum(name.endswith("query_key_value/kernel") for name in params)):
        block = f"blocks/{layer}"
        heads = norm(params, f"{block}/attention_norm", x) @ params[f"{block}/attention/query_key_value/kernel"]
        query, keys, values = heads.view(size, horizon, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, keys, values, is_causal=True)
        x = rest_of_block(params, block, x, mixed.transpose(1, 2).reshape(x.shape))
    return linear(params, "out", norm(params, "out_norm", x)).view(size, horizon, -1)


def policy_loss(
    num_heads: int,
    params: Params,
    seen: Float[Tensor, "n T I"],
    actions: Int[Tensor, "n T"],
    weights: Float[Tensor, "n T"],
    entropy_weight: float,
) -> Float[Tensor, ""]:
    """Weighted sum of the cross-entropy of the actions, less the entropy bonus."""
    log_probs = torch.log_softmax(forward(num_heads, params, seen), -1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    chosen = log_probs.gather(-1, actions[..., None])[..., 0]
    return -(weights * (chosen + entropy_weight * entropy)).sum()


def rest_of_block(
    params: Params, block: str, x: Float[Tensor, "n D"], mixed: Float[Tensor, "n D"]
) -> Float[Tensor, "n D"]:
    """What comes after the heads of attention: their mixture goes into the residual stream, and so does the MLP."""
    x = torch.addmm(x, mixed, params[f"{block}/attention/out/kernel"])
    hidden = linear(params, f"{block}/mlp_in", norm(params, f"{block}/mlp_norm", x))
    return x + linear(params, f"{block}/mlp_out", functional.gelu(hidden, approximate="tanh"))


def linear(params: Params, name: str, x: Float[Tensor, "n a"]) -> Float[Tensor, "n b"]:
    """A linear layer with bias."""
    return torch.addmm(params[f"{name}/bias"], x, params[f"{name}/kernel"])


def norm(params: Params, name: str, x: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
    """Layer normalization, with the epsilon of Flax."""
    return functional.layer_norm(x, x.shape[-1:], params[f"{name}/scale"], params[f"{name}/bias"], 1e-6)


def tokens(actions: Int[Tensor, "n T"], rewards: Float[Tensor, "n T"], num_arms: int) -> Float[Tensor, "n T I"]:
    """What each round sees: action and reward of the round before, or that there was none."""
    seen = torch.zeros(*actions.shape, 2 * num_arms + 1, device=actions.device)
    played = functional.one_hot(actions[:, :-1], num_arms)
    seen[:, 1:, :num_arms] = played
    seen[:, 1:, num_arms:-1] = played * rewards[:, :-1, None]
    seen[:, 0, -1] = 1.0
    return seen


def play_params(policy: Transformer, params: Params) -> Params:
    """The weights as rounds use them: queries are scaled, and tokens of one-hot numbers are looked up in tables."""
    prepared, arms = dict(params), params["out/bias"].shape[0]
    for layer in range(policy.num_layers):
        name = f"blocks/{layer}/attention/query_key_value/kernel"
        query, others = params[name].split([policy.width, 2 * policy.width], 1)
        prepared[name] = torch.cat([query / math.sqrt(policy.width // policy.num_heads), others], 1)
    kernel, bias = prepared.pop("embed/kernel"), prepared.pop("embed/bias")
    prepared["seen"] = torch.cat([kernel[:arms] + bias, kernel[arms : 2 * arms]], 1)
    prepared["first"] = kernel[2 * arms] + bias
    return prepared


def init_params(policy: Transformer, num_arms: int, generator: torch.Generator) -> Params:
    """Random weights of the scales that the package draws."""
    width, hidden = policy.width, policy.mlp_ratio * policy.width
    damped = math.sqrt(0.5 / policy.num_layers)
    params: Params = {}

    def add_linear(name: str, inputs: int, outputs: int, scale: float, bias: bool = True) -> None:
        kernel = torch.randn(inputs, outputs, generator=generator, device=generator.device)
        params[f"{name}/kernel"] = kernel * scale
        if bias:
            params[f"{name}/bias"] = torch.zeros(outputs, device=generator.device)

    def add_norm(name: str) -> None:
        params[f"{name}/scale"] = torch.ones(width, device=generator.device)
        params[f"{name}/bias"] = torch.zeros(width, device=generator.device)

    add_linear("embed", 2 * num_arms + 1, width, (2 * num_arms + 1) ** -0.5)
    for block in (f"blocks/{layer}" for layer in range(policy.num_layers)):
        add_norm(f"{block}/attention_norm")
        add_linear(f"{block}/attention/query_key_value", width, 3 * width, width**-0.5, bias=False)
        add_linear(f"{block}/attention/out", width, width, damped * width**-0.5, bias=False)
        add_norm(f"{block}/mlp_norm")
        add_linear(f"{block}/mlp_in", width, hidden, width**-0.5)
        add_linear(f"{block}/mlp_out", hidden, width, damped * hidden**-0.5)
    add_norm("out_norm")
    add_linear("out", width, num_arms, 0.02)
    return {name: value.requires_grad_() for name, value in params.items()}


def flatten(params: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by path."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


def empty_caches(policy: Transformer, size: int, horizon: int, transposed: bool, device: torch.device) -> list[Cache]:
    """Caches of `size` rollouts; `transposed` keys lie `[B, H, h, T]` in memory."""
    head = policy.width // policy.num_heads

    def empty(transpose: bool) -> Float[Tensor, "B H T h"]:
        if transpose:
            return empty(False).reshape(size, policy.num_heads, head, horizon).transpose(2, 3)
        return torch.zeros(size, policy.num_heads, horizon, head, device=device)

    return [(empty(transposed), empty(False)) for _ in range(policy.num_layers)]
