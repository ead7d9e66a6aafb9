import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft_jax.regret import expected_regret, pseudo_regret, realized_regret
from rmft_jax.types import Trajectory

ARMS = 4
unit = st.floats(0, 1, width=32)


@st.composite
def trajectories(draw):
    """One trajectory over K = 4 arms of which at least one exists, with rewards of every kind."""
    horizon = draw(st.integers(1, 6))
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


def twin(trajectory: Trajectory, term) -> np.ndarray:
    """Cumulates `term(mean_rewards, rewards, policy, action, existing arms)` round by round."""
    t = {name: np.asarray(value, np.float64) for name, value in vars(trajectory).items()}
    arms, total, result = np.flatnonzero(t["arm_mask"]), 0.0, []
    for row in range(len(t["actions"])):
        action = int(t["actions"][row])
        total += term(t["mean_rewards"][row], t["reward_table"][row], t["probabilities"][row], action, arms)
        result.append(total)
    return np.asarray(result)


@settings(deadline=None, max_examples=60)
@given(trajectories())
def test_each_regret_equals_its_slow_twin(trajectory):
    cases = {
        pseudo_regret: lambda r, R, pi, a, arms: max(r[arms]) - r[a],
        expected_regret: lambda r, R, pi, a, arms: max(r[arms]) - sum(pi[b] * r[b] for b in arms),
        realized_regret: lambda r, R, pi, a, arms: R[arms[np.argmax(r[arms])]] - R[a],
    }
    for regret, term in cases.items():
        np.testing.assert_allclose(regret(trajectory), twin(trajectory, term), atol=2e-5)


@settings(deadline=None, max_examples=60)
@given(trajectories())
def test_regret_of_expectations_never_falls(trajectory):
    for regret in (pseudo_regret, expected_regret):
        assert (np.diff(np.asarray(regret(trajectory)), prepend=0) >= -1e-5).all()


def test_realized_regret_can_be_negative():
    lucky = Trajectory(
        actions=jnp.asarray([1]),
        rewards=jnp.asarray([1.0]),
        probabilities=jnp.asarray([[0.5, 0.5]]),
        mean_rewards=jnp.asarray([[0.9, 0.1]]),
        reward_table=jnp.asarray([[0.0, 1.0]]),
        scores=None,
        arm_mask=jnp.asarray([True, True]),
    )
    np.testing.assert_allclose(realized_regret(lucky), [-1.0])
    np.testing.assert_allclose(pseudo_regret(lucky), [0.8])
