"""Users' environments: what they return is looked at, and told in a line, before anything compiles."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rmft_jax
from own import registers_restored
from rmft_jax import Environment, ObliviousEnvironment, Outcome, Problem, Sweep, evaluate, make_agents
from rmft_jax.config import ConfigError
from rmft_jax.problems.contract import require_environment
from rmft_jax.sweeps.run import checked_plan


@pytest.fixture(autouse=True)
def _restored():
    with registers_restored():
        yield


class Tired(Environment):
    """An arm pays less right after it was played."""

    def reset(self, key: Any, arm_mask: Any, round_mask: Any) -> Any:
        return jax.random.uniform(key, arm_mask.shape), jnp.zeros(arm_mask.shape)

    def mean_rewards(self, state: Any, round: Any) -> Any:
        means, tired = state
        return means * (1 - 0.5 * tired)

    def step(self, key: Any, state: Any, decision: Any, round: Any) -> tuple[Any, Outcome]:
        means = self.mean_rewards(state, round)
        played = jax.nn.one_hot(decision.action, self.num_arms)
        return (state[0], played), Outcome(mean_rewards=means, rewards=self.draw_rewards(key, means))


class Path(ObliviousEnvironment):
    """Uniform means."""

    def path(self, key: Any, arm_mask: Any, round_mask: Any) -> Any:
        return jax.random.uniform(key, arm_mask.shape)[None]


def with_path(path: Any, **members: Any) -> Problem:
    """A problem whose expected rewards a function of key and masks draws."""
    return problem_of(Path, path=lambda self, *arguments: path(*arguments), **members)


def problem_of(base: type, **members: Any) -> Problem:
    """A problem of a class with some methods replaced."""
    kind: Any = type("Mine", (base,), {"__module__": "users", **members})
    return Problem(kind(num_arms=3), 6)


def uniform(key: Any, arm_mask: Any) -> Any:
    return jax.random.uniform(key, arm_mask.shape)[None]


UNFIT: dict[str, tuple[Any, str]] = {
    "outside": (
        lambda: with_path(lambda key, arms, rounds: 3 * jax.random.normal(key, arms.shape)[None]),
        "of Mine, whose mean_range is (0, 1), need them inside it; try a property mean_range",
    ),
    "NaN": (
        lambda: with_path(lambda key, arms, rounds: jnp.log(-uniform(key, arms))),
        "got NaN or infinity as an expected reward from Mine, need numbers; try a look at its path",
    ),
    "transposed": (
        lambda: with_path(lambda key, arms, rounds: jnp.zeros((3, 6))),
        "got a path of shape (3, 6) from Mine, need (n, 3), one row per round and one column per arm; try its trans",
    ),
    "branches": (
        lambda: with_path(lambda key, arms, rounds: uniform(key, arms) if rounds.sum() > 3 else None),
        "(TracerBoolConversionError: an `if` or a number that depends on an array), need methods that JAX can trace; "
        "try jnp.where",
    ),
    "rewards alone": (
        lambda: problem_of(Tired, step=lambda self, key, state, decision, round: self.draw_rewards(key, state[0])),
        "got float32[3] from step of Mine, need the next state and an Outcome; try return state, rmft_jax.Outcome(",
    ),
    "one reward": (
        lambda: problem_of(
            Tired,
            step=lambda self, key, state, decision, round: (
                state,
                Outcome(mean_rewards=state[0], rewards=jnp.ones(())),
            ),
        ),
        "got rewards from Mine of shape (), need one entry per arm, (3,); try returning one entry per arm",
    ),
    "another state": (
        lambda: problem_of(Tired, reset=lambda self, key, arms, rounds: (jnp.zeros(3), jnp.zeros(3, int))),
        "got a state of float32[3], float32[3] from step of Mine, need float32[3], int32[3], as reset returns",
    ),
    "told before": (
        lambda: problem_of(
            Tired,
            step=lambda self, key, state, decision, round: (
                state,
                Outcome(mean_rewards=1 - state[0], rewards=jnp.ones(3)),
            ),
            reset=lambda self, key, arms, rounds: (jax.random.uniform(key, arms.shape), jnp.zeros(arms.shape)),
        ),
        "got other numbers from mean_rewards of Mine before a decision than from step after it, need the same, or word",
    ),
    "arguments": (
        lambda: problem_of(Path, path=lambda self, key: key),
        "takes 2 positional arguments but 4 were given",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_an_environment_gets_wrong_is_told_in_a_line(case):
    make, message = UNFIT[case]
    problem = make()
    with pytest.raises(ConfigError) as error:
        evaluate(make_agents(Problem(Path(), 6), ["uniform"]), problem, num_scenarios=2, key=jax.random.key(0))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "try " in str(error.value)


def test_an_error_names_the_line_of_the_users_file():
    def path(key: Any, arms: Any, rounds: Any) -> Any:
        raise KeyError("season")

    with pytest.raises(ConfigError, match=rf"at {__file__}:{path.__code__.co_firstlineno + 1} \(KeyError: 'season'\)"):
        require_environment(with_path(path))


MIXING = {
    "arms reversed": lambda key, arms, rounds: uniform(key, arms)[:, ::-1],
    "the best among all columns": lambda key, arms, rounds: uniform(key, arms) / uniform(key, arms).max(),
    "rounds counted by a shape": lambda key, arms, rounds: (
        uniform(key, arms) * jnp.linspace(0, 1, rounds.shape[0])[:, None]
    ),
    "a draw for arms and rounds at once": lambda key, arms, rounds: jax.random.uniform(key, rounds.shape + arms.shape),
}


@pytest.mark.parametrize("case", MIXING)
def test_what_would_be_another_problem_in_larger_arrays_is_refused_there_alone(case):
    problem = with_path(MIXING[case])
    require_environment(problem)
    with pytest.raises(ConfigError, match="other expected rewards from Mine where arrays are for one more arm"):
        require_environment(problem, filled_up=True)


def test_what_heeds_the_masks_may_be_filled_up():
    def swapped(key: Any, arms: Any, rounds: Any) -> Any:
        means = uniform(key, arms)[0]
        turned = means[(jnp.arange(len(means)) + 1) % arms.sum()]
        late = jnp.arange(rounds.shape[0]) >= rounds.sum() // 2
        return jnp.where(late[:, None], turned, means)

    require_environment(with_path(swapped), filled_up=True)
    require_environment(Problem(Tired(num_arms=3), 6), filled_up=True)


def test_absent_arms_and_rounds_have_no_expected_rewards():
    """The zeros in their places do not count as outside `mean_range`."""
    half = property(lambda self: (0.4, 0.6))
    problem = with_path(lambda key, arms, rounds: 0.4 + 0.2 * uniform(key, arms), mean_range=half)
    require_environment(problem, filled_up=True)
    require_environment(problem.of_size(4, 8))


def test_a_sweep_over_sizes_refuses_and_one_size_does_not():
    rmft_jax.register_environment("reversed")(type(with_path(MIXING["arms reversed"]).environment))
    cells = {"environment": ["reversed"], "horizon": [6], "num_scenarios": [4], "num_iterations": [2]}
    checked_plan(Sweep(grid=cells | {"num_arms": [3]}).expand(), ())
    with pytest.raises(ConfigError, match="nothing that mixes all arms"):
        checked_plan(Sweep(grid=cells | {"num_arms": [3, 4]}).expand(), ())


def test_what_play_changes_is_not_judged_by_other_play():
    problem = Problem(Tired(num_arms=3), 6)
    assert problem.environment.adaptive
    assert not Path().adaptive
    assert "best_fixed_arm" not in rmft_jax.make_baselines(problem)
    assert "best_fixed_arm" in rmft_jax.make_baselines(Problem(Path(), 6))


def test_a_number_without_a_type_is_no_setting():
    with pytest.raises(
        ConfigError, match=r"got rate without a type in environment 'mine' \(Mine\), need one for every"
    ):
        rmft_jax.register_environment("mine")(type(problem_of(Path, rate=0.3).environment))
    # What the base class has may be set anew, and what is private is nobody's setting.
    rmft_jax.register_environment("mine")(type(problem_of(Path, bandit_regret="pseudo", _rate=0.3).environment))


def test_who_settles_rewards_after_the_decision_says_so_and_has_no_best_arm_before():
    def step(self: Any, key: Any, state: Any, decision: Any, round: Any) -> tuple[Any, Outcome]:
        means = 0.8 - 0.6 * jax.nn.one_hot(decision.action, self.num_arms)
        return state, Outcome(mean_rewards=means, rewards=means)

    members = {"step": step, "mean_rewards": lambda self, state, round: jnp.full(3, jnp.nan)}
    with pytest.raises(ConfigError, match="try reacts = True in the class"):
        require_environment(problem_of(Tired, **members))
    reacting = problem_of(Tired, **members, reacts=True)
    require_environment(reacting)
    assert "best_arm" not in make_agents(reacting)


def test_a_law_without_bounds_names_a_scale():
    members: Any = {"mean_range": property(lambda self: (-math.inf, math.inf))}
    problem = problem_of(Path, **members)
    problem = dataclasses.replace(problem, environment=dataclasses.replace(problem.environment, noise="gaussian"))
    with pytest.raises(ConfigError, match=r"infinite reward_range .* try a property nominal_mean_range"):
        make_agents(problem)
    problem = problem_of(Path, **members, nominal_mean_range=property(lambda self: (-2.0, 4.0)))
    problem = dataclasses.replace(problem, environment=dataclasses.replace(problem.environment, noise="gaussian"))
    thompson: Any = make_agents(problem, ["thompson"])["thompson"]
    assert (thompson.prior_mean, thompson.prior_std) == pytest.approx((1.0, 6 / 12**0.5))


def test_without_a_budget_of_its_own_a_wide_range_may_be_crossed_in_every_round():
    wide = problem_of(Path, mean_range=property(lambda self: (0.0, 10.0))).environment
    assert wide.variation_budget(20) == 190.0
    assert Path().variation_budget(20) == 19.0


def test_a_rescaled_problem_changes_no_agent_s_play():
    def regrets(unit: float) -> Any:
        kind: Any = type(
            "Scaled", (Path,), {
                "__module__": "users",
                "mean_range": property(lambda self: (0.0, unit)),
                "variation_budget": lambda self, horizon: 3.0 * unit,
                "path": lambda self, key, arms, rounds: unit * jax.random.uniform(key, (len(rounds), self.num_arms)),
            },
        )  # fmt: skip
        problem = Problem(kind(num_arms=3, noise="gaussian", noise_std=0.2 * unit), 12)
        names = ("discounted_ucb", "sliding_window_ucb", "discounted_index", "rexp3", "ucb1")
        played = evaluate(make_agents(problem, names), problem, num_scenarios=64, key=jax.random.key(3))
        return played["regret"].isel(round=-1).mean("scenario").to_numpy() / unit

    np.testing.assert_allclose(regrets(128.0), regrets(1.0), rtol=1e-4)
