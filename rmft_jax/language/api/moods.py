"""How a server of this machine behaves, for tests of whoever asks it."""

import dataclasses

from rmft_jax.config.checks import require, require_count


@dataclasses.dataclass(frozen=True)
class Moods:
    """What goes wrong, by the number of a chat request, counted from 1; 0: never.

    The first that applies is what happens.

    busy_every: these are answered 429.
    retry_after: seconds that those are told to wait.
    fail_every: these are answered 500.
    break_every: the connection is closed in the middle of these answers.
    slow_every: these are answered after a while.
    slow_seconds: how long that is.
    failing_jobs: the first jobs, that many, fail.
    redirect: where every request is sent to instead; nothing: nowhere.

    Raises:
      ConfigError: if a number is none that it can be.
    """

    busy_every: int = 0
    retry_after: float = 0.0
    fail_every: int = 0
    break_every: int = 0
    slow_every: int = 0
    slow_seconds: float = 0.0
    failing_jobs: int = 0
    redirect: str = ""

    def __post_init__(self):
        for name in ("busy_every", "fail_every", "break_every", "slow_every", "failing_jobs"):
            require_count(getattr(self, name), name, 0, 0)
        for name in ("retry_after", "slow_seconds"):
            value = getattr(self, name)
            require(0 <= value < 1e6, f"{name}={value}", "seconds of at least 0", f"{name}=1")

    def of(self, number: int) -> str:
        """What befalls a request: `busy`, `fail`, `break`, `slow` or nothing."""
        for mood in ("busy", "fail", "break", "slow"):
            every = getattr(self, f"{mood}_every")
            if every and number % every == 0:
                return mood
        return ""


@dataclasses.dataclass
class Counts:
    """What a server has done.

    requests: chat requests that came.
    answered: of these, with an answer.
    broken: of these, with half an answer.
    refused: of these, with an error.
    prompt_tokens, completion_tokens: of answers, whole or half.
    uploads: files taken.
    jobs: jobs started.
    paid: by digest of what was asked, how often it was answered.
    """

    requests: int = 0
    answered: int = 0
    broken: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uploads: int = 0
    jobs: int = 0
    paid: dict[str, int] = dataclasses.field(default_factory=dict)
