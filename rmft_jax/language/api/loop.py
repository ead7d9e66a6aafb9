"""The outer loop over a service: play, keep the best, tune, and again with the new model."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from rmft_jax.config.checks import ConfigError, either, require, require_count, require_seed
from rmft_jax.language.api.budget import Budget
from rmft_jax.language.api.client import ChatClient
from rmft_jax.language.api.export import lowest_regret, write_examples
from rmft_jax.language.api.faults import UnknownError
from rmft_jax.language.api.ledger import Ledger
from rmft_jax.language.api.messages import Wording
from rmft_jax.language.api.play import Played, play_problems
from rmft_jax.language.api.providers import JobStatus, Provider, require_succeeded
from rmft_jax.language.api.record import made_for, require_same
from rmft_jax.language.words import Telling
from rmft_jax.method.numerics import pinned
from rmft_jax.problems import Problem
from rmft_jax.running.files import RunError, locked, not_written, read_bytes, write_json

_STATE = "state.json"


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How the loop runs.

    num_iterations: how often a model is tuned.
    num_scenarios: M scenarios that are played in each.
    num_rollouts: L dialogues about each scenario.
    k: of these that are kept, those of lowest regret.
    seed: of the scenarios, the rewards and the seeds sent along.
    reasoning, wording, shared_reward_noise: see `play_problems`.
    max_invalid: dialogues with more answers that named no arm are not kept; None: however many there are.
    poll_seconds: between two looks at a job.
    patience: seconds that a job is waited for.

    Raises:
      ConfigError: if it cannot work.
    """

    num_iterations: int = 4
    num_scenarios: int = 32
    num_rollouts: int = 8
    k: int = 2
    seed: int = 0
    reasoning: bool = False
    wording: Wording = "chat"
    shared_reward_noise: bool = False
    max_invalid: int | None = 0
    poll_seconds: float = 20.0
    patience: float = 86_400.0

    def __post_init__(self):
        for name, suggestion in (("num_iterations", 4), ("num_scenarios", 32), ("num_rollouts", 8), ("k", 2)):
            require_count(getattr(self, name), name, 1, suggestion)
        require(self.k <= self.num_rollouts, f"k={self.k}", f"at most num_rollouts={self.num_rollouts}", "k=1")
        require_seed(self.seed)
        require(self.poll_seconds > 0, f"poll_seconds={self.poll_seconds}", "seconds above 0", "poll_seconds=20")
        require(self.patience > 0, f"patience={self.patience}", "seconds above 0", "patience=86400")


@dataclasses.dataclass(frozen=True)
class LoopState:
    """Where a loop stands, as it is written down after every step.

    made_for: digests of what must not change when it goes on, by name.
    model: that plays next, or is being tuned.
    iteration: counted from 0.
    step: what comes next.
    file: of examples, at the service.
    job: at the service.
    history: of every iteration that has played, its model, what it played like, and what became of it.
    """

    made_for: dict[str, str]
    model: str
    iteration: int = 0
    step: Literal["play", "upload", "tune", "poll"] = "play"
    file: str | None = None
    job: str | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def run_loop(
    client: ChatClient,
    provider: Provider,
    problem: Problem,
    tellings: Sequence[Telling],
    settings: LoopSettings,
    folder: Path | str,
    *,
    budget: Budget | None = None,
    resume: bool = False,
    note: Callable[[str], None] | None = None,
) -> LoopState:
    """Plays, keeps the dialogues of lowest regret of every scenario, tunes the model on them, and goes on with it.

    After every step it is written down where the run stands. One that was killed goes on with that step: answers are
    in the ledger, and a job that was started is looked for before one is started. So nothing is paid for twice, but
    for requests that were under way when it was killed.

    Args:
      client: whom to ask; its model is the first one.
      provider: who tunes.
      problem: what is played.
      tellings: the words; every iteration goes on in the list where the one before it ended.
      settings: of the loop.
      folder: of the run.
      budget: of all answers of the run.
      resume: whether a run in that folder goes on; else there must be none.
      note: told in a line what happens.

    Returns:
      Where it stands at the end; `model` is the last one.

    Raises:
      ConfigError: if something cannot work, or is not what the run was begun with.
      RunError: if a job fails or takes too long, no dialogue can be kept, or something cannot be reached, read or
        written. The run goes on from there.
      BudgetSpentError: before the budget is passed.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from error
    with locked(folder, f"{folder} is in use by another process; try another folder, or wait"):
        state = _begun(folder, _made_for(client, problem, tellings, settings), client.model, resume)
        loop = _Loop(client, provider, problem, tellings, settings, folder, budget, note or _silent, state, resume)
        while loop.state.iteration < settings.num_iterations:
            getattr(loop, loop.state.step)()
        return loop.state


@dataclasses.dataclass
class _Loop:
    """The steps. Each ends by writing down that it is done."""

    client: ChatClient
    provider: Provider
    problem: Problem
    tellings: Sequence[Telling]
    settings: LoopSettings
    folder: Path
    budget: Budget | None
    note: Callable[[str], None]
    state: LoopState
    resumed: bool
    """Whether the next step may have been begun before."""

    @property
    def examples(self) -> Path:
        """The file of examples of this iteration."""
        return self.folder / f"examples-{self.state.iteration}.jsonl"

    def play(self) -> None:
        """Plays, and writes down what is kept."""
        settings, number = self.settings, self.state.iteration
        self.note(f"iteration {number}: {self.state.model} plays")
        played = self._played()
        regret = np.asarray(self.problem.regret.final(played.trajectory))
        options: Any = {"invalid": played.invalid, "max_invalid": settings.max_invalid}
        kept = lowest_regret(regret, settings.num_rollouts, settings.k, **options)
        if not kept:
            hint = "a model that answers with names, another prompt, or a larger max_invalid"
            raise RunError(f"in iteration {number} no dialogue of {self.state.model} can be kept; try {hint}")
        write_examples(self.examples, played.dialogues, kept)
        row = {
            "iteration": number,
            "model": self.state.model,
            "regret": float(regret.mean()),
            "kept_regret": float(regret[kept].mean()),
            "kept": len(kept),
            "invalid": played.num_invalid,
            "requests": played.totals.all_requests,
            "tokens": played.totals.all_tokens,
        }
        before = [other for other in self.state.history if other["iteration"] != number]
        self._save(step="upload", history=[*before, row])
        self.note(f"iteration {number}: regret {row['regret']:.3g}, {len(kept)} dialogues kept")

    @pinned()
    def _played(self) -> Played:
        settings, number = self.settings, self.state.iteration
        key = jax.random.fold_in(jax.random.key(settings.seed), number)
        shift = number * settings.num_scenarios % len(self.tellings)
        with Ledger(self.folder / "answers") as ledger:
            return play_problems(
                dataclasses.replace(self.client, model=self.state.model),
                self.problem,
                key,
                settings.num_scenarios,
                [*self.tellings[shift:], *self.tellings[:shift]],
                ledger=ledger,
                budget=self.budget,
                reasoning=settings.reasoning,
                wording=settings.wording,
                num_rollouts=settings.num_rollouts,
                shared_reward_noise=settings.shared_reward_noise,
                purpose=f"iteration {number}",
            )

    def upload(self) -> None:
        """Hands the examples over."""
        if not self.examples.exists():  # Somebody cleaned up. The answers are still there.
            self._save(step="play")
            return
        self._save(step="tune", file=self.provider.upload(self.examples))

    def tune(self) -> None:
        """Starts a job, unless the one of this file was started before the run was killed."""
        file = self.state.file or ""
        job = self.provider.find(file) if self.resumed else None
        try:
            job = job or self.provider.start(file, self.state.model)
        except ConfigError:
            if not self.resumed:
                raise
            self._save(step="upload", file=None)  # The service may have forgotten it.
            return
        self._save(step="poll", job=job)
        self.note(f"iteration {self.state.iteration}: job {job}")

    def poll(self) -> None:
        """Waits for the job, and goes on with its model."""
        job, end = self.state.job or "", time.monotonic() + self.settings.patience
        while (status := self._standing(job)).status == "running":
            if time.monotonic() > end:
                waited = f"{self.settings.patience:g} seconds"
                raise RunError(f"the job {job} still runs after {waited}; {_resume()}, which waits for it again")
            time.sleep(self.settings.poll_seconds)
        try:
            model = require_succeeded(job, status)
        except RunError as error:
            self._save(step="tune", job=None)
            raise RunError(f"{error}; {_resume()}, which starts another job with the same examples") from None
        *before, row = self.state.history
        history = [*before, {**row, "file": self.state.file, "job": job, "made": model}]
        self.note(f"iteration {self.state.iteration}: made {model}")
        following = {"iteration": self.state.iteration + 1, "model": model, "file": None, "job": None}
        self._save(step="play", history=history, **following)

    def _standing(self, job: str) -> JobStatus:
        try:
            return self.provider.poll(job)
        except UnknownError as error:
            if not self.resumed:
                raise
            self._save(step="upload", file=None, job=None)
            raise RunError(
                f"the service has forgotten the job {job} ({error}); {_resume()}, which starts another"
            ) from None

    def _save(self, **changes: Any) -> None:
        self.state = dataclasses.replace(self.state, **changes)
        _write(self.folder, self.state)
        self.resumed = False


def _silent(_: str) -> None:
    pass


def _made_for(
    client: ChatClient, problem: Problem, tellings: Sequence[Telling], settings: LoopSettings
) -> dict[str, str]:
    own = dataclasses.asdict(settings)
    # A run may be made longer, and more or less patient.
    looped = {name: own[name] for name in own if name not in ("num_iterations", "poll_seconds", "patience")}
    return made_for(client, problem, tellings, looped)


def _resume() -> str:
    return f"go on with {either('--resume', 'resume=True')}"


def _begun(folder: Path, asked: dict[str, str], model: str, resume: bool) -> LoopState:
    """The state that a run starts or goes on with.

    Raises:
      ConfigError: if it was begun with something else.
      RunError: if there is a run and should be none, or the other way round; or if its state is damaged.
    """
    path = folder / _STATE
    if path.exists() != resume:
        found = "holds a run" if path.exists() else "holds no run"
        tried = _resume() if path.exists() else f"begin without {either('--resume', 'resume=True')}"
        raise RunError(f"{folder} {found}; {tried}, or another folder")
    if not resume:
        state = LoopState(asked, model)
        _write(folder, state)
        return state
    try:
        state = LoopState(**json.loads(read_bytes(path)))
        was = dict(state.made_for)
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({error}); try another folder") from error
    require_same(was, asked)
    return state


def _write(folder: Path, state: LoopState) -> None:
    try:
        write_json(folder / _STATE, dataclasses.asdict(state))
    except OSError as error:
        raise not_written(folder / _STATE, error) from error
