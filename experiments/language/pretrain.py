"""Pretrains the toy language model that comes with the package: `python -m experiments.language.pretrain`.

It learns every token of dialogues of players with habits (`habits.py`), on problems of several sizes, with thoughts and
without, told in all words, those held out from RMFT among them: a model of whole words cannot read one that it never
met. About twenty minutes on two cores.
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
from jaxtyping import Array, Float

from experiments.language.habits import HEEDING, Habits
from rmft_jax.language import toy
from rmft_jax.language.policy import Text
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.numerics import pinned
from rmft_jax.method.rollout import rollout_scenarios
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.problems import Trajectory
from rmft_jax.problems.regret import of_action
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.running.provenance import versions
from rmft_jax.running.weights import read_arrays

_BASE = RMFTConfig().replace(
    policy="text", model="toy-untrained", tuned="all", imitated="all", num_tellings=256, entropy_weight=0.0
)
# What dialogues are like, and how often each kind is met.
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (5, {"num_arms": 3, "horizon": 20}),
    "thoughts": (4, {"num_arms": 3, "horizon": 12, "reasoning": 14}),
    "held out": (4, {"num_arms": 3, "horizon": 20, "contexts": "held-out"}),
    "held out, thoughts": (3, {"num_arms": 3, "horizon": 12, "contexts": "held-out", "reasoning": 14}),
    "many arms": (1, {"num_arms": 6, "horizon": 30}),
    "free answers": (2, {"num_arms": 4, "horizon": 16, "answer": "free", "noise": "beta"}),
}
# Before these: which players, which share of the updates, and what dialogues; the first by themselves, the others in
# any order. In few words, and of players who stay with what pays, it learns soonest to read rewards; what it begins
# RMFT with are the mixed players of `KINDS`.
FIRST: dict[str, tuple[tuple[float, ...], float, dict[str, Any]]] = {
    "few words": (HEEDING, 0.1, {"num_arms": 3, "horizon": 20, "num_tellings": 8}),
    "all words": (HEEDING, 0.2, {"num_arms": 3, "horizon": 20}),
    "held-out words": (HEEDING, 0.2, {"num_arms": 3, "horizon": 20, "contexts": "held-out"}),
}
SEED = 20
STEP_SIZE = 2.5e-3
# Decisions are few among the tokens, and what comes back is chance.
DECISION_WEIGHT, TOLD_WEIGHT = 4.0, 0.2


def dialogue_loss(agent: Any, trajectory: Trajectory) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What is minimized for a dialogue, per round, and its decisions' share without weight, both in nats."""
    outputs, log_probs = agent.read(trajectory)
    told = jnp.arange(log_probs.shape[1]) >= agent.layout.answer_at + agent.layout.answer
    words = -jnp.sum(jnp.where(told, TOLD_WEIGHT, 1.0)[None, :] * log_probs, axis=1)
    decisions = -of_action(jax.nn.log_softmax(outputs), trajectory.actions)
    return jnp.mean(words + DECISION_WEIGHT * decisions), jnp.mean(decisions)


def make_step(config: RMFTConfig, habits: Habits, optimizer: optax.GradientTransformation, batch: int) -> Any:
    """A compiled update on fresh dialogues of some players of one kind; it tells the decisions' loss."""
    policy, problem = config.policy, config.problem()
    assert isinstance(policy, Text)
    fixed = config.fixed_params()
    player = policy.narrated(habits, problem, fixed)

    def loss(params: Any, trajectories: Trajectory) -> Any:
        agent = config.agent(params, fixed)
        return jax.tree.map(jnp.mean, jax.vmap(functools.partial(dialogue_loss, agent))(trajectories))

    def update(params: Any, opt_state: Any, key: Any) -> Any:
        played = rollout_scenarios(player, problem, RolloutKeys.create(key), num_scenarios=batch, block=batch)
        trajectories = jax.tree.map(lambda leaf: leaf[:, 0], played)
        (_, decisions), gradient = jax.value_and_grad(loss, has_aux=True)(params, trajectories)
        change, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, change), opt_state, decisions

    return jax.jit(update, donate_argnums=(0, 1))


def heed(params: Any) -> float:
    """How much more often the model plays its last arm again after a success than after a failure."""
    config = _BASE.replace(**KINDS["plain"][1])
    played = play_scenarios(config.agent(params), config.problem(), jax.random.key(SEED), 256)
    again = played.actions[:, 1:] == played.actions[:, :-1]
    paid = played.rewards[:, :-1] > 0.5
    return float(jnp.mean(again, where=paid) - jnp.mean(again, where=~paid))


@pinned()
def pretrain(num_updates: int, batch: int, step_size: float, start: Path | None) -> tuple[Any, dict[str, Any]]:
    """The weights, and what is known of them; from those of a file, if there is one, without the first dialogues."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, step_size, min(100, num_updates // 2), num_updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=0.01))
    params, before = toy.untrained_params(), None
    if start is not None:
        _, params, _, _ = toy.read_toy(start)
        _, before = read_arrays(start)
    params = jax.tree.map(jnp.asarray, params)
    opt_state, key = optimizer.init(params), jax.random.key(SEED + (before is not None))
    kinds = {name: (Habits(shares), kind) for name, (shares, _, kind) in FIRST.items()}
    kinds |= {name: (Habits(), kind) for name, (_, kind) in KINDS.items()}
    steps = {name: make_step(_BASE.replace(**kind), habits, optimizer, batch) for name, (habits, kind) in kinds.items()}
    losses: dict[str, list[float]] = {name: [] for name in kinds}
    reporter, started = ProgressReporter(), time.perf_counter()
    for number, name in enumerate(_order(num_updates, first=before is None)):
        params, opt_state, value = steps[name](params, opt_state, jax.random.fold_in(key, number))
        losses[name].append(float(value))
        if number % 100 == 99:
            last = ", ".join(f"{kind} {np.mean(found[-10:]):.3f}" for kind, found in losses.items() if found)
            seconds = time.perf_counter() - started
            reporter.note(f"{number + 1} of {num_updates}, {seconds:.0f} s, heed {heed(params):.3f}: {last}")
    about = {
        "updates": num_updates,
        "dialogues_per_update": batch,
        "seed": SEED,
        "step_size": step_size,
        "kinds": {name: {"share": share, **kind} for name, (share, kind) in KINDS.items()},
        "first": {name: {"players": shares, "share": share, **kind} for name, (shares, share, kind) in FIRST.items()},
        "before": before,
        "nats_a_decision": {name: float(np.mean(found[-10:])) for name, found in losses.items() if found},
        "heed": heed(params),
        "seconds": time.perf_counter() - started,
        "versions": versions(),
    }
    return params, about


def _order(num_updates: int, *, first: bool) -> list[str]:
    """Which kind of dialogues each update learns from."""
    shuffled = np.random.default_rng(SEED)
    alone, *together = ([name] * int(first * share * num_updates) for name, (_, share, _) in FIRST.items())
    order = alone + [str(name) for name in shuffled.permutation([name for names in together for name in names])]
    deck = [name for name, (share, _) in KINDS.items() for _ in range(share)]
    decks = np.tile(np.arange(len(deck)), (-(-num_updates // len(deck)), 1))
    mixed = shuffled.permuted(decks, axis=1).reshape(-1)
    return order + [deck[int(choice)] for choice in mixed[: num_updates - len(order)]]


def main() -> None:
    """Pretrains, and writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=toy.WEIGHTS, help="where the weights go")
    parser.add_argument("--updates", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=16, help="dialogues of an update")
    parser.add_argument("--step-size", type=float, default=STEP_SIZE, help="the largest one")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    arguments = parser.parse_args()
    params, about = pretrain(arguments.updates, arguments.batch, arguments.step_size, arguments.start)
    toy.write_toy(params, about, arguments.out)
    print(about)


if __name__ == "__main__":
    main()
