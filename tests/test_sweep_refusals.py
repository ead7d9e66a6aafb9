"""What is no sweep is refused in one line."""

import hypothesis
import hypothesis.strategies as st
import pytest

from rmft_jax import Sweep
from rmft_jax.config import ConfigError

BAD_TOML = {
    "[grid]\nhorizonn = [25]": "got 'horizonn' in [grid], need the name of a setting; try horizon",
    "[override]\nxyzzy = 25": "got 'xyzzy' in [override], need the name of a setting; try `rmft train --help`",
    "[[cell]]\nsede = 25": "got 'sede' in [[cell]], need the name of a setting; try seed",
    "[grid]\nseed = [0]\nbaselines = []": "got 'baselines' in [grid], need the name of a setting; try "
    "baselines = ... above the first table",
    "[grids]\nseed = [0]": "got 'grids' in the sweep, need one of preset, grid, zip, cell, override, baselines, "
    "import; try grid",
    "presett = 'mab'": "got 'presett' in the sweep, need one of",
    "cells = []": "got 'cells' in the sweep",
    "grid = 3": "got [grid] = 3, need a table of settings",
    "cell = 3": "got cell=3, need a list of tables; try [[cell]]",
    "[cell]\nseed = 1": "got cell={'seed': 1}, need a list of tables",
    "cell = [3]": "got [[cell]] = 3, need a table of settings",
    "[[cell]]": "got a [[cell]] without a field, need at least one",
    "preset = 3": "got preset=3, need a name; try preset='mab'",
    "preset = 'nonsense'": "got preset 'nonsense', need one of quickstart",
    "baselines = 'ucb1'": "got baselines='ucb1', need a list of names",
    "baselines = [1]": "got baselines=[1], need a list of names",
    "baselines = ['ucb1', 'ucb1']": "need each once; try baselines = ['ucb1']",
    "[grid]\nhorizon = []": "got horizon=[] in [grid], need at least one value; try horizon = [50]",
    "[zip]\nhorizon = []": "got horizon=[] in [zip], need at least one value",
    "[grid]\nhorizon = 25": "got horizon=25 in [grid], need a list of values; try horizon = [25]",
    "[grid]\nbranching = 'none'": "got branching='none' in [grid], need a list of values; try branching = ['none']",
    "[grid]\nseed = [1, 2, 1]": "got seed=1 twice in [grid], need different values",
    "[grid]\nstep_size = [1, 1.0]": "got step_size=1.0 twice in [grid]",
    "[zip]\nseed = [1, 2]\nhorizon = [25]": "got seed of length 2 and horizon of length 1 in [zip], need the",
    "[grid]\nseed = [1]\n[override]\nseed = 1": "got seed in both [grid] and [override], need it in one",
    "[zip]\nseed = [1]\n[override]\nseed = 1": "got seed in both [zip] and [override]",
    "[grid]\nseed = [1]\n[zip]\nseed = [1]": "got seed in both [grid] and [zip]",
    "[zip]\nseed = [1, 1]": "got the same cell twice (seed=1), need different ones",
    "[grid]\nseed = [1]\n[[cell]]\nseed = 1": "got the same cell twice (seed=1)",
    "[grid]\nenvironment = ['abrupt', 'abrupt_mirrored']\n[override]\nchange = 'fresh'": "got the same cell twice "
    "(environment=abrupt and environment=abrupt_mirrored)",
    "[grid]\nhorizon = [25.0]": "got horizon=25.0 in [grid], need a whole number; try horizon = 50",
    "[grid]\nhorizon = [true]": "got horizon=True in [grid], need a whole number",
    "[grid]\nhorizon = ['25']": "got horizon='25' in [grid], need a whole number",
    "[grid]\nhorizon = [99999999999999999999]": "need a whole number",
    "[override]\nhorizon = 1979-05-27": "need a whole number",
    "[override]\nstep_size = '0.1'": "got step_size='0.1' in [override], need a finite number; try step_size = 0.002",
    "[override]\nstep_size = false": "got step_size=False in [override], need a finite number",
    "[override]\nstep_size = nan": "got step_size=nan in [override], need a finite number",
    "[override]\nradius = inf": "got radius=inf in [override], need a finite number",
    "[override]\nshared_reward_noise = 1": "got shared_reward_noise=1 in [override], need true or false",
    "[override]\nbranching = 1": "got branching=1 in [override], need one of none, uniform; try branching = 'none'",
    "[override]\nhorizon = [25]": "got horizon=[25] in [override], need a whole number",
    "[grid]\nhorizon = [[25]]": "got horizon=[25] in [grid], need a whole number",
    "[grid.environment]\nnum_arms = [2]": "got environment={'num_arms': [2]} in [grid], need a list of values",
    "[grid]\nbranching = ['twice']": "got branching='twice' in [grid], need one of none, uniform; try branching = ",
    "[grid]\nhorizon = [25, 0]": "horizon=0: got horizon=0, need a whole number of at least 1",
    "[grid]\nnum_iterations = [0]": "num_iterations=0: got num_iterations=0, need a whole number of at least 1",
    "[grid]\nk = [2, 9]\nseed = [0]": "k=9,seed=0: got k=9 with num_rollouts=8, need k of at most num_rollouts",
    "[grid]\nseed = [0]\n[override]\nk = 9": "seed=0: got k=9 with num_rollouts=8",
    "[grid]\nenvironment = ['desert']": "environment=desert: got environment 'desert', need one of ",
    "[grid]\npolicy = ['oracle']": "policy=oracle: got policy 'oracle', need one of single_layer, transformer, text",
    "[grid]\nwalk_step = [0.1]": "walk_step=0.1: got walk_step with environment 'stationary', need random_walk, "
    "which has it; try environment='random_walk'",
    "import = 'worlds.py'": "got import='worlds.py', need a list of files and modules; try import = [",
    "import = [1]": "got import=[1], need a list of files and modules",
    "import = ['absent.py']": "/absent.py'), need a Python file that exists; try another path",
    "import = ['no.such.module']": "got import_code('no.such.module') (ModuleNotFoundError",
    "[grid]\nseed = [0]\nimport = ['worlds.py']": "got 'import' in [grid], need the name of a setting; try "
    "import = ... above the first table",
    "[grid]\nselection = ['regrets']": "selection=regrets: got selection 'regrets', need one of regret, advantage, "
    "pooled, reward, random; try 'regret', or import_code of the file that has it",
    "[override]\nobjective = 1": "got objective=1 in [override], need a name; try objective = 'imitation'",
    "[[cell]]\nenvironment = 'abrupt'\nnum_changes = 2\n[[cell]]\nseed = 1": "seed=1: got no num_changes, need a "
    "varied field that every cell has",
    "[grid]\nseed = [0\n": "need TOML; try",
    "[grid]\nseed = [0]\nseed = [1]": "need TOML; try",
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_TOML.items(), ids=range(len(BAD_TOML)))
def test_bad_specs_are_refused_in_one_clear_line(tmp_path, text, message):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        Sweep.from_toml(path).expand()
    assert message in str(error.value)
    assert "; try " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(
        ConfigError, match=r"absent.toml \(No such file or directory\), need a sweep in a TOML file; try"
    ):
        Sweep.from_toml(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"\(Is a directory\), need a sweep"):
        Sweep.from_toml(tmp_path)
    (tmp_path / "image.toml").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ConfigError, match="which is no text"):
        Sweep.from_toml(tmp_path / "image.toml")


def test_a_sweep_too_large_to_list_is_refused():
    with pytest.raises(ConfigError, match="got 1000000 cells, need at most 100000; try shorter axes"):
        Sweep(grid={"seed": range(1000), "horizon": range(1, 1001)}).expand()


_NAMES = st.sampled_from(["seed", "horizon", "grid", "zip", "cell"])


@hypothesis.given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner),
    )
)
@hypothesis.settings(max_examples=50)
def test_whatever_is_given_is_a_sweep_or_refused_in_one_line(values):
    for content in (values, {"grid": values}, {"cell": [values]}, {"zip": {"step_size": values}}, {"override": values}):
        message = ""
        try:
            Sweep.from_dict(content).expand()
        except ConfigError as error:
            message = str(error)
        assert "\n" not in message
