"""Provides a queue that hands out the claims of a test, and a worker on it, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from ragcrawl_dynamo import Claim, FrontierCancelledError, FrontierStatus, Worker, WorkSummary
from ragcrawl_dynamo._frontier.handling import WorkerSettings
from ragcrawl_dynamo._frontier.lease_keeper import LeaseSettings
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_item

LEASE = 30.0
MARGIN = 2.0
GRACE = 5.0
OUTAGE = 40.0


class ScriptedQueue:
    """Hands out claims, and records how they are settled."""

    def __init__(self, clock: ManualClock, count: int) -> None:
        self.clock = clock
        self.left = [make_item(f"i{i}", attempt=1, lease_token=f"t{i}") for i in range(count)]
        self.is_last_attempt = False
        self.done: list[tuple[str, str]] = []
        self.renewals: list[list[str]] = []
        self.renewal: BaseException | None = None
        self.is_cancelled = False
        self.claim_errors: list[Exception] = []
        self.waits: list[tuple[float, bool]] = []
        self.terms: set[tuple[float, str | None]] = set()
        self.errors: list[str | BaseException] = []
        self.settlement_errors: list[Exception] = []

    def claim_of(self, item: Any) -> Claim:
        ends_at = self.clock.now() + timedelta(seconds=LEASE)
        return Claim(item, "w", ends_at, deadline=self.clock.monotonic() + LEASE)

    async def claim(
        self,
        limit: int,
        *,
        lease_seconds: float,
        worker_id: str | None,
        wait_seconds: float,
        until_finished: bool,
    ) -> list[Claim]:
        await asyncio.sleep(0)
        self.waits.append((wait_seconds, until_finished))
        self.terms.add((lease_seconds, worker_id))
        if self.is_cancelled:
            raise FrontierCancelledError
        if self.claim_errors:
            raise self.claim_errors.pop(0)
        taken, self.left = self.left[:limit], self.left[limit:]
        if not taken:
            await self.clock.sleep(wait_seconds)
        return [self.claim_of(item) for item in taken]

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
        if self.renewal is not None:
            raise self.renewal
        self.renewals.append([claim.item.item_id for claim in claims])
        for claim in claims:
            claim.deadline = self.clock.monotonic() + lease_seconds

    async def complete(self, claims: Sequence[Claim]) -> None:
        self.note("completed", claims, FrontierStatus.COMPLETED)

    async def fail(self, claim: Claim, error: str | BaseException, *, retry: bool) -> bool:
        self.errors.append(error)
        if retry and not self.is_last_attempt:
            self.note(f"failed: {error}", [claim], FrontierStatus.PENDING)
            return True
        self.note(f"given up: {error}", [claim], FrontierStatus.FAILED)
        return False

    async def skip(self, claim: Claim, reason: str) -> None:
        self.note(f"skipped: {reason}", [claim], FrontierStatus.SKIPPED)

    async def release(self, claims: Sequence[Claim]) -> None:
        self.note("released", claims, FrontierStatus.PENDING)

    async def is_finished(self) -> bool:
        return not self.left

    def note(self, what: str, claims: Sequence[Claim], status: FrontierStatus) -> None:
        if self.settlement_errors:
            raise self.settlement_errors.pop(0)
        self.done += [(claim.item.item_id, what) for claim in claims]
        for claim in claims:
            claim.ended, claim.settled_as = True, status


@asynccontextmanager
async def working(
    queue: ScriptedQueue, concurrency: int = 2, *, grace: float | None = GRACE
) -> AsyncIterator[Worker]:
    settings = WorkerSettings(concurrency, LeaseSettings(LEASE, MARGIN), "w", grace, OUTAGE)
    async with Worker(queue, queue.clock, settings) as worker:
        yield worker


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def run_to_end(
    worker: Worker, handle: Callable[[Claim], Awaitable[object]], clock: ManualClock, **options: Any
) -> WorkSummary:
    running = asyncio.create_task(worker.run(handle, **options))
    for _ in range(200):
        await settle()
        if running.done():
            break
        clock.advance(1)
    return await running
