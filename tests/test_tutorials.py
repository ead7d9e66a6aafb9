"""The files of docs/tutorials do what they say, as a user would have them."""

import importlib.util
import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from evaluations import made_evaluation
from rmft_jax import (
    Problem,
    RMFTConfig,
    get_preset,
    load_policy,
    load_sweep,
    make_agents,
)
from rmft_jax.agents.statistics import ArmStatistics
from rmft_jax.config import ConfigError
from rmft_jax.method.evaluation import play_scenarios
from rmft_jax.method.judging import Judged, KeptBatch
from rmft_jax.method.selection import LowestRegret
from rmft_jax.plotting import plot_kind
from rmft_jax.problems import Context
from rmft_jax.running import checkpoints
from tutorials import OVERRIDE, PLAY, TRAINING, TUTORIALS, as_before, imported, laid_out, quick, rmft, small, world

FILES = sorted(path.name for path in TUTORIALS.glob("*.py"))


def commands_of(name: str) -> list[list[str]]:
    """The commands in the docstring of a tutorial, without `rmft`."""
    text = (TUTORIALS / name).read_text(encoding="utf-8").split('"""')[1].replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("    rmft ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """Where the commands run: with a copy of the tutorials, whose sweep is tiny, and without anything else."""
    path = laid_out(tmp_path_factory.mktemp("place"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


@pytest.mark.parametrize("name", FILES)
def test_a_tutorial_is_short_and_says_what_to_try(name):
    assert len((TUTORIALS / name).read_text().splitlines()) < 60
    commands = commands_of(name)
    assert commands
    assert all(f"docs/tutorials/{name}" in words for words in commands if "--import" in words)


def stopped_after_the_first_chunk(patch: pytest.MonkeyPatch) -> None:
    save = checkpoints.Checkpoints.save

    def save_and_stop(self: Any, state: Any, history: Any) -> None:
        save(self, state, history)
        if history.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr(checkpoints.Checkpoints, "save", save_and_stop)


@pytest.fixture(scope="module")
def all_own(place) -> Path:
    """A run in which every part is a user's: imported in the first command alone, stopped, and resumed."""
    words = [word for name in FILES for word in ("--import", f"docs/tutorials/{name}")]
    chosen = ["--environment", "markov", "--switch-rate", "0.05", "--policy", "gru", "--hidden-size", "6"]
    chosen += ["--selection", "soft", "--softness", "0.5", "--objective", "smoothed", "--label-smoothing", "0.05"]
    with quick() as drawn:
        with pytest.MonkeyPatch.context() as patch:
            stopped_after_the_first_chunk(patch)
            assert rmft("train", "quickstart", *words, *chosen, *TRAINING, "--out", "runs/own") == 128 + signal.SIGINT
        assert not (place / "runs/own/summary.json").exists()
        assert rmft("train", "--out", "runs/own", "--resume") == 0
    assert "spread" in drawn
    return place / "runs" / "own"


def test_a_run_of_ones_own_parts_is_complete_and_remembers_its_imports(all_own):
    saved = json.loads((all_own / "config.json").read_text())
    assert [Path(path).name for path in saved["import"]] == FILES
    expected = {"environment": "markov", "policy": "gru", "selection": "soft", "objective": "smoothed"}
    assert {name: saved["config"][name] for name in expected} == expected
    assert (saved["config"]["switch_rate"], saved["config"]["hidden_size"]) == (0.05, 6)
    metrics = xr.load_dataset(all_own / "metrics.nc", engine="h5netcdf")
    assert list(metrics["iteration"].values) == [1, 2], "the one before the stop, and the one after it"
    evaluation = xr.load_dataset(all_own / "evaluation.nc", engine="h5netcdf")
    assert set(evaluation["agent"].values) == {"rmft", "boltzmann", "rexp3"}
    assert np.isfinite(evaluation["regret"]).all()


def test_it_is_evaluated_and_drawn_by_its_directory_alone(all_own, capsys):
    before = xr.load_dataset(all_own / "evaluation.nc", engine="h5netcdf")
    with quick():
        assert rmft("evaluate", all_own) == 0
    xr.testing.assert_equal(xr.load_dataset(all_own / "evaluation.nc", engine="h5netcdf"), before)
    assert "boltzmann" in capsys.readouterr().out
    figure = all_own.parent / "spread"
    assert (
        rmft("plot", all_own, "--import", TUTORIALS / "own_figure.py", "--kind", "spread", "--out", f"{figure}.pdf")
        == 0
    )
    assert {path.suffix for path in figure.parent.glob("spread.*")} == {".pdf", ".png", ".csv"}


def test_the_classical_agents_play_in_it(place, capsys):
    (bench,) = [words for words in commands_of("own_environment.py") if words[0] == "bench-agents"]
    assert rmft(*small(bench), "--json", "runs/markov.json") == 0
    assert "markov, K=5, T=5, 16 scenarios" in capsys.readouterr().out
    written = json.loads((place / "runs/markov.json").read_text())
    assert written["settings"]["switch_rate"] == 0.05
    assert written["regret"] == "dynamic"


def test_ones_own_agent_plays_beside_them_tuned(place, capsys):
    (bench,) = [words for words in commands_of("own_agent.py") if words[0] == "bench-agents"]
    bench.remove("ucb1")  # For time alone.
    assert rmft(*small(bench), "--json", "runs/boltzmann.json") == 0
    assert "tuned: boltzmann" in capsys.readouterr().out
    assert set(json.loads((place / "runs/boltzmann.json").read_text())["agents"]) == {"boltzmann", "thompson"}
    assert rmft("bench-agents", "bernoulli", *PLAY, "--agents", "boltzmann") == 2, "without the import there is none"


@pytest.fixture(scope="module")
def markov_sweep(place) -> xr.Dataset:
    (words,) = [words for words in commands_of("own_environment.py") if words[0] == "sweep"]
    assert rmft(*words) == 0
    return load_sweep_of(place / "runs" / "markov-grid")


def load_sweep_of(path: Path) -> xr.Dataset:
    with as_before():
        return load_sweep(path)


def test_a_sweep_over_ones_own_setting(markov_sweep):
    assert dict(markov_sweep["final_regret"].sizes) == {"switch_rate": 3, "num_arms": 2, "seed": 2}
    assert np.isfinite(markov_sweep["final_regret"]).all()
    assert (markov_sweep["status"] == "finished").all()
    best_possible = markov_sweep["baseline_final_regret"].min("agent")
    assert (best_possible > 0).all()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.slow
def test_a_sweep_over_ones_own_setting_on_ray(place, markov_sweep):
    """Its workers import the file by themselves, and compute the same."""
    spec = "docs/tutorials/own_environment.toml"
    assert rmft("sweep", spec, "--out", "runs/ray", "--executor", "ray", "--cpus-per-task", "0.5") == 0
    on_ray = load_sweep_of(place / "runs" / "ray")
    xr.testing.assert_equal(on_ray.drop_vars("wall_seconds"), markov_sweep.drop_vars("wall_seconds"))


CHOICES = {"policy": ["transformer", "gru"], "selection": ["regret", "soft"], "objective": ["imitation", "smoothed"]}


def swept(place: Path, name: str, tables: dict[str, dict[str, list[Any]]]) -> xr.Dataset:
    """A sweep over choices and settings of one's own, which keeps its policies."""
    own = ["own_policy.py", "own_selection.py", "own_objective.py", "own_agent.py"]
    lines = ['preset = "quickstart"', f"import = {json.dumps(own)}", 'baselines = ["boltzmann"]']
    for table, axes in tables.items():
        lines += [f"[{table}]", *(f"{axis} = {json.dumps(values)}" for axis, values in axes.items())]
    spec = place / "docs" / "tutorials" / f"{name}.toml"
    spec.write_text("\n".join([*lines, "[override]", OVERRIDE.replace("width = 8\nnum_layers = 1\n", "")]))
    assert rmft("sweep", spec, "--out", f"runs/{name}", "--keep-weights") == 0
    dataset = load_sweep_of(place / "runs" / name)
    assert np.isfinite(dataset["final_regret"]).all()
    assert np.isfinite(dataset["baseline_final_regret"].sel(agent="boltzmann")).all()
    return dataset


def test_ones_own_network_rule_and_objective_in_a_sweep(place):
    """All cells are one program: they differ in a number of the rule's."""
    chosen = {name: values[1:] for name, values in CHOICES.items()}
    dataset = swept(place, "own-sweep", {"zip": chosen, "grid": {"softness": [0.0, 50.0]}})
    assert list(dataset["softness"].values) == [0.0, 50.0]
    first, second = (dataset["selected_regret"].sel(softness=value) for value in (0.0, 50.0))
    assert float(first.mean()) < float(second.mean()), "kept are the lowest regrets, or any"
    with as_before():
        kept = load_policy(place / "runs" / "own-sweep", {"softness": 50.0})
        assert (kept.config.rmft.policy.name, kept.config.rmft.objective.name) == ("gru", "smoothed")
        assert type(kept.agent).__name__ == "RecurrentAgent"


@pytest.mark.slow
def test_they_are_axes_beside_those_of_the_package(place):
    dataset = swept(place, "choices", {"zip": CHOICES})
    assert {name: list(dataset[name].values) for name in CHOICES} == CHOICES


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_command_of_a_tutorial(name, place):
    """Those of a figure draw a run that is there already."""
    with quick():
        if name == "own_figure.py" and not Path("runs/quickstart").exists():
            assert rmft(*small(["train", "quickstart", "--out", "runs/quickstart"])) == 0
        for words in commands_of(name):
            again = ["--resume"] if words[0] == "sweep" else ["--overwrite"] if "--from" in words else []
            assert rmft(*small(words), *again) == 0, words


def test_the_chain_has_two_states_and_switches_at_its_rate():
    assert (world(0.0) == world(0.0)[:, :1]).all()
    always = world(1.0)
    assert (always[:, 2:] == always[:, :-2]).all()
    assert (always[:, 1:] != always[:, :-1]).all()
    means = world(0.3)
    switches = (means[:, 1:] != means[:, :-1]).all(axis=2)
    assert abs(switches.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / switches.size)
    assert max(len(np.unique(scenario, axis=0)) for scenario in means) == 2
    assert abs(means.mean() - 0.5) < 0.02


def test_the_first_arms_and_rounds_do_not_depend_on_how_many_there_are():
    assert (world(0.3, num_arms=7, horizon=60)[:, :40, :5] == world(0.3)).all()


def test_a_rate_that_is_none_is_refused():
    with imported("own_environment.py"), pytest.raises(ConfigError, match=r"got switch_rate=1.5, need .* in \[0, 1\]"):
        get_preset("quickstart").replace(environment="markov", switch_rate=1.5).validate()


def test_boltzmann_exploration_draws_from_the_softmax_of_the_means():
    pulls, means, temperature = np.asarray([4.0, 2.0, 5.0, 3.0]), np.asarray([0.5, 0.2, 0.4, 0.9]), 0.3
    mask = jnp.asarray([True, True, True, False])
    context = Context(jnp.asarray(14), jnp.asarray(50), mask, jnp.zeros(4))
    state, count = ArmStatistics(jnp.asarray(pulls), jnp.asarray(pulls * means)), 20_000
    with imported("own_agent.py") as module:
        agent: Any = module.Boltzmann(temperature=temperature)
        act = jax.vmap(lambda key: agent.act(key, state, context)[0].action)
        actions = np.asarray(act(jax.random.split(jax.random.key(1), count)))
        untried = ArmStatistics(state.pulls.at[1].set(0.0), state.sums.at[1].set(0.0))
        assert agent.act(jax.random.key(0), untried, context)[0].action == 1
    expected = np.where(mask, np.exp(means / temperature), 0.0)
    expected /= expected.sum()
    share = np.bincount(actions, minlength=4) / count
    assert (np.abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / count)).all()


@pytest.mark.parametrize("feedback", ["bandit", "full"])
def test_a_gru_puts_out_in_a_given_past_what_it_played(feedback):
    with imported("own_policy.py"):
        config = RMFTConfig().replace(policy="gru", hidden_size=5, num_arms=3, horizon=7, feedback=feedback)
        agent: Any = config.agent(config.init_params(jax.random.key(2)))
        problem = config.problem()
        played = jax.jit(lambda: play_scenarios(agent, problem, jax.random.key(3), 16))()
        outputs = jax.vmap(agent.outputs)(played)
        np.testing.assert_allclose(jax.nn.softmax(outputs), played.probabilities, rtol=1e-4, atol=1e-6)
        assert np.ptp(outputs, axis=0).max() > 0.01, "what it puts out depends on what it saw"
        with pytest.raises(ConfigError, match="got hidden_size=0"):
            config.replace(hidden_size=0).validate()


def judged(final: np.ndarray) -> Judged:
    nothing: Any = None
    return Judged(nothing, jnp.asarray(final)[..., None], jnp.asarray(final), -jnp.asarray(final), jnp.asarray(final))


def test_soft_selection_lies_between_the_lowest_regrets_and_chance():
    final = np.tile(np.asarray([0.0, 0.5, 1.0, 3.0], np.float32), (4000, 1))
    key, rolled = jax.random.key(4), judged(np.random.default_rng(0).random((50, 8), np.float32))
    with imported("own_selection.py") as module:
        hard, lowest = module.Soft(k=3, softness=0.0), LowestRegret(k=3)
        np.testing.assert_array_equal(hard.keep(key, rolled), lowest.keep(key, rolled))
        kept = np.asarray(module.Soft(k=3, softness=0.5).keep(key, rolled))
        assert all(len(set(row)) == 3 for row in kept), "without replacement"
        for softness in (0.5, 2.0):
            first = np.asarray(module.Soft(k=1, softness=softness).keep(key, judged(final)))[:, 0]
            share = np.bincount(first, minlength=4) / len(first)
            expected = np.exp(-final[0] / softness) / np.exp(-final[0] / softness).sum()
            assert (np.abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / len(first))).all()


def test_label_smoothing_is_cross_entropy_to_a_mixture():
    rng, mask, weight = np.random.default_rng(1), np.asarray([True, True, True, False]), 0.2
    outputs = np.where(mask, rng.normal(size=(6, 4)), -np.inf).astype(np.float32)
    with imported("own_environment.py", "own_objective.py"):
        config = RMFTConfig().replace(objective="smoothed", label_smoothing=weight, num_arms=4, horizon=6)
        problem = Problem.checked(config.environment, 6, 3)
        one = jax.tree.map(
            lambda leaf: leaf[0], play_scenarios(make_agents(problem)["uniform"], problem, jax.random.key(5), 1)
        )
        kept = KeptBatch(one, jnp.ones(6))

        def loss(outputs: Any) -> Any:
            return config.objective.losses(outputs, kept, config)

        target = (1 - weight) * np.eye(4)[np.asarray(one.actions)] + weight * mask / 3
        log_probs = np.asarray(jax.nn.log_softmax(outputs))
        expected = -np.sum(target * np.where(mask, log_probs, 0.0), axis=1)
        np.testing.assert_allclose(loss(jnp.asarray(outputs)), expected, rtol=1e-5)
        assert np.isfinite(jax.grad(lambda x: loss(x).sum())(jnp.asarray(outputs))).all()
        with pytest.raises(ConfigError, match="got objective='smoothed' with a policy that emits scores"):
            config.replace(feedback="full", entropy_weight=0.0).validate()


def test_the_figure_shows_every_scenario_of_every_agent():
    evaluation = made_evaluation()
    with imported("own_figure.py"):
        figure: Any = plot_kind("spread", evaluation)
        lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
        assert set(lines) == {"RMFT Transformer", "Thompson", "UCB1", "greedy", "ε-greedy", "uniform"}
        final = np.sort(evaluation["regret"].sel(agent="ucb1").isel(round=-1))
        np.testing.assert_allclose(lines["UCB1"].get_xdata(), final, rtol=1e-6)
        rows = [row for row in figure.rows if row["agent"] == "ucb1"]
        assert (len(rows), rows[-1]["share"]) == (len(final), 1.0)
        with pytest.raises(ConfigError, match="without scenario"):
            plot_kind("spread", evaluation.drop_dims("scenario"))
