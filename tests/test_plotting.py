import numpy as np
import pytest
import xarray as xr
from PIL import Image

from rmft_jax.plotting import plot_regret, plot_run, plot_training

RNG = np.random.default_rng(0)
AGENTS = ["rmft", "ucb1", "thompson", "greedy", "epsilon_greedy", "uniform", "best_arm"]


@pytest.fixture(scope="module")
def evaluation():
    steps = RNG.random((7, 50, 20)) * np.asarray([0.2, 0.5, 0.3, 0.25, 0.28, 1.0, 0.0])[:, None, None]
    return xr.Dataset(
        {"regret": (("agent", "scenario", "round"), np.cumsum(steps, -1))},
        coords={"agent": AGENTS, "round": np.arange(1, 21)},
    )


@pytest.fixture(scope="module")
def metrics():
    return xr.Dataset(
        {
            "regret": (("iteration",), np.linspace(7, 3, 40)),
            "selected_regret": (("iteration",), np.linspace(6, 2, 40)),
            "validation_regret": (("validation_iteration",), np.linspace(7, 3, 5)),
            "validation_regret_sem": (("validation_iteration",), np.full(5, 0.1)),
        },
        coords={"iteration": np.arange(1, 41), "validation_iteration": np.arange(0, 41, 10)},
    )


def test_the_regret_figure_shows_the_means_of_the_dataset(evaluation):
    axes = plot_regret(evaluation).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"RMFT Transformer", "Thompson", "UCB1", "greedy", "ε-greedy", "uniform"}
    np.testing.assert_allclose(
        np.asarray(lines["UCB1"].get_ydata()), evaluation["regret"].sel(agent="ucb1").mean("scenario")
    )
    assert len({line.get_color() for line in lines.values()}) == 6
    assert len({str(line.get_linestyle()) for line in lines.values()}) >= 4
    assert "reward units" in axes.get_ylabel()


def test_the_training_figure_starts_before_training(evaluation, metrics):
    axes = plot_training(metrics, evaluation).axes[0]
    held_out = next(line for line in axes.get_lines() if line.get_label() == "held-out scenarios")
    assert np.asarray(held_out.get_xdata())[0] == 0
    np.testing.assert_allclose(np.asarray(held_out.get_ydata()), metrics["validation_regret"])
    assert {"Thompson", "UCB1"} <= {line.get_label() for line in axes.get_lines()}


def test_figures_are_written_at_column_width_and_nothing_is_cut_off(evaluation, metrics, tmp_path):
    written = plot_run(metrics, evaluation, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"regret.png", "regret.pdf", "training.png", "training.pdf"}
    for path in written:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[1] == round(3.4 * 300)
        edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edges == 255).all(), f"{path.name} is cut off at its edge"
    assert b"/Type3" not in (tmp_path / "regret.pdf").read_bytes()
