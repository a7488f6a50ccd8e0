"""The frontier of a run: a queue of links that any number of workers on any number of machines share."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from ragcrawl_dynamo._commit.run_stats import FOLDED, Fold
from ragcrawl_dynamo._dynamodb.conditional_writes import Applied, ConditionalUpdate, ConditionalWrites, Failed
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier.arguments import check_lease, check_link_options
from ragcrawl_dynamo._frontier.claim import AddResult, Claim, HostStatus, LeaseObserver
from ragcrawl_dynamo._frontier.claim_coalescing import Rounds
from ragcrawl_dynamo._frontier.counters import Counters, FrontierStats, stats_of
from ragcrawl_dynamo._frontier.enqueue import Adder
from ragcrawl_dynamo._frontier.host_store import HostStore, Mutation
from ragcrawl_dynamo._frontier.item_store import QueueStore, payload_of
from ragcrawl_dynamo._frontier.lease_keeper import LeaseKeeper
from ragcrawl_dynamo._frontier.membership import Members
from ragcrawl_dynamo._frontier.notifier import Waker
from ragcrawl_dynamo._frontier.scheduler import Claimer, LeaseTerms
from ragcrawl_dynamo._frontier.settlement import Finisher
from ragcrawl_dynamo._frontier.termination import Completion
from ragcrawl_dynamo._frontier.worker import Worker
from ragcrawl_dynamo._schema.keys import host_name, run_partition, site_partition
from ragcrawl_dynamo._schema.records import RunControl, RunState
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.clock import Clock, SystemClock
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo._utils.urls import link_id, normalize_url
from ragcrawl_dynamo._utils.validation import (
    MAX_DELAY_SECONDS,
    check_count,
    check_kind,
    check_moment,
    check_name,
    check_seconds,
    check_several,
    first_of,
)
from ragcrawl_dynamo.errors import (
    ClockSkewError,
    InvalidArgumentError,
    PartialBatchError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

__all__ = ["Frontier"]

logger = logging.getLogger(__name__)

# A waiting claim looks for what other processes added at least every so many seconds.
_POLL_SECONDS = 1.0

# Dead letters that are put back by one call.
_REQUEUED_AT_ONCE = 100

# What is kept of an error.
_ERROR_CHARACTERS = 1000


class Frontier:
    """The queue of one run. Get it by `backend.frontier(run_id, site_id)`; tasks of a process share it.

    An item is added once for each normalized URL. A worker *claims* it with a lease, and *completes*,
    *fails*, *skips* or *releases* it under the lease's token; an item whose lease ends without that goes back
    into the queue by itself. Of one host's items those of the highest priority are claimed first, then the
    oldest: exactly so within a shard (a host with up to some sixty links has one), nearly so over several.
    Hosts take turns.

    Every method may raise `BackendStateError` and `ServiceError` as those of the backend do.
    """

    def __init__(
        self,
        gateway: Gateway,
        tables: Tables,
        writes: ConditionalWrites,
        run_id: str,
        site_id: str,
        *,
        host_delay: float = 0.0,
        host_max_in_flight: int | None = None,
        clock: Clock,
        on_lease_lost: LeaseObserver,
    ) -> None:
        """See `StorageBackend.frontier`."""
        run_partition(run_id)
        site_partition(site_id)
        check_seconds("host_delay", host_delay, MAX_DELAY_SECONDS)
        if host_max_in_flight is not None:
            check_count("host_max_in_flight", host_max_in_flight, 1000)
        self.run_id = run_id
        self.site_id = site_id
        self.host_limits = (host_delay, host_max_in_flight)
        self._gateway = gateway
        self._config = config = gateway.config
        self._clock = clock
        control = RunControl(
            run=run_id, site_id=site_id, host_delay=host_delay, host_max_in_flight=host_max_in_flight
        )
        hosts = HostStore(gateway, tables, writes, control)
        queue = QueueStore(gateway, tables.frontier, writes, run_id)
        counters = Counters(gateway, tables.frontier, writes, run_id, site_id)
        members = Members(gateway, tables.frontier, run_id, site_id)
        claimer = Claimer(hosts, queue, counters, members, clock, config)
        waker = Waker(hosts, claimer)
        tasks = Tasks()
        self._hosts = hosts
        self._queue = queue
        self._counters = counters
        self._members = members
        self._claimer = claimer
        self._waker = waker
        self._tasks = tasks
        self._adder = Adder(
            run_id, site_id, queue, counters, claimer, waker, tasks, clock, config.frontier_seen_cache
        )
        self._finisher = Finisher(hosts, queue, counters, claimer, waker, on_lease_lost)
        self._completion = Completion(hosts, queue, counters, waker, clock)
        self._rounds = Rounds(claimer, tasks, clock, self.release)

    def link(self, url: str, **fields: Any) -> FrontierItem:
        """An item for `add`, where links differ in more than their URL.

        Args:
            url: The URL.
            **fields: Those of FrontierItem that `add` takes: `depth`, `referrer_url`, `priority`,
                `scheduled_at`, `discovered_at`, `unique_key`, `payload`.

        Raises:
            InvalidArgumentError: There is no such field, or its value is of the wrong kind.
        """
        try:
            # What is left open here the queue sets.
            return FrontierItem.model_validate(
                {
                    **dict.fromkeys(("item_id", "normalized_url", "url_hash", "domain"), ""),
                    **fields,
                    "url": url,
                    "run_id": self.run_id,
                    "site_id": self.site_id,
                }
            )
        except ValidationError as error:
            raise InvalidArgumentError(*first_of(error)) from error

    async def add(
        self,
        links: Iterable[str | FrontierItem],
        *,
        depth: int = 0,
        referrer_url: str | None = None,
        priority: float | None = None,
        not_before: datetime | None = None,
    ) -> list[AddResult]:
        """Adds links that are new to the run; those that are known keep the state that they have.

        Args:
            links: URLs, or items as `link` makes them, for what differs from link to link. An item's id,
                hash and normalized URL are set by its URL, the id by its `unique_key` if it has one; the
                options below do not apply to it.
            depth: Links away from the run's seeds.
            referrer_url: Where they were found.
            priority: Higher is claimed sooner; 0 by default.
            not_before: They can not be claimed before.

        Returns:
            A result for each link, in their order. A link that can not be stored carries the error.

        Raises:
            InvalidArgumentError: An option is outside its limits, or an item is of another run or site.
            PartialBatchError: Some links may not have been added; it carries them. All others were. Repeating
                the call is safe.
        """
        several = check_several("links", links, object)
        common = check_link_options(depth, referrer_url, priority, not_before)
        await self._waker.wake_left()
        results = await self._adder.add(several, common)
        await self._flush_if_due()
        return results

    async def get(self, key: str) -> FrontierItem | None:
        """An item by its URL, or by its `unique_key` if it has one; strongly consistent."""
        check_kind("key", key, str)
        item_ids = list(dict.fromkeys((link_id(key), link_id(normalize_url(key)))))
        items = await self._queue.read(item_ids)
        return next((items[each] for each in item_ids if each in items), None)

    async def claim(
        self,
        limit: int = 10,
        *,
        lease_seconds: float = 60.0,
        worker_id: str | None = None,
        wait_seconds: float = 0.0,
    ) -> list[Claim]:
        """Up to `limit` items, each held by this worker alone until its lease ends.

        Concurrent calls in one process share their requests. Where a host has a delay or a maximum in flight,
        no more of its items are claimed than that allows, whoever else claims.

        Args:
            limit: How many at most.
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
        check_count("limit", limit, 10_000)
        check_lease(lease_seconds, self._config.frontier_max_clock_skew)
        check_seconds("wait_seconds", wait_seconds, MAX_DELAY_SECONDS)
        terms = [LeaseTerms(lease_seconds, check_name("worker_id", worker_id))] * limit
        deadline = self._clock.monotonic() + wait_seconds
        while True:
            self._waker.changed.clear()
            self._check_clock()
            await self._waker.wake_left()
            claims, next_at = await self._rounds.claim(terms)
            await self._flush_if_due()
            left = deadline - self._clock.monotonic()
            if claims or left <= 0:
                return claims
            pause = _POLL_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 # spreads load
            if next_at is not None:
                pause = min(pause, max(0.001, (next_at - self._clock.now()).total_seconds()))
            await self._wait_for_change(min(pause, left))

    async def renew(self, claims: Claim | Sequence[Claim], lease_seconds: float) -> None:
        """Makes leases end `lease_seconds` from now; also one that ended, if nobody took its item over.

        Raises:
            LeaseLostError: Some leases were lost; it carries those claims. All others were renewed.
            PartialBatchError: Whether some were renewed is unknown.
        """
        check_lease(lease_seconds, self._config.frontier_max_clock_skew)
        ends_at = self._clock.now() + timedelta(seconds=lease_seconds)
        free_at = ends_at + timedelta(seconds=self._config.frontier_max_clock_skew)
        deadline = self._clock.monotonic() + lease_seconds
        await self._tasks.uninterrupted(
            self._finisher.renew(self._listed(claims), ends_at, free_at, deadline)
        )

    async def complete(self, claims: Claim | Sequence[Claim], *, payload: str | None = None) -> None:
        """Finishes items whose work is done. Repeating it is safe.

        Args:
            claims: The claims.
            payload: What replaces their payload; None leaves it.

        Raises:
            InvalidInputError: The payload can not be stored.
            LeaseLostError: Some leases were lost; it carries those claims. All others were completed.
            PartialBatchError: Whether some were completed is unknown.
        """
        await self._end(self._listed(claims), FrontierStatus.COMPLETED, None, payload)

    async def fail(
        self,
        claim: Claim,
        error: str | BaseException,
        *,
        retry_in: float | None = None,
        retry: bool = True,
    ) -> None:
        """Ends a lease whose work failed: the item is tried again later, or given up as a dead letter.

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
        check_kind("claim", claim, Claim)
        self._listed(claim)
        text = _error_text(error)
        if not retry or claim.item.retry_count + 1 >= self._config.frontier_max_attempts:
            await self._end([claim], FrontierStatus.FAILED, text)
            return
        delay = self._backoff(claim.item.retry_count) if retry_in is None else retry_in
        at = self._clock.now() + timedelta(seconds=delay)
        change = self._queue.retry(claim.item, at, text)
        await self._tasks.uninterrupted(self._finisher.put_back([claim], [change], "delayed", at))
        await self._flush_if_due()

    async def skip(self, claim: Claim, reason: str) -> None:
        """Finishes an item that is not to be crawled; the reason is kept as its last error.

        Raises:
            LeaseLostError: The lease was lost; nothing was changed.
            PartialBatchError: Whether it was ended is unknown.
        """
        await self._end(self._listed(claim), FrontierStatus.SKIPPED, _error_text(reason))

    async def release(self, claims: Claim | Sequence[Claim]) -> None:
        """Gives items back as they were; they can be claimed at once.

        Raises:
            LeaseLostError: Some leases were lost; it carries those claims. All others were released.
            PartialBatchError: Whether some were released is unknown.
        """
        which = self._listed(claims)
        changes = [self._queue.release(each.item) for each in which]
        await self._tasks.uninterrupted(self._finisher.put_back(which, changes, "pending", self._clock.now()))
        await self._flush_if_due()

    async def put_back(
        self,
        claim: Claim,
        *,
        payload: str | None = None,
        priority: float | None = None,
        to_end: bool = False,
    ) -> None:
        """Gives an item back changed; it can be claimed at once.

        Args:
            claim: The claim.
            payload: What replaces its payload; None leaves it.
            priority: Higher is claimed sooner; None leaves it.
            to_end: Behind all that has its priority, not before what is younger than it: `discovered_at` is
                now.

        Raises:
            InvalidInputError: The payload can not be stored.
            LeaseLostError: The lease was lost; nothing was changed.
            PartialBatchError: Whether it was changed is unknown.
        """
        check_kind("claim", claim, Claim)
        self._listed(claim)
        changed: dict[str, Any] = {}
        if payload is not None:
            changed |= self._payload(claim, payload)
        if priority is not None:
            changed["priority"] = check_link_options(0, None, priority, None)["priority"]
        if to_end:
            changed["discovered_at"] = self._adder.next_moment()
        item = claim.item.model_copy(update=changed)
        change = self._queue.release(item, changed)
        claim.item = item
        await self._tasks.uninterrupted(
            self._finisher.put_back([claim], [change], "pending", self._clock.now())
        )
        await self._flush_if_due()

    def completion(self, claim: Claim, outcome: Item) -> ConditionalUpdate:
        """The write that completes an item as part of a transaction, with what became of its page."""
        self._listed(claim)
        return self._queue.finish(claim.item, FrontierStatus.COMPLETED, self._clock.now(), outcome=outcome)

    async def completed_elsewhere(self, claim: Claim, *, counted: bool) -> None:
        """Notes that a transaction has completed an item; `counted` if an earlier call did."""
        await self._tasks.uninterrupted(self._finisher.ended_elsewhere(claim, "completed", counted=counted))
        await self._flush_if_due()

    def worker(
        self,
        *,
        concurrency: int = 1,
        lease_seconds: float = 60.0,
        worker_id: str | None = None,
        grace_seconds: float | None = 10.0,
    ) -> Worker:
        """A worker that claims items, keeps their leases while a handler runs, and finishes them.

        Args:
            concurrency: Handlers that run at a time.
            lease_seconds: How long a lease lasts before it is renewed or lost; a third of it is the pace of
                renewals.
            worker_id: Name of the worker, kept with the items.
            grace_seconds: How long handlers may go on after SIGTERM, before their items are released and the
                process exits; None leaves the signal alone.

        Raises:
            InvalidArgumentError: An argument is outside its limits.
        """
        check_count("concurrency", concurrency, 10_000)
        check_lease(lease_seconds, self._config.frontier_max_clock_skew)
        margin = self._config.frontier_max_clock_skew
        check_name("worker_id", worker_id)
        if grace_seconds is not None:
            check_seconds("grace_seconds", grace_seconds, MAX_DELAY_SECONDS)
        return Worker(self, self._clock, concurrency, lease_seconds, margin, worker_id, grace_seconds)

    def keeper(self, on_lost: Callable[[Claim, str], object], *, lease_seconds: float = 60.0) -> LeaseKeeper:
        """What renews the leases of claims that are finished by the verbs here, not by a worker.

        Args:
            on_lost: Called with a claim whose lease was lost, or could not be renewed until shortly before
                others may take the item over, and why: what works on it must stop.
            lease_seconds: How long a lease lasts before it is renewed or lost; a third of it is the pace.

        Raises:
            InvalidArgumentError: An argument is outside its limits.
        """
        margin = self._config.frontier_max_clock_skew
        check_lease(lease_seconds, margin)
        return LeaseKeeper(self, self._clock, lease_seconds, margin, on_lost)

    async def is_finished(self) -> bool:
        """Whether every item is completed, failed or skipped; never true while one is not.

        While the queue's index shows open items, that is one request or a few. Once it shows none, the run's
        items are read, strongly consistent (a read unit for 4 KB), and the answer is kept until something
        is added; only then is it True.
        """
        await self._waker.wake_left()
        await self._flush()
        finished = await self._completion.is_finished()
        await self._flush()
        return finished

    async def stats(self, host: str | None = None) -> FrontierStats:
        """How many items are in which state, of the run or of one host: one read, however many there are.

        Other processes' changes are counted a second later, as long as these go on using the frontier. A
        killed process takes its last second's changes with it, which `recount` puts right, and so does the
        proof that the run is finished: the counts of a finished run are exact.
        """
        await self._flush()
        if host is None:
            return await self._completion.stats()
        return FrontierStats.estimated(stats_of(await self._hosts.get_item(host) or {}))

    async def iter_hosts(self) -> AsyncIterator[HostStatus]:
        """All hosts of the run by name, with their limits and counts; these lag like `stats`."""
        await self._flush()
        now = self._clock.now()
        async for record, item in self._hosts.iterate():
            yield HostStatus(
                host=record.host,
                delay=record.delay,
                max_in_flight=record.max_in_flight,
                in_flight=sum(expiry > now for expiry in record.slots.values()),
                blocked_until=record.blocked_until,
                next_at=record.next_at,
                stats=FrontierStats.estimated(stats_of(item)),
            )

    async def recount(self) -> FrontierStats:
        """Counts all items by reading them (a read unit for 4 KB), and corrects the counters by that.

        Exact while nothing else changes the run's items. A change that another process has made in the last
        second, and not counted yet, is taken for a missing one: it is then in the counters twice until the
        next recount, or until the run is proven finished.
        """
        await self._flush()
        exact = await self._completion.recount()
        await self._flush()
        return exact

    async def fold(self) -> Fold:
        """Adds up the outcomes of all items, by reading them (a read unit for 4 KB)."""
        fold = Fold()
        async with aclosing(self._queue.scan(attributes=FOLDED)) as pages:
            async for items in pages:
                fold.add(items)
        return fold

    async def state(self) -> RunState:
        """Whether the run's frontier hands out items; strongly consistent."""
        control, _ = await self._hosts.read()
        return RunState.RUNNING if control is None else control.state

    async def pause(self) -> None:
        """Lets no worker claim anything from its next claim on; leases that run can be finished.

        Raises:
            FrontierCancelledError: The run was cancelled.
        """
        await self._hosts.set_state(RunState.PAUSED)

    async def resume(self) -> None:
        """Ends a pause.

        Raises:
            FrontierCancelledError: The run was cancelled.
        """
        await self._hosts.set_state(RunState.RUNNING)
        self._waker.look_again()

    async def cancel(self) -> None:
        """Ends the run for good: every worker's next claim raises. Leases that run can be finished."""
        await self._hosts.set_state(RunState.CANCELLED)
        self._waker.look_again()

    async def requeue_failed(self) -> int:
        """Makes all dead letters claimable again, with all their attempts; reads the whole run.

        Returns:
            How many.

        Raises:
            PartialBatchError: Some may not have been; it carries them. Repeat the call.
        """
        requeued = 0
        failures: list[tuple[Any, RagcrawlDynamoError]] = []
        async with aclosing(self._queue.scan(FrontierStatus.FAILED)) as pages:
            async for page in pages:
                items = [self._queue.decode(each) for each in page]
                for i in range(0, len(items), _REQUEUED_AT_ONCE):
                    some = items[i : i + _REQUEUED_AT_ONCE]
                    done, failed = await self._tasks.uninterrupted(self._requeue(some))
                    requeued += done
                    failures += failed
        await self._flush_if_due()
        if failures:
            raise PartialBatchError(requeued, failures) from failures[0][1]
        return requeued

    async def set_host_delay(self, host: str, seconds: float) -> None:
        """Lets at least that many seconds pass between the beginnings of two leases of a host's items.

        Durable, and kept by all workers from their next claim on; 0 ends it. What it promises are the moments
        at which leases begin (`started_at`), by clocks that differ by `frontier_max_clock_skew` at most; a
        handler begins its own latency later.

        Args:
            host: Host name as in `FrontierItem.domain`: in lower case, with the port where the URL has one.
            seconds: 0 to a year.
        """
        check_seconds("seconds", seconds, MAX_DELAY_SECONDS)
        await self._limit(host, lambda record: record.limited(delay=float(seconds)))

    async def set_host_max_in_flight(self, host: str, count: int | None) -> None:
        """Lets a host have that many leases at a time; None for any number. Durable, like the delay.

        Leases from before are not counted. One whose worker died is counted until it can be taken over.
        """
        if count is not None:
            check_count("count", count, 1000)
        await self._limit(host, lambda record: record.limited(max_in_flight=count))

    async def block_host(self, host: str, until: datetime) -> None:
        """Lets no lease of a host's items begin before a moment; one in the past ends a block. Durable."""
        moment = check_moment("until", until)
        await self._limit(host, lambda record: record.limited(blocked_until=moment))

    @property
    def claim_statements(self) -> tuple[int, int]:
        """Conditional writes with which this process tried to claim items, and how many of them succeeded."""
        return self._claimer.tried, self._claimer.granted

    def forget(self) -> None:
        """Drops what this process remembers of the run's items, after they were deleted."""
        self._adder.forget()
        self._counters.forget()
        self._completion.forget()
        self._waker.forget()

    async def close(self) -> None:
        """Lets what is under way end, and writes the last counts; the backend's `close` does it."""
        await self._tasks.join()
        try:
            async with asyncio.timeout(self._config.health_timeout):
                await self._flush()
                await self._members.leave()
        except (RagcrawlDynamoError, TimeoutError) as error:
            logger.warning(
                "run %r: counts or the end of this process are not recorded: %s", self.run_id, error
            )
        await self._tasks.cancel()

    def _listed(self, claims: Claim | Sequence[Claim]) -> list[Claim]:
        which = [claims] if isinstance(claims, Claim) else check_several("claims", claims, Claim)
        if not all(each.item.run_id == self.run_id for each in which):
            raise InvalidArgumentError("claims", f"must be claims of run {self.run_id!r}, from its claim()")
        return which

    async def _end(
        self, claims: list[Claim], status: FrontierStatus, error: str | None, payload: str | None = None
    ) -> None:
        now = self._clock.now()
        new = None
        if payload is not None:
            for each in claims:
                self._payload(each, payload)
            new = payload_of(payload)
        changes = [self._queue.finish(each.item, status, now, error, new) for each in claims]
        await self._tasks.uninterrupted(self._finisher.end(claims, changes, status))
        await self._flush_if_due()

    def _payload(self, claim: Claim, payload: str) -> dict[str, str]:
        """A new payload, as fields of the item.

        Raises:
            InvalidInputError: The item can not be stored with it.
        """
        check_kind("payload", payload, str)
        changed = {"payload": payload}
        self._queue.encode(claim.item.model_copy(update=changed), 1)
        return changed

    def _backoff(self, failures: int) -> float:
        config = self._config
        # Beyond 60 doublings a float of seconds has long reached any bound.
        growing = config.frontier_retry_delay * 2.0 ** min(failures, 60)
        bound = min(config.frontier_max_retry_delay, growing)
        return bound * random.uniform(0.5, 1.0)  # noqa: S311 # spreads load

    async def _requeue(
        self, items: list[FrontierItem]
    ) -> tuple[int, list[tuple[FrontierItem, RagcrawlDynamoError]]]:
        outcomes = await self._queue.run([self._queue.requeue(each, secrets.token_hex(8)) for each in items])
        hosts = set()
        failures = []
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Failed):
                failures.append((item, outcome.error))
            elif isinstance(outcome, Applied):
                self._counters.move(item.domain, "failed", "pending")
            hosts.add(item.domain)
        await self._waker.wake(dict.fromkeys(hosts, (self._clock.now(), 1)))
        self._waker.look_again(hosts)
        return sum(isinstance(each, Applied) for each in outcomes), failures

    async def _limit(self, host: str, mutation: Mutation) -> None:
        host_name(host)
        await self._hosts.ensure(host)
        await self._tasks.uninterrupted(self._hosts.change({host: mutation}))
        self._waker.look_again()

    async def _flush_if_due(self) -> None:
        if self._counters.is_due(self._clock.monotonic()):
            await self._flush()

    async def _flush(self) -> None:
        await self._tasks.uninterrupted(self._counters.flush())

    async def _wait_for_change(self, seconds: float) -> None:
        """Waits, but not longer than until something changes in this process."""
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        change = asyncio.ensure_future(self._waker.changed.wait())
        try:
            await asyncio.wait((sleep, change), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            change.cancel()
            await asyncio.gather(sleep, change, return_exceptions=True)

    def _check_clock(self) -> None:
        bound = self._config.frontier_max_clock_skew
        offset = self._gateway.server_clock.offset
        if abs(offset) > bound and isinstance(self._clock, SystemClock):
            raise ClockSkewError(offset, bound)


def _error_text(error: str | BaseException) -> str:
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return text[:_ERROR_CHARACTERS].encode("utf-8", "replace").decode()
