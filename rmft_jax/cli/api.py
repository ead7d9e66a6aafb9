"""The commands `rmft evaluate api:MODEL` and `rmft train api:MODEL`: models behind a chat endpoint."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from rmft_jax.agents import make_baselines
from rmft_jax.cli.common import API, parse, print_summary
from rmft_jax.config.checks import ConfigError, require, require_count
from rmft_jax.language.api.budget import Budget
from rmft_jax.language.api.client import ChatClient
from rmft_jax.language.api.evaluation import ApiEvaluation, EvaluationSettings, evaluate_model
from rmft_jax.language.api.export import lowest_regret, write_examples
from rmft_jax.language.api.faults import api_key, host_of
from rmft_jax.language.api.ledger import Totals
from rmft_jax.language.api.loop import LoopSettings, LoopState, run_loop
from rmft_jax.language.api.providers import OpenAIProvider
from rmft_jax.language.library import tellings_of
from rmft_jax.language.words import Telling
from rmft_jax.method.presets import get_preset
from rmft_jax.problems import Problem
from rmft_jax.running.files import RunError, writable
from rmft_jax.running.progress import ProgressReporter
from rmft_jax.statistics.report import summarize


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Whom to ask, what and how."""

    base_url: str = ""
    """Address of the endpoint, as a rule ending in /v1 (required). The key of the service is taken from the environment
    variable OPENAI_API_KEY alone; servers of this machine may need none."""
    preset: str = "text-toy"
    """Named configuration whose problem is played; `rmft presets` lists them."""
    num_arms: int | None = None
    """Arms K, instead of the preset's."""
    horizon: int | None = None
    """Rounds T, instead of the preset's. Every round is a request."""
    contexts: Literal["trained", "held-out"] = "trained"
    """Which stories and words problems are told in: those for training, or those held out."""
    num_tellings: int | None = None
    """Different ways in which problems are told; each scenario has one of them. If not given as many as runs of the
    preset have, so that words are the same, or 64."""
    reasoning: tyro.conf.FlagCreatePairsOff[bool] = False
    """The model is asked to think before it answers."""
    wording: Literal["chat", "bare"] = "chat"
    """`chat`: whole sentences, and how to answer. `bare`: the text of a dialogue alone, for models of ours
    (`rmft serve`), which know it."""
    temperature: float = 1.0
    """Of the sampling."""
    max_tokens: int = 64
    """Tokens of an answer, at most."""
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Under which name the server takes that."""
    seeded: bool = True
    """A seed is sent with every request; some servers refuse it."""
    guided: tyro.conf.FlagCreatePairsOff[bool] = False
    """Answers are limited to the arms' names, by the field `structured_outputs`; `rmft serve` and vLLM know it."""
    stream: tyro.conf.FlagCreatePairsOff[bool] = False
    """Answers come piece by piece."""
    concurrency: int = 8
    """Requests under way at once, at most."""
    requests_per_minute: float = 0.0
    """That are sent, at most; 0: as many as there are."""
    timeout: float = 60.0
    """Seconds that an answer may take."""
    max_retries: int = 6
    """How often a request is tried again after too many requests, errors of the server and broken connections."""
    max_requests: int | None = None
    """Requests that all answers in --out may have cost, lost ones too; it stops before it would pass that."""
    max_total_tokens: int | None = None
    """The same of tokens, of prompts and answers."""

    def client(self, model: str) -> ChatClient:
        """Whom to ask; nothing is sent before the key is there.

        Raises:
          ConfigError: if a setting cannot work, or there is no key.
        """
        require(bool(self.base_url), "no --base-url", "the address of a server", "--base-url http://127.0.0.1:8000/v1")
        fields = {field.name for field in dataclasses.fields(ChatClient)} - {"model", "first_rest"}
        client = ChatClient(model=model, **{name: getattr(self, name) for name in fields})
        api_key(host_of(self.base_url))
        return client

    @property
    def budget(self) -> Budget:
        """What may be spent."""
        for name in ("max_requests", "max_total_tokens"):
            if (value := getattr(self, name)) is not None:
                require_count(value, name, 0, 1000)
        return Budget(self.max_requests, self.max_total_tokens)

    def problem(self) -> Problem:
        """What is played."""
        asked = {"num_arms": self.num_arms, "horizon": self.horizon}
        given = {name: value for name, value in asked.items() if value is not None}
        config = get_preset(self.preset).rmft.replace(**given)
        return Problem.checked(config.environment, config.horizon)

    def tellings(self, problem: Problem) -> list[Telling]:
        """The words."""
        usual: Any = get_preset(self.preset).flat().get("num_tellings", 64)
        return tellings_of(problem, self.contexts, usual if self.num_tellings is None else self.num_tellings)


_Endpoint = Annotated[Endpoint, tyro.conf.arg(name="")]


@dataclasses.dataclass(frozen=True)
class ApiEvaluateArguments:
    """Plays a model behind a chat endpoint, and the classical agents, on the same scenarios with the same rewards.

    The scenarios are the first test scenarios of a run with this seed. Every answer is kept in --out as it comes: what
    was killed goes on with --resume, and nothing is paid for twice but requests that were under way.
    """

    model: tyro.conf.Positional[str]
    """`api:` and the name of the model at the server."""
    out: Path | None = None
    """Directory for the results and the answers (required)."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the evaluation in --out; also with more scenarios, rollouts or budget."""
    num_scenarios: int = 50
    """Held-out scenarios N. N times T times L requests are sent."""
    seed: int = 0
    """Seed of the scenarios and rewards, and of the seeds that are sent."""
    num_rollouts: int = 1
    """Dialogues L about each scenario; the first one is evaluated, the others are there to be exported."""
    export: Path | None = None
    """File for kept dialogues, as chat JSONL: of every scenario those of lowest regret."""
    k: int = 1
    """How many of every scenario are kept."""
    max_invalid: int | None = 0
    """Dialogues with more answers that name no arm are not kept."""
    endpoint: _Endpoint = dataclasses.field(default_factory=Endpoint)


@dataclasses.dataclass(frozen=True)
class ApiTrainArguments:
    """The outer loop for a model behind a chat endpoint that can be tuned: it plays, the dialogues of lowest regret of
    every scenario are kept, a job tunes it on them, and the new model plays.

    Everything is written to --out as it comes. A run that was killed, or whose job failed, goes on with --resume.
    """

    model: tyro.conf.Positional[str]
    """`api:` and the name of the first model at the server."""
    out: Path | None = None
    """Directory for the run (required)."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run in --out; also with more iterations or budget."""
    num_iterations: int = 4
    """How often a model is tuned."""
    num_scenarios: int = 32
    """Scenarios M of an iteration. M times L times T requests are sent in each."""
    num_rollouts: int = 8
    """Dialogues L about each scenario."""
    k: int = 2
    """How many of these are kept."""
    max_invalid: int | None = 0
    """Dialogues with more answers that name no arm are not kept."""
    shared_reward_noise: tyro.conf.FlagCreatePairsOff[bool] = False
    """The dialogues about a scenario see the same reward noise."""
    seed: int = 0
    """Seed of the scenarios and rewards, and of the seeds that are sent."""
    poll_seconds: float = 20.0
    """Seconds between two looks at a job."""
    patience: float = 86_400.0
    """Seconds that a job is waited for."""
    endpoint: _Endpoint = dataclasses.field(default_factory=Endpoint)


def evaluate(argv: list[str]) -> int:
    """Evaluates a model behind a chat endpoint."""
    arguments = parse(ApiEvaluateArguments, "evaluate", argv)
    endpoint, model, out = arguments.endpoint, _model(arguments.model), _out(arguments.out, "evaluate")
    shared: dict[str, Any] = {name: getattr(arguments, name) for name in ("num_scenarios", "seed", "num_rollouts")}
    settings = EvaluationSettings(**shared, reasoning=endpoint.reasoning, wording=endpoint.wording)
    require(1 <= arguments.k <= settings.num_rollouts, f"k={arguments.k}", "1 to num_rollouts", "--k 1")
    client, problem = endpoint.client(model), endpoint.problem()
    tellings, budget = endpoint.tellings(problem), endpoint.budget
    with writable(out, files=list(filter(None, [arguments.export]))):
        done = evaluate_model(
            client,
            problem,
            tellings,
            make_baselines(problem),
            settings,
            out,
            budget=budget,
            resume=arguments.resume,
            progress=_Progress().show,
        )
    title = (
        f"{model} on {endpoint.preset}, K={problem.num_arms}, T={problem.horizon}, {settings.num_scenarios} scenarios"
    )
    print_summary(summarize(done.dataset), title, done.dataset.attrs)
    answers = done.played.invalid.size * problem.horizon
    print(f"answers that named no arm: {done.played.num_invalid} of {answers}")
    if cut := int(done.played.cut.sum()):
        print(f"{cut} of these were cut off at --max-tokens {endpoint.max_tokens}: what they begin with does not count")
    print(f"spent in {out}: {_spent(done.played.totals)}")
    print(f"dataset: {done.path}")
    if arguments.export is not None:
        _export(arguments, done)
    return 0


def _export(arguments: ApiEvaluateArguments, done: ApiEvaluation) -> None:
    options: Any = {"invalid": done.played.invalid, "max_invalid": arguments.max_invalid}
    kept = lowest_regret(done.regret, arguments.num_rollouts, arguments.k, **options)
    if not kept:
        got = f"no dialogue with at most max_invalid={arguments.max_invalid} answers that name no arm"
        raise RunError(f"{got}: nothing was exported; try a larger --max-invalid")
    assert arguments.export is not None
    number = write_examples(arguments.export, done.played.dialogues, kept)
    print(f"exported: {number} of {len(done.regret)} dialogues to {arguments.export}")


def train(argv: list[str]) -> int:
    """Trains a model behind a chat endpoint."""
    arguments = parse(ApiTrainArguments, "train", argv)
    endpoint, model, out = arguments.endpoint, _model(arguments.model), _out(arguments.out, "train")
    fields = {field.name for field in dataclasses.fields(LoopSettings)} - {"reasoning", "wording"}
    own: dict[str, Any] = {name: getattr(arguments, name) for name in fields}
    settings = LoopSettings(**own, reasoning=endpoint.reasoning, wording=endpoint.wording)
    client, problem = endpoint.client(model), endpoint.problem()
    tellings, budget = endpoint.tellings(problem), endpoint.budget
    provider = OpenAIProvider(endpoint.base_url, max_retries=endpoint.max_retries)
    options: dict[str, Any] = {"budget": budget, "resume": arguments.resume}
    note = ProgressReporter().note
    with writable(out):
        state = run_loop(client, provider, problem, tellings, settings, out, note=note, **options)
    _print_history(state, f"{model} on {endpoint.preset}, K={problem.num_arms}, T={problem.horizon}")
    print(f"last model: {state.model}")
    return 0


def _print_history(state: LoopState, title: str) -> None:
    """A row for every iteration."""
    table = Table(title=title)
    columns = {"iteration": "d", "model": "", "regret": ".3f", "kept_regret": ".3f", "kept": "d", "invalid": "d"}
    columns |= {"requests": "d", "tokens": "d"}
    for name in columns:
        told = {"requests": "requests so far", "tokens": "tokens so far"}.get(name, name.replace("_", " "))
        table.add_column(told, justify="left" if name == "model" else "right")
    for row in state.history:
        table.add_row(*(f"{row[name]:{form}}" for name, form in columns.items()))
    Console(highlight=False, width=120).print(table, soft_wrap=True, markup=False)


def _model(word: str) -> str:
    name = word.removeprefix(API)
    require(bool(name.strip()), f"{word!r} without a name", "the name of a model at the server", f"{API}toy")
    return name


def _out(out: Path | None, command: str) -> Path:
    if out is None:
        raise ConfigError(f"got no --out, need a directory for what is paid for; try --out runs/api-{command}")
    return out


def _spent(totals: Totals) -> str:
    lost = f" and {totals.lost} whose answers were lost" if totals.lost else ""
    return (
        f"{totals.requests} requests{lost}, {totals.prompt_tokens} tokens of prompts and {totals.completion_tokens} of "
        "answers"
    )


class _Progress:
    """Lines on standard error, about twenty in all."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, done: int, total: int) -> None:
        """Says how many answers there are, now and then."""
        share = 20 * done // total
        if share > self._shown:
            self._shown = share
            print(f"{done} of {total} answers", file=sys.stderr, flush=True)
