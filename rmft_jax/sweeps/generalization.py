"""A trained policy on problems that it was not trained on, beside the classical agents."""

import typing
from collections.abc import Callable, Mapping, Sequence

import jax
import xarray as xr

from rmft_jax.agents import TrainedAgent
from rmft_jax.agents.base import RefittedAgent
from rmft_jax.config import ConfigError, Value
from rmft_jax.config.settings import hints_of
from rmft_jax.method.numerics import pinned
from rmft_jax.method.rollout import require_feedback
from rmft_jax.method.settings import RunConfig
from rmft_jax.problems import Environment, Feedback
from rmft_jax.running.trainer import RunKeys
from rmft_jax.sweeps.assembly import assemble, content_of
from rmft_jax.sweeps.plan import Group, arms, require_filled_up, structure
from rmft_jax.sweeps.programs import Programs
from rmft_jax.sweeps.results import baselines_of, played_dataset
from rmft_jax.sweeps.spec import Cell, Sweep


@pinned()
def evaluate_grid(
    config: RunConfig,
    agent: TrainedAgent,
    axes: Mapping[str, Sequence[Value]],
    *,
    baselines: Sequence[str] | None = None,
    watch: Callable[[str, float], None] = lambda label, regret: None,
) -> xr.Dataset:
    """Plays a trained policy and the classical agents on every combination of some settings.

    What is not named stays as it was trained, arm count and feedback included where the environment is another one.
    All combinations in one family of environments share a program, padded to the largest of them.

    Args:
      config: the run that the policy is from; its seed draws the scenarios, as many as its test scenarios.
      agent: the policy.
      axes: values of `horizon`, `environment` (a name) and settings of environments, such as `num_arms`.
      baselines: names of the classical agents. None: those that a sweep plays.
      watch: called with the label of every combination, and its mean regret, when it is done.

    Returns:
      A dataset over the axes, and over `round`, `agent` and `rank`: what `load_sweep` returns, but for training.

    Raises:
      ConfigError: if a combination cannot work, or the policy cannot play it.
    """
    cells = _cells(config, agent, axes)
    groups = _groups(cells, agent, config)
    agents = [baselines_of(cell, group, baselines) for group in groups for cell in group.cells]
    key, contents = jax.random.key_data(RunKeys.create(config.seed).test), {}
    for group in groups:
        programs = Programs(group)
        for cell in group.cells:
            own = agent.refitted(cell.config.rmft.problem()) if isinstance(agent, RefittedAgent) else agent
            plays = programs.evaluate({"rmft": own, **agents.pop(0)}, cell, key)
            played = played_dataset(cell, plays)
            contents[cell.index] = content_of(played)
            watch(cell.label, float(played["final_regret"]))
    coordinates = [cell.coordinates for cell in cells]
    status = dict.fromkeys(contents, "finished")
    dataset = assemble(Sweep(grid=axes).dimensions(coordinates), coordinates, contents, status)
    trained = {"trained_horizon": config.rmft.horizon, "trained_num_arms": arms(config)}
    dataset.attrs |= trained | {"num_scenarios": config.num_test_scenarios, "seed": config.seed}
    return dataset


def _cells(config: RunConfig, agent: TrainedAgent, axes: Mapping[str, Sequence[Value]]) -> list[Cell]:
    settings = {name for kind in Environment.register.classes().values() for name in hints_of(kind)}
    for field in axes:
        if field not in {"horizon", "environment", *settings}:
            known = "horizon, environment or a setting of environments"
            raise ConfigError(f"got {field} as an axis of an evaluation, need {known}; try num_arms")
    for feedback in axes.get("feedback", ()):
        require_feedback(agent, typing.cast(Feedback, feedback))
    own = config.rmft.environment
    kept = {"num_arms": own.num_arms, "feedback": own.feedback} if "environment" in axes else {}
    override = {field: value for field, value in kept.items() if field not in axes}
    return Sweep(grid=axes, override=override).expand(config)


def _groups(cells: Sequence[Cell], agent: TrainedAgent, trained: RunConfig) -> list[Group]:
    """The cells of one family of environments, at the size of the largest, or of the policy if it knows only one."""
    families: dict[object, list[Cell]] = {}
    for cell in cells:
        # An agent that is made anew for every size is not padded.
        sizes = () if isinstance(agent, RefittedAgent) else ("horizon", "num_arms")
        families.setdefault(tuple(structure(cell.config, without=sizes).items()), []).append(cell)
    groups = []
    for members in families.values():
        horizon = max(cell.config.rmft.horizon for cell in members)
        num_arms = max(arms(cell.config) for cell in members)
        if not trained.rmft.policy.any_num_arms:
            if num_arms > agent.num_arms:
                raise ConfigError(
                    f"got num_arms={num_arms}, need at most the {agent.num_arms} for which the policy was made; "
                    "try a policy trained with arms='token', which plays any number"
                )
            num_arms = agent.num_arms
        config = members[0].config.replace(num_arms=num_arms, horizon=horizon)
        fits = agent.refitted(config.rmft.problem()) if isinstance(agent, RefittedAgent) else agent
        jax.eval_shape(lambda K=num_arms, T=horizon, one=fits: one.init(K, T))
        groups.append(Group(tuple(members), config, ()))
        require_filled_up(groups[-1])
    return groups
