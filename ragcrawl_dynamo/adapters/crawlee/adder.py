"""Adds the requests of concurrent handlers to the frontier together."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeAlias

from ragcrawl_dynamo import AddResult, Frontier, FrontierItem, PartialBatchError
from ragcrawl_dynamo._utils.tasks import Tasks

logger: logging.Logger = logging.getLogger(__name__)

# The result of each item of a call; None if the item may not have been added.
Results: TypeAlias = "list[AddResult | None]"


class RequestAdder:
    """Adds items to the frontier. Items that come while a batch is in flight go into the next batch."""

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier
        self._waiting: list[tuple[list[FrontierItem], asyncio.Future[Results]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._tasks = Tasks()

    async def add(self, items: list[FrontierItem]) -> Results:
        """Adds items, and returns when they are stored.

        Raises:
            RagcrawlDynamoError: They could not be added.
        """
        if not items:
            return []
        results: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, results))
        if self._sending is None or self._sending.done():
            self._sending = self._tasks.spawn(self._send_waiting())
        return await results

    async def join(self) -> None:
        """Waits until everything is added."""
        await self._tasks.join()

    async def _send_waiting(self) -> None:
        while self._waiting:
            calls, self._waiting = self._waiting, []
            try:
                results = iter(await self._send([item for items, _ in calls for item in items]))
            except Exception as error:
                for _, future in calls:
                    if not future.done():
                        future.set_exception(error)
            else:
                for items, future in calls:
                    call_results = [next(results) for _ in items]
                    if not future.done():
                        future.set_result(call_results)

    async def _send(self, items: list[FrontierItem]) -> Results:
        try:
            return [*await self._frontier.add(items)]
        except PartialBatchError as error:
            logger.warning("%d requests may not have been added: %s", len(error.failures), error)
            failed = {item.unique_key for item, _ in error.failures}
        # All others were added: this call finds their results.
        results = iter(await self._frontier.add([item for item in items if item.unique_key not in failed]))
        return [None if item.unique_key in failed else next(results) for item in items]
