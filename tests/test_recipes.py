"""The recipes for parts of one's own work as they stand, and CONTRIBUTING.md points to what is there."""

import re

import jax
import numpy as np

from evaluations import made_evaluation
from rmft_jax import Problem, Stationary, evaluate, get_preset, import_code, make_agents, save_figure
from rmft_jax.agents.register import AGENTS
from rmft_jax.config.choices import ChoiceRegister
from rmft_jax.method.contract import require_contract
from rmft_jax.plotting import FIGURES, plot_kind
from tutorials import ROOT, as_before

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "how-to" / "own-parts.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def own_names() -> dict[str, list[str]]:
    """What users registered, by kind."""
    registers = {**ChoiceRegister.kinds, "agent": AGENTS, "figure": FIGURES}
    return {kind: register.of_users() for kind, register in registers.items() if register.of_users()}


def test_every_recipe_works(tmp_path):
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
    assert kinds == ["environment", "environment", "agent", "policy", "objective", "selection", "figure"]


def test_contributing_points_to_what_is_there():
    for path in re.findall(r"`((?:rmft_jax|tests|experiments|docs)/[\w./]+)`", CONTRIBUTING + PAGE):
        assert (ROOT / path).exists(), path
    rooms = re.findall(r"^\| `(\w+)` \|", CONTRIBUTING, re.MULTILINE)
    assert set(rooms) == {path.parent.name for path in (ROOT / "rmft_jax").glob("*/__init__.py")}
    targets = re.findall(r"^make ([\w-]+)", CONTRIBUTING, re.MULTILINE)
    assert targets
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
