"""A trained policy on problems that it was not trained on: `evaluate_grid` and `rmft evaluate --grid`."""

import dataclasses

import jax
import numpy as np
import pytest
import xarray as xr

from rmft_jax import cli
from rmft_jax.agents import TrainedAgent, Transformer, make_agents
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import evaluate
from rmft_jax.method.settings import RunConfig
from rmft_jax.method.state import init, make_agent
from rmft_jax.problems import Problem
from rmft_jax.running.training import RunKeys
from rmft_jax.running.weights import TrainedPolicy
from rmft_jax.sweeps.generalization import evaluate_grid
from worlds import TINY_RUN

NAMES = ("ucb1", "thompson")


def untrained(**policy) -> tuple[RunConfig, TrainedAgent]:
    """A policy with random weights that are large enough for its play to depend on what it sees."""
    config = TINY_RUN.replace(policy=Transformer(1, 8, 2, **policy))
    state = init(config.rmft, jax.random.key(0))
    params = jax.tree.map(lambda leaf: 5 * leaf, state.params)
    return config, make_agent(dataclasses.replace(state, params=params))


def alone(config: RunConfig, agent: TrainedAgent, horizon: int, num_arms: int, size: int) -> xr.Dataset:
    """The same play by the evaluation of single runs, with `size` arms of which `num_arms` exist."""
    environment = config.rmft.environment
    own = Problem(dataclasses.replace(environment, num_arms=num_arms), horizon)
    agents = {"rmft": agent, **make_agents(own, NAMES)}
    key, count = RunKeys.create(config.seed).test, config.num_test_scenarios
    problem = Problem.checked(dataclasses.replace(environment, num_arms=size), horizon, num_arms)
    return evaluate(agents, problem, num_scenarios=count, key=key)


@pytest.mark.parametrize(
    ("arms", "num_arms"), [pytest.param("token", [2, 6], marks=pytest.mark.slow), ("one_hot", [2, 3])]
)
def test_every_point_is_what_an_evaluation_of_it_alone_says(arms, num_arms):
    config, agent = untrained(arms=arms)
    grid = evaluate_grid(config, agent, {"horizon": [4, 9], "num_arms": num_arms}, baselines=NAMES)
    assert dict(grid.sizes) | {"horizon": 2, "num_arms": 2, "agent": 2} == dict(grid.sizes)
    assert (grid.attrs["trained_horizon"], grid.attrs["trained_num_arms"]) == (6, 3)
    for horizon in (4, 9):
        for count in num_arms:
            found = grid.sel(horizon=horizon, num_arms=count)
            expected = alone(config, agent, horizon, count, 3 if arms == "one_hot" else count).regret.mean("scenario")
            np.testing.assert_allclose(found.regret.dropna("round"), expected.sel(agent="rmft"), rtol=1e-4)
            last = expected.isel(round=-1)
            for name in NAMES:
                value = found.baseline_final_regret.sel(agent=name)
                np.testing.assert_allclose(value, last.sel(agent=name), rtol=1e-4)


@pytest.mark.slow
def test_other_environments_keep_the_arms_and_the_feedback():
    config, agent = untrained()
    told = []
    grid = evaluate_grid(
        config,
        agent,
        {"environment": ["bernoulli", "gaussian", "abrupt"], "horizon": [8]},
        watch=lambda label, regret: told.append((label, regret)),
    )
    assert grid.environment.values.tolist() == ["bernoulli", "gaussian", "abrupt"]
    assert grid.attrs["regret"] == "pseudo or dynamic"
    assert np.isfinite(grid.final_regret).all()
    assert [regret for _, regret in told] == pytest.approx(grid.final_regret.values.ravel().tolist())
    uniform = grid.baseline_final_regret.sel(agent="uniform")
    assert (grid.final_regret < 2 * uniform).all()


@pytest.mark.parametrize(
    ("policy", "axes", "message"),
    [
        ({}, {"num_arms": [2, 5]}, "got num_arms=5, need at most the 3 for which the policy was made"),
        ({}, {"step_size": [0.1]}, "got step_size as an axis of an evaluation"),
        ({}, {"environment": ["nowhere"]}, "nowhere"),
        ({}, {"feedback": ["bandit", "full"]}, "under 'full' feedback"),
        ({"position": "learned"}, {"horizon": [6, 7]}, "need horizon <= 6"),
        ({}, {"horizon": [0]}, "got horizon=0"),
        ({}, {"horizon": [4, 4]}, "4"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_is(policy, axes, message):
    config, agent = untrained(**policy)
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        evaluate_grid(config, agent, axes, baselines=NAMES)


def test_the_command_leaves_a_table_a_dataset_and_a_figure(tmp_path, capsys, monkeypatch):
    config, agent = untrained(arms="token")
    policy = TrainedPolicy(agent, config, "tiny", {"iteration": 3})
    monkeypatch.setattr("rmft_jax.sweeps.store.load_run", lambda *_: policy)
    (tmp_path / "run").mkdir()
    from rmft_jax.running.storage import RunDirectory

    run = RunDirectory.create(tmp_path / "run", config, "tiny", overwrite=False)
    words = ["evaluate", str(run.path), "--grid", "horizon=4,9", "--grid", "num_arms=2,6"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    rows = out[out.index("horizon agent") :].splitlines()[1:]
    named = [line.split()[: 2 if line[0].isdigit() else 1] for line in rows if line.count("[") == 2]
    assert named[0][0] == "4"
    assert {"ucb1", "thompson"} <= {words[-1] for words in named}
    assert "9" in {words[0] for words in named}
    with xr.open_dataset(run.path / "evaluations" / "horizon=4+9,num_arms=2+6.nc") as grid:
        assert grid.sizes["num_arms"] == 2
    assert (run.path / "figures" / "horizon=4+9,num_arms=2+6.pdf").is_file()
    for wrong, message in (
        (["--grid", "horizon"], "got --grid horizon, need NAME=VALUE,VALUE"),
        (["--grid", "horizon=4", "--grid", "horizon=9"], "got --grid horizon twice"),
        (["--grid", "horizon=4", "--horizon", "9"], "got --grid horizon and --horizon"),
        (["--grid", "horizon=many"], "many"),
    ):
        assert cli.main(["evaluate", str(run.path), *wrong]) == 2
        assert message in capsys.readouterr().err
