"""Renews the leases of claims while their items are worked on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from ragcrawl_dynamo._frontier.arguments import check_lease
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.errors import LeaseLostError, RagcrawlDynamoError

__all__ = ["LeaseKeeper"]

logger = logging.getLogger(__name__)

# Seconds between two looks at the leases, at least.
_SHORTEST_PAUSE = 0.01

# A lease is renewed after a third of its time, so that two renewals can fail before it ends.
_PARTS = 3


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """How leases are kept.

    Attributes:
        seconds: How many seconds a lease lasts.
        margin: How many seconds before its end a lease that could not be renewed counts as lost.
    """

    seconds: float
    margin: float


def lease_settings(seconds: float, max_clock_skew: float) -> LeaseSettings:
    """Checks how long leases last. A lease counts as lost `max_clock_skew` before its end.

    Raises:
        InvalidArgumentError: A lease is too short to be renewed, or too long.
    """
    return LeaseSettings(check_lease(seconds, max_clock_skew), max_clock_skew)


class RenewsLeases(Protocol):
    """The part of a frontier that a lease keeper uses."""

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
        """See Frontier.renew."""
        ...


class LeaseKeeper:
    """Renews the leases of the claims that it holds. Get it by `Frontier.keeper`, and use it in `async with`.

    Use it if you call the methods of the frontier yourself. A `Worker` has a lease keeper of its own. A claim
    that you have settled is dropped automatically.
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
        # The tokens of claims whose leases are being renewed.
        self._renewing: set[str] = set()
        self._renewals = Tasks()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Starts to renew leases."""
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops renewing leases. It releases no claim."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._renewals.cancel()

    @property
    def held(self) -> list[Claim]:
        """The claims whose leases it renews, in the order in which they were added."""
        return [claim for claim in self._held.values() if not claim.ended]

    def hold(self, claims: Iterable[Claim]) -> None:
        """Starts to renew the leases of claims.

        Args:
            claims: Claims of the frontier that made this keeper.
        """
        self._held.update((claim.token, claim) for claim in claims)

    def let_go(self, claim: Claim) -> None:
        """Stops renewing the lease of a claim. A claim that it does not hold is ignored.

        Args:
            claim: The claim.
        """
        self._held.pop(claim.token, None)

    async def _keep(self) -> None:
        renewed_after = self._lease.seconds / _PARTS
        while True:
            await self._clock.sleep(self._pause(renewed_after))
            self._renew_aging(renewed_after)

    def _pause(self, renewed_after: float) -> float:
        """Returns the seconds until leases are looked at next: no later than the first one counts as lost."""
        now = self._clock.monotonic()
        left = [claim.deadline - self._lease.margin - now for claim in self.held]
        return max(_SHORTEST_PAUSE, min([renewed_after / 2, 1.0, *left]))

    def _renew_aging(self, renewed_after: float) -> None:
        """Starts to renew leases that are old enough."""
        now = self._clock.monotonic()
        self._drop_ended()
        # A host whose writes are throttled must not hold the renewals of others.
        by_host: dict[str, list[Claim]] = {}
        for claim in self.held:
            is_aging = claim.deadline - now < self._lease.seconds - renewed_after
            if is_aging and claim.token not in self._renewing:
                by_host.setdefault(claim.item.domain, []).append(claim)
        for claims in by_host.values():
            self._renewing.update(claim.token for claim in claims)
            self._renewals.spawn(self._keep_leases(claims))

    async def _keep_leases(self, claims: list[Claim]) -> None:
        """Renews leases, and drops those that could not be renewed in time."""
        try:
            await self._renew(claims)
        except Exception:  # an unexpected error must not end the renewals
            logger.exception("%d leases could not be renewed; this is tried again", len(claims))
        finally:
            self._renewing.difference_update(claim.token for claim in claims)
        self._drop_ended()
        now = self._clock.monotonic()
        for claim in claims:
            if claim.token in self._held and claim.deadline - self._lease.margin <= now:
                self._lose(claim, "its lease could not be renewed in time")

    async def _renew(self, claims: list[Claim]) -> None:
        # A request that hangs must not prevent `on_lost` from being called in time.
        seconds = min(claim.deadline for claim in claims) - self._lease.margin - self._clock.monotonic()
        try:
            async with asyncio.timeout(max(0.05, seconds)):
                await self._queue.renew(claims, self._lease.seconds)
        except LeaseLostError as error:
            for claim in error.claims:
                if claim.ended and not claim.lost:
                    # Its worker has settled it meanwhile.
                    self.let_go(claim)
                elif claim.token in self._held:
                    self._lose(claim, "its lease was lost")
        except (RagcrawlDynamoError, TimeoutError) as error:
            reason = str(error) or "DynamoDB did not answer before they count as lost"
            logger.warning("%d leases could not be renewed: %s", len(claims), reason)

    def _drop_ended(self) -> None:
        """Drops claims that have ended; a renewal that got no answer in time may have found one lost."""
        for claim in [claim for claim in self._held.values() if claim.ended]:
            if claim.lost:
                self._lose(claim, "its lease was lost")
            else:
                self.let_go(claim)

    def _lose(self, claim: Claim, why: str) -> None:
        self.let_go(claim)
        try:
            self._on_lost(claim, why)
        except Exception:  # on_lost is the caller's code and may raise anything
            logger.exception("on_lost raised an error for %s", claim.item.url)
