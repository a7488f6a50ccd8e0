"""Puts dead letters back into the queue."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from typing import Any

from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.item_store import candidate_of
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.work import Work, WorkByHost
from ragcrawl_dynamo.errors import PartialBatchError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

# How many dead letters are put back by one batch of writes.
_AT_ONCE = 100


class DeadLetters:
    """The dead letters of one run."""

    def __init__(self, run: RunContext, notifier: Notifier) -> None:
        self._run = run
        self._notifier = notifier

    async def requeue(self) -> int:
        """Puts all dead letters back into the queue; returns how many.

        Raises:
            PartialBatchError: Some may not have been put back; the error has them.
        """
        run = self._run
        requeued = 0
        failures: list[tuple[Any, RagcrawlDynamoError]] = []
        async with aclosing(run.items.scan(FrontierStatus.FAILED)) as pages:
            async for page in pages:
                items = [run.items.decode(item) for item in page]
                for first in range(0, len(items), _AT_ONCE):
                    batch = items[first : first + _AT_ONCE]
                    count, failed = await run.tasks.uninterrupted(self._requeue(batch))
                    requeued += count
                    failures += failed
        if failures:
            raise PartialBatchError(requeued, failures)
        return requeued

    async def _requeue(
        self, items: list[FrontierItem]
    ) -> tuple[int, list[tuple[FrontierItem, RagcrawlDynamoError]]]:
        """Puts items back; returns how many were put back, and those that may not have been."""
        run = self._run
        outcomes = await run.items.run([run.items.requeue(item, secrets.token_hex(8)) for item in items])
        work = WorkByHost()
        failures = []
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Failed):
                failures.append((item, outcome.error))
            elif isinstance(outcome, Applied):
                run.counters.move(item.domain, "failed", "pending")
            work.note(item.domain, Work(candidate_of(item, None).order, is_changed=True))
        await self._notifier.announce(work)
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Applied):
                run.offer(candidate_of(item, None))
        return sum(isinstance(outcome, Applied) for outcome in outcomes), failures
