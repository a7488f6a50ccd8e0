"""The frontier of a run, as users call it: a queue of links that many workers share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from types import NoneType
from typing import Unpack

from ragcrawl_dynamo._frontier import arguments
from ragcrawl_dynamo._frontier.arguments import LinkFields, error_text
from ragcrawl_dynamo._frontier.claim import AddResult, Claim, HostStatus, check_claim, check_claims
from ragcrawl_dynamo._frontier.counts import FrontierStats
from ragcrawl_dynamo._frontier.handling import OUTAGE_SECONDS, WorkerSettings
from ragcrawl_dynamo._frontier.lease_issuer import LeaseTerms
from ragcrawl_dynamo._frontier.lease_keeper import LeaseKeeper, lease_settings
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo._frontier.worker import Worker
from ragcrawl_dynamo._schema.records import RunState
from ragcrawl_dynamo._utils.validation import check_callable, check_kind
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

__all__ = ["Frontier"]


class Frontier:
    """The queue of one run. Get it by `backend.frontier(site_id, run_id)`; tasks of a process share it.

    Each normalized URL is added once, as one item. A worker *claims* the item with a lease. It then settles
    the claim: it *completes*, *fails*, *skips*, *releases* or *puts back* the item. An item whose lease
    expires can be claimed again; the fencing token of the newer lease then refuses every write under the
    older one.

    Items are claimed by priority, the highest first. Among hosts whose best items have one priority, the host
    that this process served longest ago comes next; within a host, the oldest item. Several processes share
    the hosts, and see an urgent item of another one's share within about a second.

    Besides the errors that a method names, every method may raise:

    - `BackendStateError`: the backend is not open, or it is open in another event loop.
    - `ServiceError`: DynamoDB refused the request or cannot be reached.
    - `InvalidInputError`: an argument has a wrong type, or is outside its limits.
    - `AmbiguousIdError`: another site uses the run id.
    """

    def __init__(self, queue: RunQueue) -> None:
        self._queue = queue
        self._max_skew = queue.run.config.frontier_max_clock_skew

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._queue.run.run_id

    @property
    def site_id(self) -> str:
        """The id of the run's site."""
        return self._queue.run.site_id

    def link(self, url: str, **fields: Unpack[LinkFields]) -> FrontierItem:
        """Builds an item for `add`, for links that differ in more than their URL. It stores nothing.

        Args:
            url: The URL.
            **fields: Fields of FrontierItem: `depth`, `referrer_url`, `priority`, `scheduled_at`,
                `discovered_at`, `unique_key`, `payload`. The queue sets all other fields in `add`.
        """
        return arguments.link_item({**fields, "url": url, "run_id": self.run_id, "site_id": self.site_id})

    async def add(
        self,
        links: Iterable[str | FrontierItem],
        *,
        depth: int = 0,
        referrer_url: str | None = None,
        priority: float | None = None,
        not_before: datetime | None = None,
        base_url: str | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> list[AddResult]:
        """Adds links that are new to the run. Links that the run has already keep their state and priority.

        Args:
            links: Any number of absolute http(s) URLs, or of items that `link` built; they are added in
                batches of 1,000. URLs with one normal form are one link (`normalize_url`). The queue sets the
                normalized URL and the hash of an item by its URL, and its id by its `unique_key` or else by
                its normalized URL. The first four options below do not apply to items.
            depth: How many links the pages are away from the seeds of the run.
            referrer_url: The URL of the page with the links.
            priority: Items with a higher priority are claimed sooner; 0 by default.
            not_before: The items cannot be claimed before this moment.
            base_url: The URL of the page with the links: relative links are resolved against it.
            on_progress: Called after each batch with the number of links so far.

        Returns:
            A result for each link, in the order of `links`. The result of a link that cannot be stored has
            the error: it is no absolute http(s) URL, or its host has `host_max_items` links.

        Raises:
            ClockSkewError: See `claim`; nothing was added.
            FrontierCancelledError: The run was cancelled; nothing was added.
            InvalidArgumentError: An option is outside its limits, or the run has another `normalize` or
                `politeness_key`; nothing was added.
            PartialBatchError: Some links may not have been added; the error has them. All other links were
                added. Repeating the call is safe.

        If the process is killed during the call, links may be stored that no worker knows of. They are
        crawled before the run is finished. If that was proven meanwhile, they wait for `add` or `recount`.
        """
        check_callable("on_progress", on_progress)
        common = arguments.check_link_options(depth, referrer_url, priority, not_before)
        links = arguments.check_links(links)
        return await self._queue.add(links, common, arguments.check_base_url(base_url), on_progress)

    async def get(self, key: str) -> FrontierItem | None:
        """Returns one item, or None. The read is strongly consistent.

        Args:
            key: The `unique_key` of the item if it has one, or else its URL, in any spelling.
        """
        check_kind("key", key, str)
        return await self._queue.get(key)

    async def claim(
        self,
        limit: int = 10,
        *,
        lease_seconds: float = 60.0,
        worker_id: str | None = None,
        wait_seconds: float = 0.0,
        until_finished: bool = False,
    ) -> list[Claim]:
        """Leases up to `limit` items to the caller. No other worker gets an item before its lease has ended.

        An item that another process has just added is claimable once the index shows it, usually well within
        a second. Concurrent calls in one process are coalesced. The delay and the maximum in flight of a
        host hold over all processes together. Items of a host that DynamoDB throttles wait for a moment.

        Args:
            limit: The largest number of claims, from 1 to 10,000.
            lease_seconds: How many seconds each lease lasts: more than twice `frontier_max_clock_skew`, up to
                7 days. `renew` makes a lease last longer.
            worker_id: The name of the worker, stored with the items; up to 256 characters.
            wait_seconds: How many seconds to wait for the first item, up to a year; 0 does not wait.
            until_finished: Whether to wait no longer once a process has found that the run is finished.

        Returns:
            The claims. There is none if no item is claimable, or if the run is paused.

        Raises:
            FrontierCancelledError: The run was cancelled.
            ThrottledError: DynamoDB throttles all items that could be claimed, or does not answer in time.
            ClockSkewError: By the times in DynamoDB's answers, this machine's clock is off by more than half
                of `frontier_max_clock_skew`.
        """
        owner = arguments.check_claim_options(limit, worker_id, wait_seconds)
        terms = LeaseTerms(arguments.check_lease(lease_seconds, self._max_skew), owner)
        return await self._queue.claim([terms] * limit, wait_seconds, until_finished=until_finished)

    async def renew(self, claims: Claim | Sequence[Claim], lease_seconds: float) -> None:
        """Renews leases. A lease that has expired is renewed too, if no other worker has claimed its item.

        Args:
            claims: One claim or several.
            lease_seconds: In how many seconds from now the leases end; the limits are those of `claim`. A
                lease that ends later keeps its end.

        Raises:
            ClockSkewError: See `claim`.
            LeaseLostError: Some leases were lost; the error has their claims. All other leases were renewed.
            PartialBatchError: It is not known whether some leases were renewed; the error has their claims.
        """
        arguments.check_lease(lease_seconds, self._max_skew)
        await self._queue.renew(check_claims(claims, self.run_id), lease_seconds)

    async def complete(
        self, claims: Claim | Sequence[Claim], *, payload: str | None = None, also: Iterable[str] = ()
    ) -> None:
        """Completes items whose work is done. Repeating the call is safe.

        Args:
            claims: One claim or several.
            payload: A text that replaces the payload of the items; None keeps it.
            also: More URLs whose work is done, such as the target of a redirect: their items are completed
                after those of the claims, except those that others have leased. A URL that is new to the run
                is added as completed.

        Raises:
            InvalidInputError: The payload or a URL is not valid; nothing was changed.
            LeaseLostError: Some leases were lost; the error has their claims. All other claims were settled,
                and the items of `also` were left.
            PartialBatchError: It is not known whether some items were completed; the error has their claims,
                or the items themselves if they are of `also`.
        """
        check_kind("payload", payload, str, NoneType)
        await self._queue.complete(check_claims(claims, self.run_id), payload, also)

    async def fail(
        self,
        claim: Claim,
        error: str | BaseException,
        *,
        retry_in: float | None = None,
        retry: bool = True,
        payload: str | None = None,
    ) -> bool:
        """Settles a claim whose work failed: the item can be claimed again later, or becomes a dead letter.

        Args:
            claim: The claim.
            error: The error. It is stored with the item, shortened to 1,000 characters.
            retry_in: Seconds until the next attempt, up to a year. By default `frontier_retry_delay`, doubled
                for each failed attempt before, up to `frontier_max_retry_delay`; then shortened at random by
                up to a half.
            retry: False makes the item a dead letter at once, as `frontier_max_attempts` failures do.
            payload: A text that replaces the payload of the item; None keeps it.

        Returns:
            Whether the item will be tried again; it is a dead letter otherwise.

        Raises:
            LeaseLostError: The lease was lost; nothing was changed.
            PartialBatchError: It is not known whether the item was changed.
        """
        check_kind("payload", payload, str, NoneType)
        delay, text = arguments.check_delay("retry_in", retry_in), error_text(error)
        claim = check_claim(claim, self.run_id)
        return await self._queue.fail(claim, text, delay, retry=retry, payload=payload)

    async def skip(self, claim: Claim, reason: str) -> None:
        """Settles a claim whose item is not crawled on purpose. Its status becomes SKIPPED, which is final.

        Args:
            claim: The claim.
            reason: Stored as the item's `last_error`, shortened to 1,000 characters.

        Raises:
            LeaseLostError: The lease was lost; nothing was changed.
            PartialBatchError: It is not known whether the item was changed.
        """
        await self._queue.end(check_claims(claim, self.run_id), FrontierStatus.SKIPPED, error_text(reason))

    async def release(self, claims: Claim | Sequence[Claim]) -> None:
        """Gives items back to the queue unchanged. They can be claimed at once; no failure is counted.

        Raises:
            LeaseLostError: Some leases were lost; the error has their claims. All other items were released.
            PartialBatchError: It is not known whether some items were released; the error has their claims.
        """
        await self._queue.release(check_claims(claims, self.run_id))

    async def put_back(
        self, claim: Claim, *, payload: str | None = None, priority: float | None = None, to_end: bool = False
    ) -> None:
        """Gives an item back to the queue with new values. It can be claimed at once; no failure is counted.

        `claim.item` has the new values once they are stored.

        Args:
            claim: The claim.
            payload: A text that replaces the payload of the item; None keeps it.
            priority: The new priority of the item; None keeps it.
            to_end: Puts the item behind all items of its priority: its `discovered_at` becomes now.

        Raises:
            InvalidInputError: The payload cannot be stored; nothing was changed.
            LeaseLostError: The lease was lost; nothing was changed.
            PartialBatchError: It is not known whether the item was changed.
        """
        fields = arguments.check_new_values(payload, priority)
        await self._queue.put_back(check_claim(claim, self.run_id), fields, to_end=to_end)

    def worker(
        self,
        *,
        concurrency: int = 1,
        lease_seconds: float = 60.0,
        worker_id: str | None = None,
        grace_seconds: float | None = 10.0,
        outage_seconds: float = OUTAGE_SECONDS,
    ) -> Worker:
        """Returns a new worker. It claims items, runs a handler for each one, and settles the claims.

        Args:
            concurrency: How many handlers run at the same time, from 1 to 10,000.
            lease_seconds: How many seconds a lease lasts; the limits are those of `claim`. The worker renews
                it after a third of that time.
            worker_id: The name of the worker, stored with the items; up to 256 characters.
            grace_seconds: How many seconds handlers may run after SIGTERM. Then their items are released and
                the process exits. None does not handle the signal.
            outage_seconds: After an outage of this many seconds, `run` raises the last error.
        """
        lease = lease_settings(lease_seconds, self._max_skew)
        settings = WorkerSettings.checked(concurrency, lease, worker_id, grace_seconds, outage_seconds)
        return Worker(self, self._queue.run.clock, settings)

    def keeper(self, on_lost: Callable[[Claim, str], object], *, lease_seconds: float = 60.0) -> LeaseKeeper:
        """Returns a new lease keeper. It renews the leases of claims when you do not use `worker`.

        Args:
            on_lost: Called with a claim and a reason if the lease was lost, or not renewed until
                `frontier_max_clock_skew` before its end: stop the work. Its errors are logged.
            lease_seconds: As for `worker`. The keeper renews a lease after a third of that time.
        """
        lease = lease_settings(lease_seconds, self._max_skew)
        return LeaseKeeper(self, self._queue.run.clock, lease, on_lost)

    async def is_finished(self) -> bool:
        """Returns whether every item is completed, failed or skipped. True is proven, never assumed.

        A cancelled run is finished when none of its items is leased. A claim that was under way when the run
        was cancelled can get a lease after that.

        As long as items are open that an earlier call has seen, the call takes two requests. Otherwise it
        looks for open items in the index: one request for each of `frontier_buckets`, and for each of up to
        32 hosts. When the index shows none, it reads all items and hosts of the run, strongly consistent (one
        read unit for 4 KB), with a temporary file for counts. The proof is stored until an item is added.
        """
        return await self._queue.is_finished()

    async def stats(self, host: str | None = None) -> FrontierStats:
        """Returns how many items are in which state. The cost does not grow with the number of items.

        The counts lag: another process adds its updates about a second later. Those of the last second of a
        killed process are never added. `recount` and the proof that the run is finished correct the counts.

        Args:
            host: Counts items of this host only, as for `set_host_delay`; None for all.
        """
        return await self._queue.stats(host)

    def iter_hosts(self) -> AsyncIterator[HostStatus]:
        """Iterates over the hosts of the run, ordered by name. Their counts lag like those of `stats`."""
        return self._queue.iterate_hosts()

    async def recount(self) -> FrontierStats:
        """Reads and counts all items of the run (one read unit for 4 KB), and corrects the counts of `stats`.

        The result is exact if nothing updates the items meanwhile. An update that another process has
        not counted yet is counted twice, until the next recount or the end of the run. An item of a finished
        run that is open after all (see `add`) is queued, and the run is no longer finished.
        """
        return await self._queue.recount()

    async def state(self) -> RunState:
        """Returns the state of the run: running, paused or cancelled. The read is strongly consistent."""
        return await self._queue.state()

    async def pause(self) -> None:
        """Pauses the run: the next claim of every worker returns no items. Held claims can be settled.

        Raises:
            FrontierCancelledError: The run was cancelled, which is final.
        """
        await self._queue.set_state(RunState.PAUSED)

    async def resume(self) -> None:
        """Resumes a paused run: items can be claimed again. It raises the same error as `pause`."""
        await self._queue.set_state(RunState.RUNNING)

    async def cancel(self) -> None:
        """Cancels the run for good: claims and `add` raise. It is finished once held claims are settled."""
        await self._queue.set_state(RunState.CANCELLED)

    async def requeue_failed(self) -> int:
        """Puts dead letters back into the queue with all their attempts; returns how many. Reads the run.

        Raises:
            PartialBatchError: Some items may not have been put back; the error has them. Repeat the call.
        """
        return await self._queue.requeue_failed()

    async def set_host_delay(self, host: str, seconds: float) -> None:
        """Sets how many seconds lie at least between the beginnings of two leases of a host's items.

        The delay is stored with the run. All workers keep it from their next claim on. It holds for the
        beginnings of leases, `started_at`, by clocks that differ by `frontier_max_clock_skew` at most.

        Args:
            host: Any spelling of the host, with its port if that is not 80 or 443, or of one of its URLs.
                With a `politeness_key`, a URL, or the key itself.
            seconds: The delay, from 0 to a year; 0 means no delay.
        """
        await self._queue.limiter.set(host, arguments.check_limit(seconds=seconds))

    async def set_host_max_in_flight(self, host: str, count: int | None) -> None:
        """Sets how many leases of a host's items may run at the same time. It is stored like the delay.

        Leases that began before do not count. One whose worker died counts until its item can be claimed.

        Args:
            host: The host name, as for `set_host_delay`.
            count: The number of leases, from 1 to 1,000; None for any number.
        """
        await self._queue.limiter.set(host, arguments.check_limit(count=count))

    async def block_host(self, host: str, until: datetime) -> None:
        """Blocks a host, as for `set_host_delay`, until a moment. A moment in the past unblocks it."""
        await self._queue.limiter.set(host, arguments.check_limit(until=until))
