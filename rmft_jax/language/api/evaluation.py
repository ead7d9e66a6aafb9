"""A model behind a chat endpoint beside agents of the package: the same problems, the same reward noise."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from rmft_jax.agents import Agent
from rmft_jax.config import ScalarKey
from rmft_jax.config.checks import either, require, require_count, require_seed
from rmft_jax.language.api.budget import Budget
from rmft_jax.language.api.client import ChatClient
from rmft_jax.language.api.ledger import Ledger
from rmft_jax.language.api.messages import Wording
from rmft_jax.language.api.play import Played, play_problems
from rmft_jax.language.api.record import made_for, require_same
from rmft_jax.language.words import Telling
from rmft_jax.method import evaluation
from rmft_jax.method.noise import RolloutKeys
from rmft_jax.method.numerics import pinned
from rmft_jax.problems import Problem
from rmft_jax.running.files import RunError, not_written, read_bytes, write_dataset, write_json
from rmft_jax.running.trainer import RunKeys

_RECORD = "asked.json"
_DATASET = "evaluation.nc"


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What is played.

    num_scenarios: N.
    seed: of a run whose test scenarios these are.
    num_rollouts: L dialogues about each scenario, of which the first one is evaluated; all can be kept.
    reasoning, wording: see `play_problems`.

    Raises:
      ConfigError: if it cannot work.
    """

    num_scenarios: int = 50
    seed: int = 0
    num_rollouts: int = 1
    reasoning: bool = False
    wording: Wording = "chat"

    def __post_init__(self):
        require_count(self.num_scenarios, "num_scenarios", 2, 50)
        require_count(self.num_rollouts, "num_rollouts", 1, 1)
        require_seed(self.seed)


@dataclasses.dataclass(frozen=True)
class ApiEvaluation:
    """What came out.

    dataset: as `method.evaluation.evaluate` makes it; the model comes first, as `api:` and its name.
    path: where it is.
    played: all dialogues.
    regret: of each at the horizon.
    """

    dataset: xr.Dataset
    path: Path
    played: Played
    regret: Float[np.ndarray, "N"]


@pinned()
def evaluate_model(
    client: ChatClient,
    problem: Problem,
    tellings: Sequence[Telling],
    agents: Mapping[str, Agent],
    settings: EvaluationSettings,
    folder: Path | str,
    *,
    budget: Budget | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ApiEvaluation:
    """Plays a chat model and agents on the same scenarios, and writes `evaluation.nc`.

    Answers are kept in the folder as they come. An evaluation that was killed goes on where it was, and pays for
    nothing twice but for requests that were under way. It may go on with more scenarios or rollouts.

    Args:
      client: whom to ask, and how.
      problem: what is played.
      tellings: the words; which of them a scenario is told in is drawn as for language models of the package.
      agents: to be compared with, by name.
      settings: what is played.
      folder: of the results.
      budget: of all answers there; None: no limit.
      resume: whether an evaluation that is there goes on.
      progress: told after every answer how many there are, and how many there will be.

    Raises:
      ConfigError: if something cannot work, or is not what the evaluation was begun with.
      RunError: if there is an evaluation and it should not go on, the server cannot be reached or fails too often, or
        something cannot be read or written.
      BudgetSpentError: before the budget is passed.
    """
    folder, key = Path(folder), RunKeys.create(settings.seed).test
    words = told_in(tellings, key, settings.num_scenarios)
    same = {name: getattr(settings, name) for name in ("seed", "reasoning", "wording")}
    _begin(folder, made_for(client, problem, tellings, same), resume)
    with Ledger(folder / "answers") as ledger:
        played = play_problems(
            client,
            problem,
            key,
            settings.num_scenarios,
            words,
            ledger=ledger,
            budget=budget,
            reasoning=settings.reasoning,
            wording=settings.wording,
            num_rollouts=settings.num_rollouts,
            progress=progress,
        )
    first = jax.tree.map(lambda leaf: leaf[:: settings.num_rollouts], played.trajectory)
    options = {"num_scenarios": settings.num_scenarios, "key": key}
    dataset = evaluation.evaluate(agents, problem, given={f"api:{client.model}": first}, **options)
    regret = np.asarray(problem.regret.final(played.trajectory))
    try:
        path = write_dataset(folder / _DATASET, dataset)
    except OSError as error:
        raise not_written(folder, error) from error
    return ApiEvaluation(dataset, path, played, regret)


def told_in(tellings: Sequence[Telling], key: ScalarKey, num_scenarios: int) -> list[Telling]:
    """The words of every scenario: those that `rollout_scenarios` draws for language models of the package."""
    require(bool(tellings), "no tellings", "one or more", "make_tellings(1, ...)")
    base = RolloutKeys.create(key).telling

    def drawn(scenario: jax.Array) -> jax.Array:
        return jax.random.randint(jax.random.fold_in(base, scenario), (), 0, len(tellings))

    numbers = jax.vmap(drawn)(jnp.arange(num_scenarios))
    return [tellings[int(number)] for number in numbers]


def _begin(folder: Path, asked: dict[str, str], resume: bool) -> None:
    """Writes down what is asked for, or makes sure that it is what it was."""
    path = folder / _RECORD
    if path.exists():
        if not resume:
            resumed = either("--resume", "resume=True")
            raise RunError(f"{folder} holds answers; go on with {resumed}, or try another directory")
        try:
            was = dict(json.loads(read_bytes(path)))
        except (ValueError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error}); try another directory") from error
        require_same(was, asked)
        return
    if (folder / _DATASET).exists():
        raise RunError(f"{folder} holds another evaluation; try another directory")
    try:
        write_json(path, asked)
    except OSError as error:
        raise not_written(folder, error) from error
