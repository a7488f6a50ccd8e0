"""The frontier of a run, as users call it: a queue of links that any number of workers share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from ragcrawl_dynamo._frontier.arguments import (
    MAX_CLAIMED,
    MAX_IN_FLIGHT,
    check_lease,
    check_link_options,
    error_text,
    link_item,
)
from ragcrawl_dynamo._frontier.claim import AddResult, Claim, HostStatus
from ragcrawl_dynamo._frontier.counters import FrontierStats
from ragcrawl_dynamo._frontier.lease_issuer import LeaseTerms
from ragcrawl_dynamo._frontier.lease_keeper import LeaseKeeper, LeaseSettings
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo._frontier.worker import Worker, WorkerSettings
from ragcrawl_dynamo._schema.keys import host_name
from ragcrawl_dynamo._schema.records import RunState
from ragcrawl_dynamo._utils.validation import (
    MAX_DELAY_SECONDS,
    check_count,
    check_kind,
    check_moment,
    check_name,
    check_seconds,
    check_several,
)
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

__all__ = ["Frontier"]


class Frontier:
    """The queue of one run. Get it by `backend.frontier(run_id, site_id)`; tasks of a process share it.

    A link is added once for each normalized URL. A worker *claims* the link's item with a lease, and
    *completes*, *fails*, *skips* or *releases* it under the lease's token. An item whose lease expires goes
    back into the queue. Of one host's items those of the highest priority are claimed first, then the oldest:
    exactly so within a shard (a host with up to some sixty links has one), nearly so over several shards.
    Hosts take turns.

    Every method may raise `BackendStateError` and `ServiceError`, as the backend's methods do.
    """

    def __init__(self, queue: RunQueue) -> None:
        self._queue = queue
        self._config = queue.run.config

    @property
    def run_id(self) -> str:
        """The run."""
        return self._queue.run.run_id

    @property
    def site_id(self) -> str:
        """The site of the run."""
        return self._queue.run.site_id

    def link(self, url: str, **fields: Any) -> FrontierItem:
        """Makes an item for `add`, where links differ in more than their URL.

        Args:
            url: The URL.
            **fields: Fields of FrontierItem that `add` takes: `depth`, `referrer_url`, `priority`,
                `scheduled_at`, `discovered_at`, `unique_key`, `payload`.

        Raises:
            InvalidArgumentError: There is no such field, or its value is of the wrong kind.
        """
        return link_item({**fields, "url": url, "run_id": self.run_id, "site_id": self.site_id})

    async def add(
        self,
        links: Iterable[str | FrontierItem],
        *,
        depth: int = 0,
        referrer_url: str | None = None,
        priority: float | None = None,
        not_before: datetime | None = None,
    ) -> list[AddResult]:
        """Adds links that are new to the run; those that are known keep their state.

        Args:
            links: URLs, or items that `link` made, for what differs from link to link. The queue sets an
                item's hash and normalized URL by its URL, and its id by its `unique_key` if it has one. The
                options below do not apply to items.
            depth: Links away from the run's seeds.
            referrer_url: The page on which they were found.
            priority: Higher is claimed sooner; 0 by default.
            not_before: They cannot be claimed before.

        Returns:
            A result for each link, in their order. A link that cannot be stored carries the error.

        Raises:
            InvalidArgumentError: An option is outside its limits, or an item is of another run or site.
            PartialBatchError: Some links may not have been added; it carries them. All others were. Repeating
                the call is safe.
        """
        several = check_several("links", links, object)
        return await self._queue.add(several, check_link_options(depth, referrer_url, priority, not_before))

    async def get(self, key: str) -> FrontierItem | None:
        """Returns an item by its URL, or by its `unique_key` if it has one; strongly consistent."""
        check_kind("key", key, str)
        return await self._queue.get(key)

    async def claim(
        self,
        limit: int = 10,
        *,
        lease_seconds: float = 60.0,
        worker_id: str | None = None,
        wait_seconds: float = 0.0,
    ) -> list[Claim]:
        """Claims up to `limit` items, each of which this worker alone holds until its lease ends.

        Concurrent calls in one process are coalesced. Where a host has a delay or a maximum in flight, no
        more of its items are claimed than that allows, over all processes together.

        Args:
            limit: How many at most, up to 10,000.
            lease_seconds: How long each lease lasts; `renew` makes it last longer.
            worker_id: Name of the worker, kept with the item.
            wait_seconds: How long to wait for the first item; none by default.

        Returns:
            The claims; none if nothing is claimable now, or the run is paused.

        Raises:
            FrontierCancelledError: The run was cancelled.
            ClockSkewError: This machine's clock is provably off by more than `frontier_max_clock_skew`.
            InvalidArgumentError: An argument is outside its limits.
        """
        check_count("limit", limit, MAX_CLAIMED)
        check_lease(lease_seconds, self._config.frontier_max_clock_skew)
        check_seconds("wait_seconds", wait_seconds, MAX_DELAY_SECONDS)
        terms = LeaseTerms(lease_seconds, check_name("worker_id", worker_id))
        return await self._queue.claim([terms] * limit, wait_seconds)

    async def renew(self, claims: Claim | Sequence[Claim], lease_seconds: float) -> None:
        """Makes leases end `lease_seconds` from now; also one that expired, if nobody took its item over.

        Raises:
            LeaseLostError: Some leases were lost; it carries those claims. All others were renewed.
            PartialBatchError: Whether some were renewed is unknown.
        """
        check_lease(lease_seconds, self._config.frontier_max_clock_skew)
        await self._queue.renew(self._checked(claims), lease_seconds)

    async def complete(self, claims: Claim | Sequence[Claim], *, payload: str | None = None) -> None:
        """Completes items whose work is done. Repeating it is safe.

        Args:
            claims: The claims.
            payload: Replaces their payload; None leaves it.

        Raises:
            InvalidInputError: The payload cannot be stored.
            LeaseLostError: Some leases were lost; it carries those claims. All others were completed.
            PartialBatchError: Whether some were completed is unknown.
        """
        if payload is not None:
            check_kind("payload", payload, str)
        await self._queue.end(self._checked(claims), FrontierStatus.COMPLETED, None, payload)

    async def fail(
        self,
        claim: Claim,
        error: str | BaseException,
        *,
        retry_in: float | None = None,
        retry: bool = True,
    ) -> None:
        """Ends a lease whose work failed: the item is retried later, or given up as a dead letter.

        Args:
            claim: The claim.
            error: What went wrong; kept with the item, shortened to 1,000 characters.
            retry_in: Seconds until the next attempt. By default `frontier_retry_delay`, doubled for each
                attempt before, up to `frontier_max_retry_delay`, and shortened at random by up to a half.
            retry: False gives the item up at once. It is given up in any case after `frontier_max_attempts`.

        Raises:
            LeaseLostError: The lease was lost; nothing was changed.
            PartialBatchError: Whether it was ended is unknown.
        """
        if retry_in is not None:
            check_seconds("retry_in", retry_in, MAX_DELAY_SECONDS)
        await self._queue.fail(self._checked_one(claim), error_text(error), retry_in, retry=retry)

    async def skip(self, claim: Claim, reason: str) -> None:
        """Ends an item that is not to be crawled; the reason is kept as its last error.

        Raises:
            LeaseLostError: The lease was lost; nothing was changed.
            PartialBatchError: Whether it was ended is unknown.
        """
        await self._queue.end(self._checked(claim), FrontierStatus.SKIPPED, error_text(reason))

    async def release(self, claims: Claim | Sequence[Claim]) -> None:
        """Gives items back as they were; they can be claimed at once.

        Raises:
            LeaseLostError: Some leases were lost; it carries those claims. All others were released.
            PartialBatchError: Whether some were released is unknown.
        """
        await self._queue.release(self._checked(claims))

    async def put_back(
        self,
        claim: Claim,
        *,
        payload: str | None = None,
        priority: float | None = None,
        to_end: bool = False,
    ) -> None:
        """Gives an item back with changes; it can be claimed at once.

        `claim.item` has the changes once they are stored.

        Args:
            claim: The claim.
            payload: Replaces its payload; None leaves it.
            priority: Higher is claimed sooner; None leaves it.
            to_end: Put it behind all items of its priority: its `discovered_at` is now.

        Raises:
            InvalidInputError: The payload cannot be stored.
            LeaseLostError: The lease was lost; nothing was changed.
            PartialBatchError: Whether it was changed is unknown.
        """
        changed: dict[str, Any] = {}
        if payload is not None:
            check_kind("payload", payload, str)
            changed["payload"] = payload
        if priority is not None:
            changed["priority"] = check_link_options(0, None, priority, None)["priority"]
        await self._queue.put_back(self._checked_one(claim), changed, to_end=to_end)

    def worker(
        self,
        *,
        concurrency: int = 1,
        lease_seconds: float = 60.0,
        worker_id: str | None = None,
        grace_seconds: float | None = 10.0,
    ) -> Worker:
        """Makes a worker that claims items, renews their leases while a handler runs, and ends them.

        Args:
            concurrency: Handlers that run at a time, up to 10,000.
            lease_seconds: How long a lease lasts before it is renewed or lost; it is renewed after a third.
            worker_id: Name of the worker, kept with the items.
            grace_seconds: How long handlers may go on after SIGTERM, before their items are released and the
                process exits; None leaves the signal alone.

        Raises:
            InvalidArgumentError: An argument is outside its limits.
        """
        check_count("concurrency", concurrency, MAX_CLAIMED)
        lease = self._lease_settings(lease_seconds)
        check_name("worker_id", worker_id)
        if grace_seconds is not None:
            check_seconds("grace_seconds", grace_seconds, MAX_DELAY_SECONDS)
        settings = WorkerSettings(concurrency, lease, worker_id, grace_seconds)
        return Worker(self, self._queue.run.clock, settings)

    def keeper(self, on_lost: Callable[[Claim, str], object], *, lease_seconds: float = 60.0) -> LeaseKeeper:
        """Makes an object that renews the leases of claims, for those who do not use `worker`.

        Args:
            on_lost: Called with a claim whose lease was lost, or could not be renewed until shortly before
                other workers may take the item over, and why. The work on it must stop. What it raises is
                logged.
            lease_seconds: How long a lease lasts before it is renewed or lost; it is renewed after a third.

        Raises:
            InvalidArgumentError: An argument is outside its limits.
        """
        return LeaseKeeper(self, self._queue.run.clock, self._lease_settings(lease_seconds), on_lost)

    async def is_finished(self) -> bool:
        """Returns whether every item is completed, failed or skipped; never True while one is not.

        While the queue's index shows open items, that is one request or a few. Once it shows none, the run's
        items are read, strongly consistent (a read unit for 4 KB), and the answer is kept until something
        is added; only then is it True.
        """
        return await self._queue.is_finished()

    async def stats(self, host: str | None = None) -> FrontierStats:
        """Returns how many items of the run, or of one host, are in which state: one read for any number.

        Changes of other processes are counted a second later, as long as these go on using the frontier. A
        killed process takes its last second's changes with it. `recount` corrects that, and so does the
        proof that the run is finished: the counts of a finished run are exact.
        """
        return await self._queue.stats(host)

    def iter_hosts(self) -> AsyncIterator[HostStatus]:
        """Iterates over the hosts of the run by name, with limits and counts; counts lag like `stats`."""
        return self._queue.iterate_hosts()

    async def recount(self) -> FrontierStats:
        """Counts all items by reading them (a read unit for 4 KB), and corrects the counters by that.

        The result is exact while nothing else changes the run's items. A change that another process made in
        the last second, and has not counted yet, is counted twice until the next recount, or until the run is
        proven finished.
        """
        return await self._queue.recount()

    async def state(self) -> RunState:
        """Returns whether the run's frontier hands out items; strongly consistent."""
        return await self._queue.state()

    async def pause(self) -> None:
        """Stops all claims, from each worker's next claim on; running leases can be ended.

        Raises:
            FrontierCancelledError: The run was cancelled.
        """
        await self._queue.set_state(RunState.PAUSED)

    async def resume(self) -> None:
        """Ends a pause.

        Raises:
            FrontierCancelledError: The run was cancelled.
        """
        await self._queue.set_state(RunState.RUNNING)

    async def cancel(self) -> None:
        """Ends the run for good: every worker's next claim raises. Running leases can be ended."""
        await self._queue.set_state(RunState.CANCELLED)

    async def requeue_failed(self) -> int:
        """Makes all dead letters claimable again, with all their attempts; reads the whole run.

        Returns:
            How many.

        Raises:
            PartialBatchError: Some may not have been; it carries them. Repeat the call.
        """
        return await self._queue.requeue_failed()

    async def set_host_delay(self, host: str, seconds: float) -> None:
        """Sets the least number of seconds between the beginnings of two leases of a host's items.

        It is durable, and all workers keep it from their next claim on; 0 ends it. It holds for the moments
        at which leases begin (`started_at`), by clocks that differ by `frontier_max_clock_skew` at most; a
        handler begins later, by its own latency.

        Args:
            host: Host name as in `FrontierItem.domain`: in lower case, with the port where the URL has one.
            seconds: 0 to a year.
        """
        check_seconds("seconds", seconds, MAX_DELAY_SECONDS)
        host_name(host)
        await self._queue.set_limits(host, delay=float(seconds))

    async def set_host_max_in_flight(self, host: str, count: int | None) -> None:
        """Sets how many leases a host may have at a time; None for any number. Durable, like the delay.

        Leases from before are not counted. One whose worker died is counted until it can be taken over.
        """
        if count is not None:
            check_count("count", count, MAX_IN_FLIGHT)
        host_name(host)
        await self._queue.set_limits(host, max_in_flight=count)

    async def block_host(self, host: str, until: datetime) -> None:
        """Lets no lease of a host's items begin before a moment; one in the past ends a block. Durable."""
        moment = check_moment("until", until)
        host_name(host)
        await self._queue.set_limits(host, blocked_until=moment)

    def _checked(self, claims: Claim | Sequence[Claim]) -> list[Claim]:
        several = [claims] if isinstance(claims, Claim) else check_several("claims", claims, Claim)
        if not all(claim.item.run_id == self.run_id for claim in several):
            raise InvalidArgumentError("claims", f"must be claims of run {self.run_id!r}, from its claim()")
        return several

    def _checked_one(self, claim: Claim) -> Claim:
        check_kind("claim", claim, Claim)
        return self._checked(claim)[0]

    def _lease_settings(self, lease_seconds: float) -> LeaseSettings:
        margin = self._config.frontier_max_clock_skew
        return LeaseSettings(check_lease(lease_seconds, margin), margin)
