"""Renews the leases of claims for as long as their items are worked on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import LeaseLostError, RagcrawlDynamoError

__all__ = ["LeaseKeeper"]

logger = logging.getLogger(__name__)

# A lease is renewed after one of so many parts, so that two more renewals can fail.
_PARTS = 3


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """How long leases last, and how many seconds before its end a lease is given up."""

    seconds: float
    margin: float


class RenewsLeases(Protocol):
    """What a lease keeper needs of a frontier."""

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
        """See Frontier."""
        ...


class LeaseKeeper:
    """Renews the leases of the claims that it holds. Get it by `Frontier.keeper`, and use it in `async with`.

    It is for those who call the methods of the frontier themselves; a `Worker` has one of its own. A claim
    that was ended is dropped without a call.
    """

    def __init__(
        self,
        queue: RenewsLeases,
        clock: Clock,
        lease: LeaseSettings,
        on_lost: Callable[[Claim, str], object],
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._lease = lease
        self._on_lost = on_lost
        self._held: dict[str, Claim] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Starts to renew leases."""
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops renewing leases; nothing is released."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def held(self) -> list[Claim]:
        """The claims whose leases it renews, in the order in which they came."""
        return [claim for claim in self._held.values() if not claim.ended]

    def hold(self, claims: Iterable[Claim]) -> None:
        """Renews the leases of these claims too."""
        self._held.update((claim.token, claim) for claim in claims)

    def let_go(self, claim: Claim) -> None:
        """Stops renewing the lease of a claim."""
        self._held.pop(claim.token, None)

    async def _keep(self) -> None:
        renewed_after = self._lease.seconds / _PARTS
        while True:
            await self._clock.sleep(min(renewed_after / 2, 1.0))
            try:
                await self._renew_aging(renewed_after)
            except Exception:  # without this task every lease would lapse
                logger.exception("the renewal of leases goes on after an error")

    async def _renew_aging(self, renewed_after: float) -> None:
        """Renews leases that are old enough, and gives up those that could not be renewed in time."""
        now = self._clock.monotonic()
        for claim in [claim for claim in self._held.values() if claim.ended]:
            self.let_go(claim)
        aging = [claim for claim in self.held if claim.deadline - now < self._lease.seconds - renewed_after]
        if aging:
            await self._renew(aging)
        now = self._clock.monotonic()
        for claim in self.held:
            if claim.deadline - self._lease.margin <= now:
                self._lose(claim, "its lease could not be renewed in time")

    async def _renew(self, claims: list[Claim]) -> None:
        # A request that hangs must not keep from giving the leases up in time.
        soonest = min(claim.deadline for claim in claims) - self._lease.margin - self._clock.monotonic()
        try:
            async with asyncio.timeout(max(0.05, soonest)):
                await self._queue.renew(claims, self._lease.seconds)
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
        try:
            self._on_lost(claim, why)
        except Exception:  # the caller's code, of which nothing is known
            logger.exception("on_lost failed for item %s", claim.item.item_id)
