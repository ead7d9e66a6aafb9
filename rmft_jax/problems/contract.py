"""Whether an environment that a user brought does what its base class says, found out by playing it a little."""

import functools
import sysconfig
import textwrap
import traceback
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rmft_jax.config import ConfigError, ScalarKey
from rmft_jax.config.checks import require, require_shape
from rmft_jax.config.choices import is_built_in
from rmft_jax.problems.base import Environment
from rmft_jax.problems.problem import Problem
from rmft_jax.problems.types import Decision, Outcome

_NUM_SCENARIOS = 8
_PACKAGE, _PYTHON = Path(__file__).parent.parent, sysconfig.get_path("stdlib")


def require_environment(problem: Problem, *, filled_up: bool = False) -> None:
    """Plays some scenarios of an environment that is not this package's, each arm in turn.

    Args:
      problem: of any size.
      filled_up: whether it will be played in arrays for more arms and rounds than it has, as in sweeps over sizes, so
        that these must change nothing.

    Raises:
      ConfigError: if the environment fails, returns what its base class does not say, has expected rewards that are
        NaN, outside `mean_range` or not those told before the decision, or has other ones where there are more arms
        and rounds in the arrays.
    """
    environment = problem.environment
    if is_built_in(type(environment)):
        return
    means, before = _means(problem)
    name = type(environment).__name__
    found = "NaN or infinity" * (not bool(jnp.isfinite(means).all()))
    require(not found, f"{found} as an expected reward from {name}", "numbers", f"a look at {_source_of(environment)}")
    settled = bool(jnp.allclose(before, means, atol=1e-5, rtol=1e-4))
    require(
        settled or environment.reacts,
        f"other numbers from mean_rewards of {name} before a decision than from step after it",
        "the same, or word that rewards are settled only after the decision",
        "reacts = True in the class, or mean_rewards as step has them",
    )
    low, high = environment.mean_range
    used = _used(problem)
    least, most = (
        float(bound(means, where=used, initial=start)) for bound, start in ((jnp.min, jnp.inf), (jnp.max, -jnp.inf))
    )
    margin = 1e-4 * max(1.0, most - least)
    require(
        low - margin <= least and most <= high + margin,
        f"expected rewards from {least:.3g} to {most:.3g} of {name}, whose mean_range is ({low:g}, {high:g})",
        "them inside it",
        "a property mean_range that says where they lie, with noise='gaussian' where that is not [0, 1]",
    )
    if filled_up:
        larger, _ = _means(problem.of_size(problem.num_arms + 1, problem.horizon + 1))
        same = bool(jnp.allclose(larger[:, : problem.horizon, : problem.num_arms], means, atol=1e-5))
        require(
            same,
            f"other expected rewards from {name} where arrays are for one more arm and round than there are",
            "the same, since programs of several sizes are filled up",
            "arm_mask.sum() and round_mask.sum() for the numbers of arms and rounds, and nothing that mixes all arms, "
            "such as [::-1], sort or mean, without the mask",
        )


def _means(problem: Problem) -> tuple[Float[Array, "N T K"], Float[Array, "N T K"]]:
    """Expected rewards of some scenarios, of outcomes and as told before, those of absent arms and rounds as 0.

    Raises:
      ConfigError: if the environment fails, or returns what its base class does not say.
    """
    environment = problem.environment
    try:
        _require_step(problem)
        keys = jax.random.split(jax.random.key(0), _NUM_SCENARIOS)
        means, before = jax.jit(jax.vmap(functools.partial(_play, problem)))(keys)
    except ConfigError:
        raise
    except Exception as error:
        # What a program cannot branch on is JAX's most frequent complaint, and a long one.
        branched = isinstance(error, jax.errors.ConcretizationTypeError)
        reason = "an `if` or a number that depends on an array" if branched else str(error)
        reason = textwrap.shorten(f"{type(error).__name__}: {reason}", 300, placeholder=" ...")
        advice = "jnp.where" if branched else "rmft_jax.Environment's docstrings, which say what each method is given"
        where = _source_of(environment, error)
        name = type(environment).__name__
        raise ConfigError(
            f"got an error from {name} at {where} ({reason}), need methods that JAX can trace; try {advice}"
        ) from error
    return jnp.where(_used(problem), means, 0.0), jnp.where(_used(problem), before, 0.0)


def _used(problem: Problem) -> Bool[Array, "1 T K"]:
    """Where an arm exists in a round that is played; elsewhere an expected reward means nothing."""
    return problem.round_mask[None, :, None] & problem.arm_mask[None, None]


def _require_step(problem: Problem) -> None:
    """Traces one round, which compiles nothing.

    Raises:
      ConfigError: if `step` returns other things than its base class says.
    """
    environment = problem.environment
    name, K = type(environment).__name__, problem.num_arms
    key = jax.eval_shape(lambda: jax.random.key(0))
    before = jax.eval_shape(lambda key: environment.reset(key, problem.arm_mask, problem.round_mask), key)
    found = jax.eval_shape(functools.partial(_stepped, problem), key, before)
    outcome = found[1] if isinstance(found, tuple) and len(found) == 2 else None
    require(
        isinstance(outcome, Outcome),
        f"{_told(found)} from step of {name}",
        "the next state and an Outcome",
        "return state, rmft_jax.Outcome(mean_rewards=means, rewards=self.draw_rewards(key, means))",
    )
    assert isinstance(outcome, Outcome)
    for field in ("mean_rewards", "rewards"):
        need = "one entry per arm"
        require_shape(getattr(outcome, field), f"{field} from {name}", (K,), need, f"returning {need}")
    was, now = _told(before), _told(found[0])
    advice = f"a reset that returns {now}" if jax.tree.structure(before) == jax.tree.structure(found[0]) else was
    require(was == now, f"a state of {now} from step of {name}", f"{was}, as reset returns", advice)


def _stepped(problem: Problem, key: ScalarKey, state: Any, round: Any = 0) -> Any:
    """A round in which the arms are played in turn."""
    action = jnp.asarray(round) % jnp.sum(problem.arm_mask)
    decision = Decision(action=action, probabilities=jax.nn.one_hot(action, problem.num_arms))
    return problem.environment.step(key, state, decision, jnp.asarray(round))


def _play(problem: Problem, key: ScalarKey) -> tuple[Float[Array, "T K"], Float[Array, "T K"]]:
    """Expected rewards of all rounds of a scenario: those of the outcomes, and those told before the decisions."""
    scenario_key, reward_key = jax.random.split(key)
    start = problem.environment.reset(scenario_key, problem.arm_mask, problem.round_mask)

    def step(state: Any, round: Any) -> tuple[Any, tuple[Float[Array, "K"], Float[Array, "K"]]]:
        before = problem.environment.mean_rewards(state, round)
        state, outcome = _stepped(problem, jax.random.fold_in(reward_key, round), state, round)
        return state, (outcome.mean_rewards, before)

    return jax.lax.scan(step, start, jnp.arange(problem.horizon))[1]


def _told(tree: Any) -> str:
    """The shapes of a pytree, such as "float32[5], int32[]"."""
    leaves = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(tree)]
    return ", ".join(leaves) or "nothing"


def _source_of(environment: Environment, error: Exception | None = None) -> str:
    """Where the user's code failed, or stands."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    own = [
        frame for frame in frames
        if "site-packages" not in frame.filename
        and not any(Path(frame.filename).is_relative_to(place) for place in (_PACKAGE, _PYTHON))
    ]  # fmt: skip
    if own:
        return f"{own[-1].filename}:{own[-1].lineno}"
    return f"its {'path' if hasattr(environment, 'path') else 'step'}"
