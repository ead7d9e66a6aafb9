"""Agents that users bring: where they play, how they are tuned, and what is refused."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmft_jax.agents import (
    UCB,
    StatisticsAgent,
    make_agents,
    make_baselines,
)
from rmft_jax.agents.catalogue import tuning_grid, with_constants
from rmft_jax.agents.register import AGENTS
from rmft_jax.config import ConfigError
from rmft_jax.method.contract import require_agents_of_users
from rmft_jax.method.evaluation import evaluate, play_scenarios
from rmft_jax.problems import Abrupt, Decision, Environment, Problem, Stationary

KEY = jax.random.key(0)


@pytest.fixture
def _own_names(monkeypatch):
    """What a test registers is gone after it."""
    for table in ("_entries", "_makers"):
        monkeypatch.setattr(AGENTS, table, dict(getattr(AGENTS, table)))


def define_stubborn(start: float = 1.0):
    """A user's agent, as a cell of a notebook that can be run again."""

    @AGENTS("stubborn", grids={"bonus": (0, 2)})
    class Stubborn(StatisticsAgent):
        bonus: float = start

        def _index(self, key, state, context):
            return state.pulls * self.bonus + state.means


@pytest.mark.usefixtures("_own_names")
def test_a_user_s_agent_plays_wherever_it_fits():
    define_stubborn()
    for problem in (Problem(Stationary(), 20), Problem(Abrupt(), 20)):
        assert set(make_agents(problem, ["stubborn", "ucb1"])) == {"stubborn", "ucb1"}
        assert {"stubborn", "ucb1"} < set(make_baselines(problem)) & set(make_agents(problem))
        assert set(make_baselines(problem, among=())) == {"stubborn"}
    full = Problem(Stationary(feedback="full"), 20)
    assert "stubborn" not in {*make_agents(full), *make_baselines(full)}
    with pytest.raises(ConfigError, match=r"got agent 'stubborn' for Stationary under 'full' feedback .*; try hedge"):
        make_agents(full, ["stubborn"])


@pytest.mark.usefixtures("_own_names")
def test_the_constant_of_a_user_s_agent_is_tuned():
    define_stubborn()
    problem = Problem(Stationary(), 20)
    agent, entry = make_agents(problem, ["stubborn"])["stubborn"], AGENTS["stubborn"]
    assert entry.grids == {"bonus": (0.0, 2.0)}
    assert tuning_grid(agent, "stubborn") == [{"bonus": 0.0}, {"bonus": 1.0}, {"bonus": 2.0}]

    @jax.jit
    @jax.vmap
    def actions(value):
        return play_scenarios(with_constants(agent, {"bonus": value}), problem, KEY, 8).actions

    greedy, stubborn = np.asarray(actions(jnp.asarray(entry.grids["bonus"])))
    assert (stubborn == stubborn[:, :1]).all()
    assert np.ptp(stubborn) > 0
    assert np.ptp(greedy, axis=1).any()


@pytest.mark.usefixtures("_own_names")
def test_a_function_may_say_where_a_user_s_agent_fits():
    AGENTS("of_two")(lambda problem: UCB(constant=0.1) if problem.num_arms == 2 else None)
    two, five = Problem(Stationary(num_arms=2), 20), Problem(Stationary(), 20)
    assert make_agents(two)["of_two"] == make_baselines(two)["of_two"] == UCB(constant=0.1)
    assert "of_two" not in {*make_agents(five), *make_baselines(five)}


def without(name: str) -> type:
    """A user's class that lacks something."""
    parts = {part: getattr(UCB, part) for part in ("init", "act", "observe", "feedback") if part != name}
    return type("Unready", (), parts)


@dataclasses.dataclass(frozen=True)
class _NoPytree(UCB):
    bonus: float = 1.0


class _NoDefault(UCB):
    bonus: float  # pyright: ignore[reportGeneralTypeIssues]


@pytest.mark.usefixtures("_own_names")
@pytest.mark.parametrize(
    ("name", "made", "constant", "message"),
    [
        *(
            ("mine", without(part), None, rf"got agent 'mine' \(Unready\) without {part}, need .*; try (def )?{part}")
            for part in ("init", "act", "observe", "feedback")
        ),
        ("mine", type("Abstract", (StatisticsAgent,), {}), None, r"\(Abstract\) without _index, .*; try def _index"),
        ("mine", _NoDefault, None, r"\(_NoDefault\) .*need a default for every field"),
        ("mine", _NoPytree, None, r"got agent 'mine' \(_NoPytree\), a dataclass .*; try .*without @dataclass"),
        ("mine", type("Mine", (UCB,), {}), "bonus", r"got grids of bonus for agent 'mine' \(Mine\), .* grids={}"),
        ("ucb1", type("Mine", (UCB,), {}), None, r"got agent 'ucb1' from .*Mine, which .* has taken.* try 'my_ucb1'"),
        ("My agent", UCB, None, r"got agent 'My agent', need a name .*; try @register_agent\('my_name'\)"),
        ("mine", UCB, 0.5, r"got grids=\{'constant': 0.5\} of agent 'mine', need numbers for every field; try"),
        ("mine", UCB, "abc", r"got grids=\{'constant': 'abc'\} of agent 'mine', need numbers for every field; try"),
        (UCB, UCB, None, r"got agent <class .*UCB'>, need a name .*; try @register_agent\('my_name'\)"),
    ],
)
def test_a_user_s_agent_that_cannot_play_is_refused(name, made, constant, message):
    before = AGENTS.names()
    grids: Any = {constant: ()} if constant else {}
    grids = {"constant": constant} if constant in (0.5, "abc") else grids
    with pytest.raises(ConfigError, match=f"^.*{message}.*$"):
        AGENTS(name, grids=grids)(made)
    assert AGENTS.names() == before


@pytest.mark.usefixtures("_own_names")
def test_a_name_is_given_once_but_a_class_may_be_defined_again():
    problem = Problem(Stationary(), 20)
    for start in (1.0, 3.0):
        define_stubborn(start)
        agent: Any = make_agents(problem, ["stubborn"])["stubborn"]
        assert agent.bonus == start
    with pytest.raises(ConfigError, match=r"got agent 'stubborn' from .*, which .*Stubborn has taken, need .* own"):
        AGENTS("stubborn")(type("Other", (UCB,), {}))


@pytest.mark.usefixtures("_own_names")
def test_no_agent_may_be_taken_for_the_trained_policy():
    for name in ("rmft", "rmft_v2"):
        with pytest.raises(ConfigError, match=f"got agent '{name}', need a name that does not begin with rmft"):
            AGENTS(name)(lambda problem: UCB())


@pytest.mark.usefixtures("_own_names")
def test_an_agent_of_a_user_that_fails_is_told_before_anything_is_trained():
    problem = Problem(Stationary(), 20)
    define_stubborn()
    require_agents_of_users(problem)

    @AGENTS("broken")
    class Broken(StatisticsAgent):
        def _index(self, key, state, context):
            return state.pulls[:-1]

    with pytest.raises(ConfigError, match=r"got agent 'broken' \(.*\), need what the docstrings of its base class say"):
        require_agents_of_users(problem)
    require_agents_of_users(problem, ["stubborn", "ucb1"])
    require_agents_of_users(dataclasses.replace(problem, radius=1.0))
    AGENTS("unbuilt")(lambda problem: {}["nothing"])
    with pytest.raises(ConfigError, match=r"got agent 'unbuilt' \(KeyError: 'nothing'\)"):
        require_agents_of_users(problem, ["unbuilt"])
    AGENTS("a_class")(lambda problem: UCB)
    with pytest.raises(ConfigError, match=r"got UCB, a class, for agent 'a_class', .*; try return UCB\(\.\.\.\)"):
        make_agents(problem, ["a_class"])
    AGENTS("a_number")(lambda problem: 3)
    with pytest.raises(ConfigError, match="got int for agent 'a_number'"):
        make_agents(problem, ["a_number"])
    AGENTS("mistyped", grids={"constnat": [1.0]})(lambda problem: UCB())
    with pytest.raises(ConfigError, match="got grids of constnat for agent 'mistyped', need fields of UCB"):
        make_agents(problem, ["mistyped"])


def reckless(action: int, chances: tuple[float, ...]) -> UCB:
    """An agent that decides what it is told to."""

    class Reckless(UCB):
        def act(self, key, state, context):
            return Decision(jnp.asarray(action), jnp.asarray(chances)), state

    return Reckless()


@pytest.mark.usefixtures("_own_names")
@pytest.mark.parametrize(
    ("action", "chances", "message"),
    [
        (7, (1.0, 0.0, 0.0), r"got action \[7\] of agent 'reckless', need one of its 3 arms"),
        (-1, (1.0, 0.0, 0.0), r"got action \[-1\] of agent 'reckless', need one of its 3 arms"),
        (
            0,
            (1.0, 1.0, 1.0),
            r"probabilities of agent 'reckless' with sum \[3\.\], need none below 0, and the sum 1",
        ),
        (0, (2.0, -1.0, 0.0), r"got probabilities of agent 'reckless' with sum \[1\.\], need none below 0"),
        (0, (math.nan, 0.0, 0.0), r"got probabilities of agent 'reckless' with sum \[nan\]"),
    ],
)
def test_what_is_no_decision_is_told_before_anything_is_played(action, chances, message):
    AGENTS("reckless")(lambda problem: reckless(action, chances))
    problem = Problem(Stationary(num_arms=3), 5)
    with pytest.raises(ConfigError, match=message):
        require_agents_of_users(problem, ["reckless"])
    with pytest.raises(ConfigError, match=message):
        evaluate(make_agents(problem, ["reckless"]), problem, num_scenarios=2, key=jax.random.key(0))


def test_a_law_of_ones_own_has_no_agents_that_know_another():
    class Half(Stationary):
        """Rewards in half of the interval."""

    class Turning(Abrupt):
        """Changes of its own."""

    def names(environment: Environment) -> set[str]:
        return set(make_agents(Problem(environment, 20)))

    assert {"bayes_optimal", "gittins"} <= names(Stationary(num_arms=2))
    assert not {"bayes_optimal", "gittins"} & names(Half(num_arms=2))
    assert "change_point_index" in names(Abrupt())
    assert "change_point_index" not in names(Turning())
