"""What golden results are of: presets, objectives, selections, environments, evaluations, a sweep, runs; all tiny."""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
SMALL = {"horizon": 10, "num_scenarios": 16, "num_rollouts": 4, "num_iterations": 6}
BANDIT = {**SMALL, "width": 8, "num_layers": 1}
FULL = {**BANDIT, "exploration_std": 1.0}
PRESET = {"horizon": 12, "num_scenarios": 32}

METRICS = ("regret", "selected_regret", "loss", "grad_norm", "entropy", "suff_fail_freq")

# Presets that have changed since, as they were on the fixed day.
_LISTED = {"arms": "one_hot", "step_size": 2e-3, "play_temperature": 1.0}
_OF_THE_DAY: dict[str, Settings] = {
    "fol": {"exploration_std": 1.0},
    "mab": {**_LISTED, "num_minibatches": 8},
    "mab-k2": {
        **_LISTED,
        "num_minibatches": 4,
        "entropy_weight": 0.01,
        "num_iterations": 300,
        "selection_temperature": 0.0,
    },
    "mab-k5": {**_LISTED, "num_minibatches": 8, "num_iterations": 160},
    "nsmab": {
        **_LISTED,
        "num_rollouts": 8,
        "selection": "regret",
        "k": 2,
        "num_iterations": 400,
        "entropy_weight": 0.01,
    },
}
_PRESETS = ("quickstart", *_OF_THE_DAY, "mab-per-scenario", "mab-plain")
_ALL_KEPT = {"k": 4}
_BANDITS: dict[str, Settings] = {
    "plain": {},
    **{f"distillation-{who}": {"objective": "distillation", "behavior": who} for who in ("ucb1", "thompson", "exp3")},
    **{f"dpt-{name}": {"objective": "dpt", "behavior": name} for name in ("policy", "uniform")},
    "reinforce": {"objective": "reinforce", **_ALL_KEPT},
    "grpo": {"objective": "grpo", **_ALL_KEPT},
    "grpo-epochs": {"objective": "grpo", **_ALL_KEPT, "branching": "none", "num_epochs": 3, "step_size": 0.02},
    **{f"selection-{name}": {"selection": name} for name in ("advantage", "reward", "random", "pooled")},
    **{f"regret-{name}": {"selection_regret": name} for name in ("static", "dynamic", "realized", "swap")},
    "regret-pseudo-expected": {"selection_regret": "pseudo", "selection_form": "expected"},
    "regret-dynamic-expected": {
        "environment": "abrupt", "selection_regret": "dynamic", "selection_form": "expected"
    },
    "branching-none": {"branching": "none"},
    "shared-reward-noise": {"shared_reward_noise": True},
    "refresh": {"refresh_every": 2},
    **{f"kl-{name}": {"kl_reference": name, "kl_weight": 0.3} for name in ("previous", "initial")},
    "temperature": {"temperature": 0.8, "step_size": 0.05},  # Steps that make some arms likelier than others.
    "schedule-constant": {"schedule": "constant"},
    "steps": {"num_epochs": 2, "num_minibatches": 2, "max_grad_norm": 0.1, "entropy_weight": 0.05},
    "blocks": {"rollout_block": 24, "update_block": 3},
    **{f"position-{name}": {"position": name} for name in ("learned", "sinusoidal", "alibi")},
    "arms-token": {"arms": "token"},
    "heads-mlp": {"num_heads": 1, "mlp_ratio": 2},
    **{name: {"environment": name} for name in ("sinusoidal", "gradual", "crowding")},
    "besbes-first-third": {"environment": "besbes_first_third", "variation": 1.0},
}  # fmt: skip
_FULL_INFORMATION: dict[str, Settings] = {
    "softmax": {},
    "simplex": {"decision_map": "simplex"},
    "ball": {"decision_map": "ball", "radius": 0.7},
    "identity": {"decision_map": "identity", "radius": 0.7},
    "dpt": {"objective": "dpt"},
    "regret-loss": {"objective": "regret_loss", "branching": "none"},
    "regret-loss-ball": {"objective": "regret_loss", "branching": "none", "decision_map": "ball"},
    "reinforce": {"objective": "reinforce", **_ALL_KEPT},
    "advantage": {"selection": "advantage", "shared_reward_noise": False},
    "regret-sampled": {"selection_form": "sampled"},
    "regret-pseudo": {"selection_regret": "pseudo"},
    "arms-token": {"arms": "token"},
    "favourite": {"environment": "favourite"},
}
# Those in which nothing else is trained.
_ENVIRONMENTS = (
    "gaussian", "fixed_gap_hard", "random_walk", "linear_trend", "abrupt_mirrored", "besbes_even", "iid_uniform",
    "sine_trend", "alternating",
)  # fmt: skip
_GRADIENT = {"update": "gradient", "num_minibatches": 2}
_SINGLE_LAYER: dict[str, Settings] = {
    "least-squares": {},
    "least-squares-penalty": {"l2_penalty": 0.3},
    "least-squares-identity": {"decision_map": "identity"},
    "least-squares-softmax": {"attention": "softmax", "init_std": 0.1},
    "gradient": _GRADIENT,
    "gradient-softmax": {**_GRADIENT, "attention": "softmax", "init_std": 0.1},
    "gradient-all": {**_GRADIENT, "trained": "all", "init_std": 0.1},
    "regret-loss": {**_GRADIENT, "objective": "regret_loss"},
    "bandit": {"environment": "bernoulli", "branching": "uniform"},
    "bandit-gradient": {**_GRADIENT, "environment": "bernoulli"},
    "orthogonal": {"environment": "favourite", "adversary": "orthogonal", "decision_map": "ball"},
    **{f"noise-{name}": {"environment": "sinusoidal", "noise": name} for name in ("beta", "uniform")},
    **{name: {"environment": name} for name in _ENVIRONMENTS},
}
ITERATIONS: dict[str, tuple[str, Settings]] = {
    **{f"preset/{name}": (name, {**PRESET, "width": 8, **_OF_THE_DAY.get(name, {})}) for name in _PRESETS},
    "preset/single-layer": ("single-layer", PRESET),
    **{f"bandit/{name}": ("quickstart", {**BANDIT, **settings}) for name, settings in _BANDITS.items()},
    **{f"full/{name}": ("fol", {**FULL, **settings}) for name, settings in _FULL_INFORMATION.items()},
    **{f"single-layer/{name}": ("single-layer", {**SMALL, **settings}) for name, settings in _SINGLE_LAYER.items()},
}
"""What is trained for three iterations: a preset, and the settings that differ."""
ON_TWO_DEVICES = (
    "preset/quickstart",
    "preset/mab",
    "preset/single-layer",
    "bandit/reinforce",
    "bandit/selection-random",
)
"""Of these, what is trained on two devices as well."""

_EVALUATED = {**BANDIT, "horizon": 12}
EVALUATIONS: dict[str, tuple[str, Settings, tuple[str, ...]]] = {
    "evaluation/bandit": ("quickstart", {**_EVALUATED, "num_arms": 2}, ()),
    "evaluation/full": ("fol", {**FULL, "horizon": 12}, ()),
    "evaluation/abrupt": (
        "nsmab",
        {**_OF_THE_DAY["nsmab"], "width": 32, "horizon": 12, "num_scenarios": 16},
        ("rexp3", "sliding_window_ucb", "discounted_ucb", "discounted_thompson"),
    ),
    "evaluation/adversarial": (
        "single-layer",
        {**SMALL, "environment": "crowding"},
        ("exp3", "exp3_ix", "tsallis_inf"),
    ),
}
"""Where agents are evaluated: some of the baselines, or all of them and a policy that was trained for three
iterations."""
_RUN = {"num_iterations": 4, "chunk_size": 2, "num_validation_scenarios": 32, "num_test_scenarios": 64}
RUNS: dict[str, tuple[str, Settings]] = {
    # Evaluated by the programs of `evaluation/bandit`.
    "run/bandit": ("quickstart", {**_EVALUATED, **_RUN, "num_arms": 2}),
    "run/ball": ("single-layer", {**SMALL, **_RUN, "decision_map": "identity"}),
}
SWEEP_GRID = {"horizon": [8, 10], "num_arms": [2, 3], "seed": [0, 1]}
SWEEP = {name: value for name, value in {**BANDIT, **_RUN}.items() if name != "horizon"}
# Agents that no setting has among its baselines.
SWEPT_AGENTS = ("ucb", "kl_ucb", "moss", "explore_then_commit", "exp3_p")

WHOLE_PARAMS = ("preset/quickstart", "preset/fol", "preset/single-layer")
"""The cases whose compact form has all parameters."""
