"""The recipes of CONTRIBUTING.md, and the one of the README, work as they stand."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evaluations import made_evaluation
from rmft_jax import Problem, Stationary, evaluate, get_environment, get_preset, import_code, make_agents, save_figure
from rmft_jax.agents.register import AGENTS
from rmft_jax.config.choices import ChoiceRegister
from rmft_jax.method.contract import require_contract
from rmft_jax.plotting import FIGURES, plot_kind
from tutorials import ROOT, as_before, world

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_environment_of_the_readme_is_that_of_the_tutorial():
    (code,) = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    expected = world(0.3, count=4)
    with as_before():
        exec(compile(code, "README.md", "exec"), names := {"__name__": "readme"})
        markov: Any = names["Markov"]
        keys, masks = jax.random.split(jax.random.key(0), 4), (jnp.ones(5, bool), jnp.ones(40, bool))
        found = jax.vmap(lambda key: markov(switch_rate=0.3).reset(key, *masks))(keys)
        np.testing.assert_array_equal(found, expected)
        assert get_environment("markov") == markov(switch_rate=0.1)


def own_names() -> dict[str, list[str]]:
    """What users registered, by kind."""
    registers = {**ChoiceRegister.kinds, "agent": AGENTS, "figure": FIGURES}
    return {kind: register.of_users() for kind, register in registers.items() if register.of_users()}


def test_every_recipe_of_contributing_works(tmp_path):
    """Each by itself, as a file of a user: it registers one thing, which fits with all else."""
    kinds = []
    for number, recipe in enumerate(RECIPES):
        (tmp_path / f"recipe_{number}.py").write_text(recipe, encoding="utf-8")
        with as_before():
            import_code(tmp_path / f"recipe_{number}.py")
            ((kind, (name,)),) = own_names().items()
            kinds.append(kind)
            problem = Problem(Stationary(num_arms=3), 6)
            if kind == "agent":
                agents = make_agents(problem, [name])
                assert np.isfinite(evaluate(agents, problem, num_scenarios=4, key=jax.random.key(0))["regret"]).all()
            elif kind == "figure":
                assert save_figure(plot_kind(name, made_evaluation()), tmp_path / name)[0].stat().st_size > 0
            else:
                config = get_preset("quickstart").rmft.replace(**{kind: name})
                config.validate()
                require_contract(config)
    assert kinds == ["environment", "agent", "policy", "objective", "selection", "figure"]


def test_contributing_points_to_what_is_there():
    for path in re.findall(r"\]\((?!http|#)(.*?)\)", PAGE) + re.findall(
        r"`((?:rmft_jax|tests|experiments)/[\w./]+)`", PAGE
    ):
        assert (ROOT / path).exists(), path
    rooms = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(rooms) == {path.parent.name for path in (ROOT / "rmft_jax").glob("*/__init__.py")}
    targets = re.findall(r"^make ([\w-]+)", PAGE, re.MULTILINE)
    assert targets
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
