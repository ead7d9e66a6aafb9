"""What tables and figures call agents and settings."""

from rmft_jax.config.names import TRAINED

AGENT_LABELS = {
    TRAINED: "RMFT Transformer",
    "rmft_held_out": "RMFT, held-out words",
    "rmft_start": "before RMFT",
    "bayes_optimal": "Bayes-optimal",
    "gittins": "Gittins index",
    "change_point_index": "change-point index",
    "posterior_index": "posterior index",
    "discounted_index": "discounted index",
    "thompson": "Thompson",
    "discounted_thompson": "discounted Thompson",
    "ucb1": "UCB1",
    "ucb": "UCB",
    "kl_ucb": "KL-UCB",
    "moss": "MOSS",
    "discounted_ucb": "discounted UCB",
    "sliding_window_ucb": "sliding-window UCB",
    "greedy": "greedy",
    "epsilon_greedy": "ε-greedy",
    "explore_then_commit": "explore-then-commit",
    "exp3": "EXP3",
    "exp3_ix": "EXP3-IX",
    "exp3_p": "EXP3.P",
    "rexp3": "Rexp3",
    "tsallis_inf": "Tsallis-INF",
    "hedge": "Hedge",
    "hedge_anytime": "Hedge, anytime",
    "ftrl": "FTRL",
    "ftpl": "FTPL",
    "follow_the_leader": "follow the leader",
    "uniform": "uniform",
    "best_fixed_arm": "best fixed arm",
    "best_arm": "best arm",
}
# What axes and legends call settings that have symbols in the papers.
_FIELDS = {
    "num_arms": ("number of arms K", "K"),
    "horizon": ("horizon T", "T"),
    "num_rollouts": ("rollouts of a scenario L", "L"),
    "num_scenarios": ("scenarios M", "M"),
    "k": ("trajectories kept k", "k"),
    "num_iterations": ("RMFT iterations", "iterations"),
    "exploration_std": ("noise on scores, standard deviation", "noise"),
    "width": ("width of the network", "width"),
    "num_layers": ("layers", "layers"),
}


def agent_label(name: str) -> str:
    """What people call an agent; one that is not known here by its name in words."""
    return AGENT_LABELS.get(name, name.replace("_", " "))


def field_label(name: str) -> str:
    """What an axis calls a setting, such as "number of arms K"."""
    return _names_of(name)[0]


def value_label(text: str) -> str:
    """A setting and its value as a legend writes it, such as "K = 5" for "num_arms = 5"."""
    name, between, value = text.partition(" = ")
    return f"{_names_of(name)[1]}{between}{value}" if between else text


def _names_of(name: str) -> tuple[str, str]:
    plain = name.replace("_", " ")
    return _FIELDS.get(name, (plain, plain))
