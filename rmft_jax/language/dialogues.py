"""Dialogues as text: what was told and written in a trajectory, and how it fared."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rmft_jax.config.checks import either, require
from rmft_jax.language.agent import LanguageAgent
from rmft_jax.language.library import EMPTY
from rmft_jax.language.policy import Text
from rmft_jax.language.tokenizers import Tokenizer
from rmft_jax.method.judging import judge
from rmft_jax.method.rmft import play_rollouts
from rmft_jax.method.state import IterationKeys, TrainState, make_agent, starting_from
from rmft_jax.problems import Trajectory
from rmft_jax.running.trainer import RunKeys
from rmft_jax.running.weights import TrainedPolicy


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """One dialogue.

    intro: the rules of the game.
    rounds: `T` texts, what was asked, thought, answered and told.
    actions: `T` names of the arms played.
    regret: `[T]` cumulative.
    invalid: `[T]` whether the answer named no arm.
    kept: whether it was selected.
    scenario: the number of its scenario.
    """

    intro: str
    rounds: tuple[str, ...]
    actions: tuple[str, ...]
    regret: Float[np.ndarray, "T"]
    invalid: Bool[np.ndarray, "T"]
    kept: bool
    scenario: int = 0


def dialogue_of(
    agent: LanguageAgent, tokenizer: Tokenizer, trajectory: Trajectory, regret: Float[Array, "T"], kept: bool
) -> Dialogue:
    """A trajectory, without batch axes, as text."""
    telling = int(trajectory.notes.telling[0])

    def text(row: Array) -> str:
        return tokenizer.decode([int(token) for token in np.asarray(row) if token != EMPTY])

    names = [text(row).strip() for row in agent.library.answers[telling]]
    return Dialogue(
        intro=text(agent.library.intro[telling]),
        rounds=tuple(text(row).strip() for row in agent.rows(trajectory)),
        actions=tuple(names[int(action)] for action in trajectory.actions),
        regret=np.asarray(regret),
        invalid=np.asarray(trajectory.notes.invalid),
        kept=kept,
    )


def rollouts_of(policy: TrainedPolicy, scenario: int | None) -> list[Dialogue]:
    """The rollouts of one scenario, played and selected as in an iteration that began with this policy.

    Args:
      policy: a language model.
      scenario: its number in the iteration. None: the first one of which anything is kept.

    Raises:
      ConfigError: if there is no such scenario, or the policy writes no text.
    """
    config = policy.config.rmft
    got, need = f"policy={config.policy.name!r}", "a policy that writes text"
    require(isinstance(config.policy, Text), got, need, "a run of text-toy")
    assert isinstance(config.policy, Text)
    most = config.num_scenarios - 1
    require(
        scenario is None or 0 <= scenario <= most,
        f"scenario {scenario}",
        f"one from 0 to {most}",
        either("--scenario 0", "scenario=0"),
    )
    state = starting_from(config, RunKeys.create(policy.config.seed).train, policy.agent.params)
    played, regret, kept = jax.jit(_selected)(state)
    scenario = int(np.argmax(np.any(kept, axis=1))) if scenario is None else scenario
    agent = make_agent(state)
    assert isinstance(agent, LanguageAgent)
    own = jax.tree.map(lambda leaf: leaf[scenario], (played, regret, kept))
    tokenizer, found = config.policy.loaded.tokenizer, []
    for rollout in range(config.num_rollouts):
        trajectory, regrets, selected = jax.tree.map(lambda leaf, at=rollout: leaf[at], own)
        dialogue = dialogue_of(agent, tokenizer, trajectory, regrets, bool(selected))
        found.append(dataclasses.replace(dialogue, scenario=scenario))
    return found


def _selected(state: TrainState) -> tuple[Trajectory, Float[Array, "M L T"], Bool[Array, "M L"]]:
    """The rollouts of the coming iteration, their regrets, and which of them are kept."""
    config, keys = state.config, IterationKeys.of(state)
    problem = config.problem()
    played, _ = play_rollouts(state, problem, keys)
    judged = judge(config, problem, played)
    kept = config.selection.keep(keys.selection, judged)
    flags = jnp.zeros((kept.shape[0], judged.final.size // kept.shape[0]), bool)
    flags = jax.vmap(lambda row, at: row.at[at].set(True))(flags, kept)
    return played, judged.regret, flags.reshape(judged.final.shape)
