import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from rmft_jax.agents import make_agents
from rmft_jax.config import RMFTConfig
from rmft_jax.environments import make_environment
from rmft_jax.presets import ENVIRONMENTS
from rmft_jax.rollout import RolloutKeys, rollout_scenarios
from rmft_jax.types import Extent

LARGER = 5, 9


def resized(config: RMFTConfig, num_arms: int, horizon: int) -> RMFTConfig:
    environment = dataclasses.replace(config.environment, num_arms=num_arms)
    return dataclasses.replace(config, environment=environment, horizon=horizon)


def trajectories(environment, name: str, num_arms: int, horizon: int, extent: Extent | None = None):
    config = dataclasses.replace(environment, num_arms=num_arms)
    small = config if extent is None else dataclasses.replace(config, num_arms=int(extent.num_arms))
    agent = make_agents(small, horizon if extent is None else int(extent.horizon), [name])[name]
    full = extent or Extent(num_arms, horizon)
    masks: dict[str, Any] = {"arm_mask": full.arm_mask(num_arms), "round_mask": full.round_mask(horizon)}

    @jax.jit
    def play(agent):
        keys = RolloutKeys.create(jax.random.key(3))
        world = make_environment(config)
        return rollout_scenarios(agent, world, keys, horizon=horizon, num_scenarios=20, num_rollouts=2, **masks)

    return play(agent)


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_problems_and_rewards_do_not_depend_on_padding(name):
    """What a scenario draws is indexed by scenario, rollout, round and arm, never by a padded shape."""
    environment = ENVIRONMENTS[name][1]
    arms, rounds = 3, 7
    own = trajectories(environment, "uniform", arms, rounds)
    padded = trajectories(environment, "uniform", 5, 12, Extent(arms, rounds))
    np.testing.assert_array_equal(padded.actions[..., :rounds], own.actions)
    for field in ("mean_rewards", "reward_table"):
        table = getattr(padded, field)
        np.testing.assert_allclose(table[..., :rounds, :arms], getattr(own, field), atol=1e-5)
        np.testing.assert_array_equal(table[..., arms:], 0)
