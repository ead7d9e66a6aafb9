import dataclasses
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft_jax.method.evaluation import in_hindsight
from rmft_jax.problems.regret import (
    REGRETS,
    Form,
    Regret,
    dynamic_regret,
    pseudo_regret,
    realized_regret,
    static_regret,
    swap_regret,
)
from rmft_jax.problems.types import Trajectory

ARMS = 4
# XLA on CPU takes subnormal numbers for 0, NumPy does not, so the two would disagree about which arm is best.
unit = st.floats(0, 1, width=32, allow_subnormal=False)


@st.composite
def trajectories(draw):
    """One trajectory over K = 4 arms of which at least one exists, with rewards of every kind."""
    horizon = draw(st.sampled_from([1, 2, 5]))  # Every length is compiled.
    mask = draw(hnp.arrays(bool, ARMS).filter(np.any))
    tables = [draw(hnp.arrays(np.float32, (horizon, ARMS), elements=unit)) * mask for _ in range(2)]
    actions = np.asarray([draw(st.sampled_from(np.flatnonzero(mask).tolist())) for _ in range(horizon)], np.int32)
    weights = (draw(hnp.arrays(np.float32, (horizon, ARMS), elements=unit)) + np.float32(0.01)) * mask
    return Trajectory(
        actions=jnp.asarray(actions),
        rewards=jnp.asarray(tables[1][np.arange(horizon), actions]),
        probabilities=jnp.asarray(weights / weights.sum(-1, keepdims=True)),
        mean_rewards=jnp.asarray(tables[0]),
        reward_table=jnp.asarray(tables[1]),
        scores=None,
        arm_mask=jnp.asarray(mask),
    )


FORMS: tuple[Form, Form] = ("sampled", "expected")


@jax.jit
def regrets(trajectory: Trajectory) -> dict[str, Any]:
    """All of them in both forms, by their names: `static sampled`."""
    return {f"{name} {form}": regret(trajectory, form) for name, regret in REGRETS.items() for form in FORMS}


hindsight = jax.jit(in_hindsight)
call = jax.jit(lambda regret, trajectory: (regret(trajectory), regret.reward(trajectory)))


def twin(name: str, form: str, trajectory: Trajectory) -> np.ndarray:
    """Each definition as a loop, from the tables' prefix of every round."""
    t = {name: np.asarray(value, np.float64) for name, value in vars(trajectory).items() if value is not None}
    arms, result = np.flatnonzero(t["arm_mask"]), []
    weights = t["probabilities"] if form == "expected" else np.eye(ARMS)[t["actions"].astype(int)]
    for end in range(1, len(weights) + 1):
        r, R, pi = t["mean_rewards"][:end], t["reward_table"][:end], weights[:end]
        match name:
            case "static":
                value = max(R[:, a].sum() for a in arms) - (pi * R).sum()
            case "pseudo":
                value = max(r[:, a].sum() for a in arms) - (pi * r).sum()
            case "dynamic":
                value = sum(max(row[arms]) for row in r) - (pi * r).sum()
            case "realized":
                value = sum(row_R[arms[np.argmax(row[arms])]] for row, row_R in zip(r, R, strict=True)) - (pi * R).sum()
            case "swap":
                value = sum(max(sum(pi[:, a] * (R[:, b] - R[:, a])) for b in arms) for a in arms)
            case _:
                raise AssertionError(name)
        result.append(value)
    return np.asarray(result)


@settings(deadline=None, max_examples=40)
@given(trajectories())
def test_each_regret_equals_its_slow_twin(trajectory):
    found = regrets(trajectory)
    for name in REGRETS:
        for form in FORMS:
            np.testing.assert_allclose(found[f"{name} {form}"], twin(name, form, trajectory), atol=2e-5)


@settings(deadline=None, max_examples=30)
@given(trajectories())
def test_the_total_reward_has_the_form_of_the_regret(trajectory):
    """What earns more has less regret: their sum is the comparator's reward, which is the same in either form."""
    policy = np.asarray(trajectory.probabilities, np.float64)
    for static, earned in (
        (Regret("static", "sampled"), np.asarray(trajectory.rewards).sum()),
        (Regret("static", "expected"), np.sum(policy * np.asarray(trajectory.reward_table))),
    ):
        regret, reward = call(static, trajectory)
        np.testing.assert_allclose(reward, earned, atol=2e-5)
        np.testing.assert_allclose(reward + regret[-1], twin_best(trajectory), atol=2e-5)


def test_the_forms_that_are_standard():
    """Static and swap regret are of policies, the bandit regrets of actions."""
    for regret in (static_regret, swap_regret):
        np.testing.assert_array_equal(regret(LUCKY), regret(LUCKY, "expected"))
    for regret in (pseudo_regret, dynamic_regret, realized_regret):
        np.testing.assert_array_equal(regret(LUCKY), regret(LUCKY, "sampled"))


@settings(deadline=None, max_examples=60)
@given(trajectories())
def test_dynamic_regret_never_falls(trajectory):
    found = regrets(trajectory)
    for form in FORMS:
        assert np.diff(np.asarray(found[f"dynamic {form}"]), prepend=0).min() >= -1e-5
        assert (found[f"dynamic {form}"] >= found[f"pseudo {form}"] - 1e-5).all()


@settings(deadline=None, max_examples=60)
@given(trajectories())
def test_swap_regret_is_at_least_the_static_one(trajectory):
    found = regrets(trajectory)
    for form in FORMS:
        assert (found[f"swap {form}"] >= found[f"static {form}"] - 1e-5).all()


@settings(deadline=None, max_examples=60)
@given(trajectories())
def test_the_best_fixed_arm_has_no_static_regret(trajectory):
    best = hindsight(trajectory)
    for form in FORMS:
        np.testing.assert_allclose(regrets(best)[f"static {form}"][-1], 0, atol=1e-5)
    assert bool(trajectory.arm_mask[best.actions[0]])
    np.testing.assert_allclose(best.rewards.sum(), twin_best(trajectory), atol=1e-5)


def twin_best(trajectory: Trajectory) -> float:
    return max(np.asarray(trajectory.reward_table)[:, a].sum() for a in np.flatnonzero(trajectory.arm_mask))


@settings(deadline=None, max_examples=30)
@given(trajectories(), st.floats(0.1, 3.0))
def test_the_regret_of_a_ball_equals_its_slow_twin(trajectory, radius):
    R, x = np.asarray(trajectory.reward_table, np.float64), np.asarray(trajectory.probabilities, np.float64)
    expected = [radius * np.linalg.norm(R[:t].sum(0)) - (x[:t] * R[:t]).sum() for t in range(1, len(R) + 1)]
    np.testing.assert_allclose(call(Regret("ball", "expected", radius), trajectory)[0], expected, atol=2e-5)


LUCKY = Trajectory(
    actions=jnp.asarray([1]),
    rewards=jnp.asarray([1.0]),
    probabilities=jnp.asarray([[0.5, 0.5]]),
    mean_rewards=jnp.asarray([[0.9, 0.1]]),
    reward_table=jnp.asarray([[0.0, 1.0]]),
    scores=None,
    arm_mask=jnp.asarray([True, True]),
)


def test_realized_regret_can_be_negative():
    np.testing.assert_allclose(realized_regret(LUCKY), [-1.0])
    np.testing.assert_allclose(pseudo_regret(LUCKY), [0.8])


def test_a_long_horizon_does_not_drown_small_regrets():
    """At T = 10,000 the sums of rewards are in the thousands; the regret of the best arm is still exactly zero."""
    # All of it exact in float32; the second arm earns what the first does in another order, and a little less.
    first = 0.5 + np.random.default_rng(0).integers(0, 2**19, 10_000) / 2**20
    table = jnp.asarray(np.stack([first, first[::-1] - 2.0**-13], axis=1), jnp.float32)
    zeros, mask = jnp.zeros(10_000, jnp.int32), jnp.asarray([True, True])
    best = Trajectory(zeros, table[:, 0], jax.nn.one_hot(zeros, 2), table, table, None, mask)
    second = dataclasses.replace(best, actions=zeros + 1, probabilities=jax.nn.one_hot(zeros + 1, 2))
    for regret in (static_regret, pseudo_regret):
        assert float(regret(best)[-1]) == 0
        assert float(regret(second)[-1]) == pytest.approx(10_000 * 2.0**-13, abs=5e-5)
