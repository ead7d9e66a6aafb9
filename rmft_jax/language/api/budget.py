"""A budget of requests and tokens that is never passed."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from rmft_jax.config.checks import require_count
from rmft_jax.language.api.ledger import Ledger
from rmft_jax.running.files import RunError


class BudgetSpentError(RunError):
    """The next request could pass the budget. Everything paid for is kept."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a folder of answers may cost, everything in it counted; None: no limit.

    max_requests: requests, with those whose answers were lost.
    max_total_tokens: tokens of prompts and answers.
    """

    max_requests: int | None = None
    max_total_tokens: int | None = None

    def __post_init__(self):
        for name, suggestion in (("max_requests", 1000), ("max_total_tokens", 1_000_000)):
            if (value := getattr(self, name)) is not None:
                require_count(value, name, 0, suggestion)


class Purse:
    """Holds back what requests under way may cost, at most, so that no answer passes the budget.

    Args:
      ledger: of what was paid.
      budget: None: no limit.
    """

    def __init__(self, ledger: Ledger, budget: Budget | None = None):
        self._ledger, self._budget = ledger, budget or Budget()
        self._requests = self._tokens = 0
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def reserved(self, tokens: int) -> AsyncIterator[None]:
        """Room for one request of at most so many tokens; waits while those under way might need it.

        Raises:
          BudgetSpentError: if there is none.
        """
        async with self._changed:
            while short := self._short(tokens):
                if not self._requests:
                    raise BudgetSpentError(short)
                await self._changed.wait()
            self._requests, self._tokens = self._requests + 1, self._tokens + tokens
        try:
            yield
        finally:
            self._requests, self._tokens = self._requests - 1, self._tokens - tokens
            async with self._changed:
                self._changed.notify_all()

    def _short(self, tokens: int) -> str:
        """What says that there is no room for one more request; nothing if there is."""
        spent, budget = self._ledger.totals, self._budget
        if budget.max_requests is not None and spent.all_requests + self._requests + 1 > budget.max_requests:
            name, limit = "max_requests", budget.max_requests
        elif budget.max_total_tokens is not None and spent.all_tokens + self._tokens + tokens > budget.max_total_tokens:
            name, limit = "max_total_tokens", budget.max_total_tokens
        else:
            return ""
        return (
            f"the budget {name}={limit} allows no further request ({spent.all_requests} requests and "
            f"{spent.all_tokens} tokens spent, the next may take {tokens}); all answers are kept in "
            f"{self._ledger.folder}: to go on, run the same again with a larger {name}"
        )
