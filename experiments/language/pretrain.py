"""Pretrains the toy language model that comes with the package: `python -m experiments.language.pretrain`.

It learns every token of dialogues of players with habits (`habits.py`), on problems of several sizes, with thoughts and
without, told in all words, those held out from RMFT among them: a model of whole words cannot read one that it never
met. About a quarter of an hour on two cores.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.language.habits import Habits
from rmft_jax.language import toy
from rmft_jax.language.policy import Text
from rmft_jax.method.judging import KeptBatch
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.numerics import pinned
from rmft_jax.method.objectives import Imitation
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.provenance import versions

_BASE = RMFTConfig().replace(
    policy="text", model="toy-untrained", tuned="all", imitated="all", num_tellings=256, entropy_weight=0.0
)
# What dialogues are like, and how often each kind is met.
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (6, {"num_arms": 3, "horizon": 20}),
    "thoughts": (4, {"num_arms": 3, "horizon": 12, "reasoning": 14}),
    "held out": (2, {"num_arms": 3, "horizon": 20, "contexts": "held-out"}),
    "held out, thoughts": (1, {"num_arms": 3, "horizon": 12, "contexts": "held-out", "reasoning": 14}),
    "many arms": (1, {"num_arms": 6, "horizon": 30}),
    "free answers": (1, {"num_arms": 4, "horizon": 16, "answer": "free", "noise": "beta"}),
    "summaries": (1, {"num_arms": 3, "horizon": 4, "history": "summary"}),
}
SEED = 20
STEP_SIZE = 2.5e-3


def make_step(config: RMFTConfig, optimizer: optax.GradientTransformation, batch: int, block: int) -> Any:
    """A compiled update on fresh dialogues of one kind; its loss is in nats a round."""
    policy, problem = config.policy, config.problem()
    assert isinstance(policy, Text)
    fixed = config.fixed_params()
    player, objective = policy.narrated(Habits(), problem, fixed), Imitation(entropy_weight=0.0)

    def loss(params: Any, rows: KeptBatch) -> Any:
        agent = config.agent(params, fixed)
        return jnp.mean(jax.vmap(functools.partial(objective.round_losses, config, agent))(rows))

    def update(params: Any, opt_state: Any, key: Any) -> Any:
        played = rollout_scenarios(player, problem, RolloutKeys.create(key), num_scenarios=batch, block=batch)
        trajectory = jax.tree.map(lambda leaf: leaf[:, 0], played)
        rows = KeptBatch(trajectory, jnp.ones((batch, problem.horizon)))
        blocks = jax.tree.map(lambda leaf: leaf.reshape(batch // block, block, *leaf.shape[1:]), rows)
        values, gradients = jax.lax.map(lambda one: jax.value_and_grad(loss)(params, one), blocks)
        value, gradient = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), (values, gradients))
        change, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, change), opt_state, value

    return jax.jit(update, donate_argnums=(0, 1))


@pinned()
def pretrain(num_updates: int, batch: int, block: int) -> tuple[Any, dict[str, Any]]:
    """The weights, and what is known of them."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, STEP_SIZE, min(100, num_updates // 2), num_updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=0.01))
    params = jax.tree.map(jnp.asarray, toy.untrained_params())
    opt_state, key = optimizer.init(params), jax.random.key(SEED)
    steps = {name: make_step(_BASE.replace(**kind), optimizer, batch, block) for name, (_, kind) in KINDS.items()}
    deck = [name for name, (share, _) in KINDS.items() for _ in range(share)]
    order = np.random.default_rng(SEED).permuted(
        np.tile(np.arange(len(deck)), (-(-num_updates // len(deck)), 1)), axis=1
    )
    losses: dict[str, list[float]] = {name: [] for name in KINDS}
    started = time.perf_counter()
    for number, choice in enumerate(order.reshape(-1)[:num_updates]):
        name = deck[int(choice)]
        params, opt_state, value = steps[name](params, opt_state, jax.random.fold_in(key, number))
        losses[name].append(float(value))
        if number % 50 == 49:
            last = ", ".join(f"{kind} {np.mean(found[-3:]):.2f}" for kind, found in losses.items() if found)
            ProgressReporter().note(
                f"update {number + 1} of {num_updates}, {time.perf_counter() - started:.0f} s: {last}"
            )
    about = {
        "updates": num_updates,
        "dialogues_per_update": batch,
        "seed": SEED,
        "step_size": STEP_SIZE,
        "kinds": {name: {"share": share, **kind} for name, (share, kind) in KINDS.items()},
        "nats_a_round": {name: float(np.mean(found[-5:])) for name, found in losses.items() if found},
        "seconds": time.perf_counter() - started,
        "versions": versions(),
    }
    return params, about


def main() -> None:
    """Pretrains, and writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=toy.WEIGHTS, help="where the weights go")
    parser.add_argument("--updates", type=int, default=2200)
    parser.add_argument("--batch", type=int, default=16, help="dialogues of an update")
    parser.add_argument("--block", type=int, default=16, help="dialogues of which gradients are taken at a time")
    arguments = parser.parse_args()
    params, about = pretrain(arguments.updates, arguments.batch, arguments.block)
    toy.write_toy(params, about, arguments.out)
    print(about)


if __name__ == "__main__":
    main()
