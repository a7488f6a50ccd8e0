"""Leases kept for as long as somebody works on their items."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import LeaseLostError, RagcrawlDynamoError

__all__ = ["LeaseKeeper"]

logger = logging.getLogger(__name__)

# Parts of a lease: it is renewed after one, so that two more renewals can fail.
_PARTS = 3


class Renewing(Protocol):
    """What a keeper needs of a frontier."""

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
        """See Frontier."""
        ...


class LeaseKeeper:
    """Renews the leases of the claims that it holds. Get it by `Frontier.keeper`, and use it in `async with`.

    It is for those who call the verbs of the frontier themselves; a `Worker` has one of its own. A claim
    that was ended is let go by itself.
    """

    def __init__(
        self,
        queue: Renewing,
        clock: Clock,
        lease_seconds: float,
        margin: float,
        on_lost: Callable[[Claim, str], object],
    ) -> None:
        """`margin` is how many seconds before its end a lease is given up."""
        self._queue = queue
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._margin = margin
        self._on_lost = on_lost
        self._held: dict[str, Claim] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begins to keep leases."""
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps them no longer; nothing is released."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def held(self) -> list[Claim]:
        """The claims that it keeps, in the order in which they came."""
        return [each for each in self._held.values() if not each.ended]

    def hold(self, claims: Iterable[Claim]) -> None:
        """Keeps the leases of these too."""
        self._held.update((each.token, each) for each in claims)

    def let_go(self, claim: Claim) -> None:
        """Keeps it no longer."""
        self._held.pop(claim.token, None)

    async def _keep(self) -> None:
        pace = self._lease_seconds / _PARTS
        while True:
            await self._clock.sleep(min(pace / 2, 1.0))
            now = self._clock.monotonic()
            for claim in [each for each in self._held.values() if each.ended]:
                self.let_go(claim)
            aging = [each for each in self.held if each.deadline - now < self._lease_seconds - pace]
            if aging:
                await self._renew(aging)
            now = self._clock.monotonic()
            for claim in self.held:
                if claim.deadline - self._margin <= now:
                    self._lose(claim, "its lease could not be renewed in time")

    async def _renew(self, claims: list[Claim]) -> None:
        # A request that hangs must not keep from giving the leases up in time.
        soonest = min(each.deadline for each in claims) - self._margin - self._clock.monotonic()
        try:
            async with asyncio.timeout(max(0.05, soonest)):
                await self._queue.renew(claims, self._lease_seconds)
        except LeaseLostError as error:
            for claim in error.claims:
                if claim.ended and not claim.lost:
                    # Finished by its worker meanwhile.
                    self.let_go(claim)
                elif claim.token in self._held:
                    self._lose(claim, "its lease was lost")
        except (RagcrawlDynamoError, TimeoutError) as error:
            logger.warning("%d leases could not be renewed: %s", len(claims), error)

    def _lose(self, claim: Claim, why: str) -> None:
        self.let_go(claim)
        self._on_lost(claim, why)
