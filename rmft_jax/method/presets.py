"""Named configurations."""

import dataclasses

from rmft_jax.agents import SingleLayer
from rmft_jax.config import ConfigError, Value
from rmft_jax.method.settings import RunConfig
from rmft_jax.problems import Abrupt, Stationary

_GAUSSIAN = Stationary(feedback="full", prior="gaussian", noise="gaussian", prior_std=0.7)
_DEFAULT = RunConfig()
# Selection by advantage: ranks within a scenario do not tell a large gain from a small one (see `selection.py`).
# All arms share their weights: told in a list (`one_hot`), each is learned anew, and regret ends higher.
_MAB = _DEFAULT.replace(
    selection="advantage",
    num_rollouts=16,
    k=1,
    entropy_weight=0.0,
    arms="token",
    width=16,
    num_iterations=200,
    num_scenarios=512,
    step_size=4e-3,
    chunk_size=10,
    num_validation_scenarios=4096,
    play_temperature=0.5,
)

PRESETS: dict[str, tuple[str, RunConfig]] = {
    "quickstart": (
        "Bernoulli bandit, K=3, T=30: about a minute on two CPU cores",
        _DEFAULT.replace(num_arms=3, horizon=30, num_iterations=200, num_scenarios=512, chunk_size=10),
    ),
    "fol": (
        "full information, Gaussian rewards around a drawn mean, K=5, T=50: about two minutes on two CPU cores",
        _DEFAULT.replace(
            environment=_GAUSSIAN,
            num_iterations=300,
            num_scenarios=512,
            shared_reward_noise=True,
            step_size=4e-3,
            exploration_std=2.0,
            entropy_weight=0.0,
        ),
    ),
    "nsmab": (
        "Bernoulli bandit with three abrupt changes, K=3, T=100: about six minutes on two CPU cores",
        _MAB.replace(environment=Abrupt(num_arms=3), horizon=100),
    ),
    "single-layer": (
        "the theory's model: full information, one layer of attention, exact least squares, K=3, T=50: about a minute",
        _DEFAULT.replace(
            environment=dataclasses.replace(_GAUSSIAN, num_arms=3),
            policy=SingleLayer(),
            update="least_squares",
            num_iterations=100,
            num_scenarios=1024,
            branching="none",
            shared_reward_noise=True,
            exploration_std=1.0,
            entropy_weight=0.0,
            chunk_size=10,
        ),
    ),
    "mab": ("Bernoulli bandit, K=5, T=50: about three minutes on two CPU cores", _MAB),
    "mab-k2": (
        "Bernoulli bandit, K=2, T=50, for which the Bayes optimum is known: about eight minutes on two CPU cores",
        # Regrets of two arms differ by little between policies, and by much between scenarios: hence that many.
        _MAB.replace(
            num_arms=2,
            num_iterations=400,
            num_scenarios=2048,
            num_minibatches=8,
            selection_temperature=0.5,
            num_validation_scenarios=8192,
            num_test_scenarios=16384,
        ),
    ),
    "mab-k5": (
        "Bernoulli bandit, K=5, T=100: about seven minutes on two CPU cores",
        _MAB.replace(horizon=100, step_size=2e-3),
    ),
    "mab-per-scenario": (
        "the bandit of `mab` told as a list of arms, lowest regrets of each scenario kept, 2 of 8: about three minutes",
        _DEFAULT,
    ),
    "mab-plain": (
        "the same with whole-trajectory selection, as in the paper, and half of the trajectories kept",
        _DEFAULT.replace(branching="none", k=4),
    ),
}

_TEXT: dict[str, Value] = {"policy": "text", "selection": "advantage", "k": 1, "entropy_weight": 0.0}
# As settings, for what they choose is imported only where it is named.
TEXT_PRESETS: dict[str, tuple[str, dict[str, Value]]] = {
    "text-toy": (
        "a toy language model that is told of a Bernoulli bandit, K=3, T=20: about eight minutes on two CPU cores",
        _TEXT
        | {
            "model": "toy",
            "tuned": "all",
            "num_tellings": 512,
            "num_arms": 3,
            "horizon": 20,
            "num_iterations": 450,
            "num_scenarios": 64,
            "num_rollouts": 8,
            "rollout_block": 16,
            "update_block": 16,
            "num_minibatches": 4,
            "step_size": 1e-3,
            "chunk_size": 10,
            "num_validation_scenarios": 256,
            "num_test_scenarios": 1024,
        },
    ),
    "text-smollm2": (
        "SmolLM2-135M, adapters trained: two arms that pay with 0.9 and 0.1, T=6: about half an hour on two CPU cores",
        _TEXT
        | {
            "model": "smollm2",
            "num_tellings": 256,
            "num_arms": 2,
            "prior": "fixed_gap",
            "gap": 0.8,
            "horizon": 6,
            "num_iterations": 24,
            "num_scenarios": 64,
            "num_rollouts": 8,
            "temperature": 2.5,
            "rollout_block": 64,
            "update_block": 8,
            "num_minibatches": 8,
            "step_size": 1e-3,
            "chunk_size": 2,
            "num_validation_scenarios": 64,
            "num_test_scenarios": 256,
        },
    ),
}
"""Those of the optional language part."""


def get_preset(name: str) -> RunConfig:
    """The configuration of a preset.

    Raises:
      ConfigError: if there is no such preset, or what it needs is not installed.
    """
    if name in TEXT_PRESETS:
        return _DEFAULT.replace(**TEXT_PRESETS[name][1])
    if name not in PRESETS:
        known = ", ".join([*PRESETS, *TEXT_PRESETS])
        raise ConfigError(f"got preset {name!r}, need one of {known}; try `rmft presets`")
    return PRESETS[name][1]
