"""What a round costs as horizons, arms, rollouts, widths and devices grow, and the classical agents' rates.

Every size of an axis is compiled first; then all take turns. An exponent is the slope of a straight line through the
logarithms of the median cost per env-step.

    python -m experiments.benchmarks.scaling [--json OUT] [--only softmax] [--repeats 5]
"""

import dataclasses
import functools
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Spread
from rmft_jax.agents import catalogue
from rmft_jax.agents.base import state_bytes
from rmft_jax.config.checks import require
from rmft_jax.method import rmft
from rmft_jax.method.devices import device_name, make_mesh, program_options, replicated, use_cores
from rmft_jax.method.evaluation import final_regret
from rmft_jax.method.presets import get_preset
from rmft_jax.method.rollout import rollout_block
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.method.state import abstract_state, init
from rmft_jax.problems import Problem, Stationary
from rmft_jax.running.files import write_json
from rmft_jax.running.provenance import provenance

_Task = Callable[[], None]
# Env-steps of a measurement, about.
_STEPS = 200_000
# The longest horizon of the fitted exponent of an axis, where that is not all of it.
_FITTED = {"horizon, softmax attention, width 64": 1000}


def transformer(width: int = 64, horizon: int = 100, num_arms: int = 5, rollouts: int = 0) -> RMFTConfig:
    """The default settings at a size; as many rollouts as make up a measurement if none are given."""
    base = RMFTConfig()
    count = rollouts or max(64, _STEPS // horizon)
    return base.replace(
        num_arms=num_arms,
        width=width,
        num_heads=max(1, width // 16),
        horizon=horizon,
        num_scenarios=count // base.num_rollouts // 8 * 8,
    )


def linear(horizon: int) -> RMFTConfig:
    """The single layer with linear attention, under full information: 64 scenarios, 8 rollouts of each."""
    return get_preset("single-layer").rmft.replace(horizon=horizon, num_scenarios=64, num_rollouts=8)


AXES: Mapping[str, Mapping[int, RMFTConfig]] = {
    "horizon, softmax attention, width 64": {t: transformer(horizon=t) for t in (25, 50, 100, 200, 500, 1000, 2000)},
    "horizon, linear single layer": {t: linear(t) for t in (100, 1000, 10_000, 100_000)},
    "arms, width 64, T = 100": {k: transformer(num_arms=k, rollouts=512) for k in (2, 5, 10, 30, 100, 300, 1000)},
    "rollouts, width 32, T = 50": {n: transformer(32, 50, rollouts=n) for n in (64, 256, 1024, 4096, 16384)},
    "width, T = 100": {w: transformer(w, rollouts=1024) for w in (16, 32, 64, 128, 256)},
}
CLASSICAL = {"UCB1": "ucb1", "Thompson": "thompson", "EXP3": "exp3"}


def play_program(config: RMFTConfig) -> Any:
    """The compiled rollouts of an iteration, on all devices that share its scenarios evenly, and their state."""
    mesh = make_mesh(None, config.num_scenarios)
    state = replicated(init(config, jax.random.key(0)), mesh)
    return rmft.play.lower(state, mesh).compile(program_options(mesh)), state


def needed_bytes(config: RMFTConfig) -> int:
    """What one device's share of the rollouts cannot do without: its trajectories, and a block's agent states."""
    mesh = make_mesh(None, config.num_scenarios)
    share = config.num_scenarios * config.num_rollouts // (1 if mesh is None else mesh.size)
    num_arms, agent = config.environment.num_arms, config.agent(abstract_state(config).params)
    columns = 2 + 3 * num_arms + (num_arms if config.has_scores else 0)
    block = min(share, rollout_block(agent, num_arms, config.horizon) or share)
    return share * config.horizon * columns * 4 + block * state_bytes(agent, num_arms, config.horizon)


def measure_axis(sizes: Mapping[int, RMFTConfig], longest: float, repeats: int, seconds: float) -> dict[str, Any]:
    """Cost per env-step at every size, its exponent up to `longest`, and memory beside what is needed."""
    tasks: dict[str, _Task] = {}
    memory = []
    for size, config in sizes.items():
        program, state = play_program(config)
        memory.append(measure.peak_memory(program))
        tasks[str(size)] = functools.partial(lambda run, given: jax.block_until_ready(run(given)), program, state)
    found = measure.interleaved(tasks, repeats, seconds)
    costs = [
        Spread.of([time / measure.env_steps(config) for time in found[str(size)]]) for size, config in sizes.items()
    ]
    return {
        "sizes": list(sizes),
        "rollouts": [config.num_scenarios * config.num_rollouts for config in sizes.values()],
        "seconds_per_env_step": [dataclasses.asdict(cost) for cost in costs],
        "exponent": exponent({n: cost.median for n, cost in zip(sizes, costs, strict=True) if n <= longest}),
        "peak_memory_bytes": memory,
        "needed_bytes": [needed_bytes(config) for config in sizes.values()],
    }


def exponent(costs: Mapping[int, float]) -> float:
    """Slope of the logarithm of the cost over that of the size."""
    return float(np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0])


def measure_classical(repeats: int, seconds: float) -> dict[str, Any]:
    """Env-steps per second of classical agents at K = 10, T = 1,000, on all devices."""
    problem, scenarios = Problem(Stationary(num_arms=10), 1000), 2048
    agents, mesh = catalogue.make_agents(problem, CLASSICAL.values()), make_mesh(None, scenarios)
    tasks: dict[str, _Task] = {}
    for name, known in CLASSICAL.items():
        inputs = replicated((agents[known], problem, jax.random.key(0)), mesh)
        lowered = final_regret.lower(*inputs, scenarios, mesh=mesh)
        program = lowered.compile(program_options(mesh))
        tasks[name] = functools.partial(lambda run, given: jax.block_until_ready(run(*given)), program, inputs)
    found = measure.interleaved(tasks, repeats, seconds)
    rates = {name: Spread.of([scenarios * problem.horizon / time for time in times]) for name, times in found.items()}
    return {name: dataclasses.asdict(rate) for name, rate in rates.items()}


def measure_devices(repeats: int, seconds: float) -> dict[str, Any]:
    """Env-steps per second of whole iterations on 1, 2, ... devices, and how many times faster than on one."""
    config = transformer(rollouts=2048)
    tasks: dict[str, _Task] = {}
    for number in range(1, jax.device_count() + 1):
        if config.num_scenarios % number:
            continue
        mesh = make_mesh(number, config.num_scenarios)
        state = replicated(init(config, jax.random.key(0)), mesh)
        step = rmft.iterate.lower(state, None, mesh).compile(program_options(mesh))
        tasks[str(number)] = _stepping(step, state)
    found = measure.interleaved(tasks, repeats, seconds)
    steps = measure.env_steps(config)
    return {
        number: {
            "env_steps_per_second": dataclasses.asdict(Spread.of([steps / time for time in times])),
            "speedup": dataclasses.asdict(measure.speedup(times, found["1"])),
        }
        for number, times in found.items()
    }


def _stepping(step: Any, state: Any) -> _Task:
    held = [state]

    def once() -> None:
        held[0], _ = jax.block_until_ready(step(held[0], None))

    return once


def main(json: Path | None = None, only: tuple[str, ...] = (), repeats: int = 5, seconds: float = 1.0) -> None:
    """Measures every axis and prints its exponent.

    Args:
      json: where the numbers go too.
      only: of the axes, those with one of these words in their names; by default all.
      repeats: turns of every size.
      seconds: length of a turn, about.
    """
    use_cores()
    result: dict[str, Any] = {**provenance(), "device": device_name(make_mesh()), "axes": {}}
    chosen = {name: sizes for name, sizes in AXES.items() if not only or any(word in name for word in only)}
    require(bool(chosen), f"only={' '.join(only)}", f"words of {'; '.join(AXES)}", "--only softmax")
    for name, sizes in chosen.items():
        result["axes"][name] = found = measure_axis(sizes, _FITTED.get(name, np.inf), repeats, seconds)
        costs = ", ".join(
            f"{size}: {1e6 * cost['median']:.3g}"
            for size, cost in zip(sizes, found["seconds_per_env_step"], strict=True)
        )
        excess = max(a / b for a, b in zip(found["peak_memory_bytes"], found["needed_bytes"], strict=True))
        line = f"{name}: exponent {found['exponent']:.2f}; us per env-step {costs}; memory {excess:.2f}x of the need"
        print(line, flush=True)
        gc.collect()
        jax.clear_caches()
    result["classical"] = measure_classical(repeats, seconds)
    print(", ".join(f"{name} {rate['median']:,.0f} env-steps/s" for name, rate in result["classical"].items()))
    read = measure.interleaved({"read": measure.reading(make_mesh())}, repeats, seconds)["read"]
    moved = measure.READ_BYTES * measure.READ_TIMES * jax.device_count()
    result["read_bytes_per_second"] = dataclasses.asdict(Spread.of([moved / time for time in read]))
    print(f"reading {result['read_bytes_per_second']['median'] / 1e9:.1f} GB/s")
    result["devices"] = measure_devices(repeats, seconds)
    print(", ".join(f"{number} devices {one['speedup']['median']:.2f}x" for number, one in result["devices"].items()))
    if json is not None:
        write_json(json, result)


if __name__ == "__main__":
    tyro.cli(main)
