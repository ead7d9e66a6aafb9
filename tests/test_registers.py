"""The registers: which classes of users they take, and which they refuse."""

import dataclasses
import json
import sys
from typing import Any, ClassVar, Literal

import pytest

from own import registers_restored
from rmft_jax.agents import Policy, Transformer
from rmft_jax.agents.register import AGENTS
from rmft_jax.cli.bench import BenchArguments
from rmft_jax.cli.train import TrainArguments
from rmft_jax.config import ConfigError
from rmft_jax.config.choices import RESERVED, ChoiceRegister
from rmft_jax.method import registers
from rmft_jax.method.objectives import Imitation, Objective
from rmft_jax.method.selection import LowestRegret, Selection
from rmft_jax.method.settings import RunConfig, from_dict
from rmft_jax.problems import Abrupt, Environment, Stationary

RUN = RunConfig()


@pytest.fixture(autouse=True)
def _restored():
    with registers_restored():
        yield


def never(*_: Any) -> Any:
    raise AssertionError("nothing of it runs")


METHODS: dict[str, Any] = dict.fromkeys(("init_params", "make_agent", "keep", "losses"), never)


def made(base: type, annotations: dict[str, Any] | None = None, **body: Any) -> Any:
    """A class as a user writes it, in the module of this name."""
    return type("Mine", (base,), {"__annotations__": annotations or {}, "__module__": "users", **body})


# As Python says it.
FOLLOWED = "default argument 'gap'" if sys.version_info >= (3, 13) else "default argument"
UNFIT: dict[str, tuple[str, str, Any, str]] = {
    "abstract": ("policy", "mine", lambda: made(Policy), "without init_params, make_agent, need every method of its"),
    "abstract selection": ("selection", "mine", lambda: made(Selection), "without keep, need every method of its base"),
    "abstract objective": ("objective", "mine", lambda: made(Objective), "without losses, need every method of its"),
    "abstract environment": (
        "environment",
        "mine",
        lambda: made(Environment),
        "got environment 'mine' (Mine) without mean_rewards, reset, step, need every method of its base; try def mean",
    ),
    "no default": ("policy", "mine", lambda: made(Policy, {"rate": float}, **METHODS), "got rate in policy 'mine'"),
    "no default after others": (
        "environment",
        "mine",
        lambda: made(Stationary, {"rate": float}),
        f"got Mine (non-default argument 'rate' follows {FOLLOWED}), need a plain default for every setting",
    ),
    "list": ("environment", "mine", lambda: made(Stationary, {"rates": list}, rates=[]), "need a plain default for ev"),
    "tuple": (
        "environment",
        "mine",
        lambda: made(Stationary, {"rates": tuple[int, int]}, rates=(1, 2)),
        "got rates: tuple[int, int] in environment 'mine' (Mine), need bool, int, float, str or a Literal of names",
    ),
    "no type": ("environment", "mine", lambda: made(Stationary, num_arms=3), "got num_arms of Mine without a type"),
    "wrong default": (
        "environment",
        "mine",
        lambda: made(Stationary, {"rate": float}, rate="fast"),
        "got rate='fast' in environment 'mine' (Mine), need a finite number; try rate = 1.0",
    ),
    "no such name": (
        "environment",
        "mine",
        lambda: made(Stationary, {"tide": Literal["ebb", "flow"]}, tide="calm"),
        "got tide='calm' in environment 'mine' (Mine), need one of ebb, flow; try tide = 'ebb'",
    ),
    "of the algorithm": (
        "environment",
        "mine",
        lambda: made(Stationary, {"horizon": int}, horizon=3),
        "got horizon in environment 'mine' (Mine), which the algorithm has, need a name that no other kind of setting",
    ),
    "of the run": ("policy", "mine", lambda: made(Policy, {"seed": int}, seed=3, **METHODS), "try mine_seed"),
    "of a kind": (
        "environment",
        "mine",
        lambda: made(Stationary, {"policy": int}, policy=3),
        "which the algorithm has",
    ),
    "of another kind": (
        "environment",
        "mine",
        lambda: made(Stationary, {"step_size": float}, step_size=0.5),
        "got step_size in environment 'mine' (Mine), which update 'gradient' has, need a name that no other kind of",
    ),
    "of every estimate": (
        "environment",
        "mine",
        lambda: made(Stationary, {"high": float}, high=1.0),
        "got high in environment 'mine' (Mine), which every table of results has, need a name that no",
    ),
    "of every result": (
        "environment",
        "mine",
        lambda: made(Stationary, {"exponent": float}, exponent=1.0),
        "got exponent in environment 'mine' (Mine), which the dataset of every sweep has, need a name that no",
    ),
    "of a command": (
        "environment",
        "mine",
        lambda: made(Stationary, {"log": float}, log=0.5),
        "got log in environment 'mine' (Mine), which a command, as an option, has, need a name that no other kind of",
    ),
    "of numbers": (
        "environment",
        "mine",
        lambda: made(Stationary, {"side": Literal[1, 2]}, side=1),
        "got side: typing.Literal[1, 2] in environment 'mine' (Mine), need bool, int, float, str or a Literal of names",
    ),
    "of every choice": ("environment", "mine", lambda: made(Stationary, {"name": str}, name="x"), "which every choice"),
    "another type": (
        "environment",
        "mine",
        lambda: made(Stationary, {"num_changes": float}, num_changes=0.5),
        "got num_changes: float in environment 'mine' (Mine), need the type that it has in environment 'abrupt'; try",
    ),
    "taken": (
        "environment",
        "abrupt",
        lambda: made(Stationary),
        "got environment 'abrupt' from users.Mine, which rmft_jax.problems.abrupt.Abrupt has taken, need a name of its",
    ),
    "a name that is none": (
        "environment",
        "my world",
        lambda: made(Stationary),
        "need a name of small letters, digits",
    ),
    "no name": ("environment", 3, lambda: made(Stationary), "try @register_environment('my_name')"),  # type: ignore[dict-item]
    "another base": (
        "selection",
        "mine",
        lambda: made(Stationary),
        "got selection 'mine' (Mine), need a class that derives from Selection; try class Mine(Selection)",
    ),
    "no base": ("environment", "mine", lambda: made(object), "need a class that derives from Environment"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_class_that_cannot_be_a_choice_is_refused(case):
    kind, name, make, message = UNFIT[case]
    before = list(ChoiceRegister.kinds[kind])
    with pytest.raises(ConfigError) as error:
        getattr(registers, f"register_{kind}")(name)(make())
    assert message in str(error.value)
    assert "; try " in str(error.value)
    assert "\n" not in str(error.value)
    assert list(ChoiceRegister.kinds[kind]) == before, "nothing is registered by halves"


@pytest.mark.parametrize("kind", ["environment", "policy", "selection", "objective", "agent"])
def test_a_decorator_without_a_name_is_refused(kind):
    """Else it would register nothing and take the class's place."""
    with pytest.raises(ConfigError, match="need a name of small letters"):
        getattr(registers, f"register_{kind}")(made(object))


def test_a_users_class_is_named_like_any_other():
    @registers.register_environment("tide")
    class Tide(Stationary):
        """It comes and goes. Twice a day."""

        moon: Literal["full", "new"] = "new"
        height: float = 2

        bandit_regret: ClassVar[Any] = "dynamic"

    assert Tide.name == "tide"
    assert Environment.register["tide"].description == "It comes and goes. Twice a day"
    assert Environment.register.of_users() == ["tide"]
    config = RUN.replace(environment="tide", height=3, num_arms=2, gap=0.5)
    assert config.rmft.environment == Tide(num_arms=2, gap=0.5, height=3.0)
    assert from_dict(json.loads(json.dumps(config.flat()))) == config
    with pytest.raises(ConfigError, match="got moon with environment 'stationary', need tide, which has it; try envir"):
        RUN.replace(moon="full")
    with pytest.raises(ConfigError, match="got moon='blue', need one of full, new"):
        config.replace(moon="blue")
    with pytest.raises(ConfigError, match="try 'tide'"):
        RUN.replace(environment="tied")
    with pytest.raises(ConfigError, match=r"got height in selection 'mine' .*, which environment 'tide' has, need"):
        registers.register_selection("mine")(made(Selection, {"height": float}, height=1.0, **METHODS))


def test_a_class_without_a_docstring_is_described_by_its_name():
    registers.register_environment("plain")(made(Stationary))
    assert Environment.register["plain"].description == "plain"


def test_a_class_may_be_defined_again_as_in_a_notebook():
    for default in (0.25, 0.5):
        registers.register_environment("mine")(made(Stationary, {"rate": float}, rate=default))
        assert RUN.replace(environment="mine").flat()["rate"] == default
    # Also with other settings, and with another type of one.
    registers.register_environment("mine")(made(Stationary, {"rate": int}, rate=3))
    assert RUN.replace(environment="mine", rate=4).flat()["rate"] == 4
    registers.register_environment("mine")(made(Stationary))
    assert "rate" not in RUN.replace(environment="mine").flat()
    assert Environment.register.of_users() == ["mine"]
    other = type("Other", (Stationary,), {"__module__": "users"})
    with pytest.raises(ConfigError, match=r"got environment 'mine' from users\.Other, which users\.Mine has taken"):
        registers.register_environment("mine")(other)


@pytest.mark.parametrize("base", [Stationary, Abrupt, Transformer, LowestRegret, Imitation], ids=lambda base: base.name)
def test_what_is_not_registered_cannot_be_written_down(base):
    """Not even by the name of a registered class from which it derives."""
    choice = made(base)()
    config = RUN.replace(**{choice.kind: choice})
    config.validate()
    with pytest.raises(ConfigError) as error:
        config.flat()
    assert str(error.value) == (
        f"got Mine, need {choice.kind}s that can be found by name to write them down; "
        f"try @rmft_jax.register_{choice.kind}('my_name')"
    )


UNFIT_AGENTS: dict[str, tuple[dict[str, Any], str]] = {
    "methods": ({"act": never}, "got agent 'mine' (Mine) without init, observe, feedback, need all that an agent has"),
    "default": (
        {"init": never, "act": never, "observe": never, "feedback": ("full",), "__annotations__": {"rate": float}},
        "argument: 'rate'), need a default for every field; try adding it",
    ),
}


@pytest.mark.parametrize("case", UNFIT_AGENTS)
def test_a_class_that_cannot_be_an_agent_is_refused(case):
    body, message = UNFIT_AGENTS[case]
    known = list(AGENTS)
    with pytest.raises(ConfigError) as error:
        registers.register_agent("mine")(type("Mine", (), {"__module__": "users", **body}))
    assert message in str(error.value)
    assert list(AGENTS) == known


@pytest.mark.parametrize("arguments", [TrainArguments, BenchArguments])
def test_no_setting_has_the_name_of_an_option(arguments):
    options = {field.name for field in dataclasses.fields(arguments)} - {"config"}
    assert options <= RESERVED.keys()
