"""Composes the parts of a run's queue in one process, for `Frontier` and for commits."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate
from ragcrawl_dynamo._dynamodb.outcomes import Applied, raise_if_failed
from ragcrawl_dynamo._dynamodb.retry import is_spent
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier.arguments import check_link_options
from ragcrawl_dynamo._frontier.claim import AddResult, Claim, HostStatus
from ragcrawl_dynamo._frontier.claim_coalescing import ClaimCoalescer
from ragcrawl_dynamo._frontier.context import FrontierServices, RunContext
from ragcrawl_dynamo._frontier.counts import FrontierStats, stats_of
from ragcrawl_dynamo._frontier.dead_letters import DeadLetters
from ragcrawl_dynamo._frontier.enqueue import Enqueuer
from ragcrawl_dynamo._frontier.host_budget import HostBudget
from ragcrawl_dynamo._frontier.host_limits import HostLimiter
from ragcrawl_dynamo._frontier.item_store import payload_of
from ragcrawl_dynamo._frontier.lease_issuer import LeaseTerms
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.redirects import Redirects
from ragcrawl_dynamo._frontier.scheduler import Scheduler
from ragcrawl_dynamo._frontier.settlement import Return, Settlement
from ragcrawl_dynamo._frontier.termination import Termination
from ragcrawl_dynamo._frontier.unused_leases import UnusedLeases
from ragcrawl_dynamo._schema.records import RunControl, RunState
from ragcrawl_dynamo._utils.urls import link_id
from ragcrawl_dynamo.errors import (
    FrontierCancelledError,
    InvalidInputError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

logger = logging.getLogger(__name__)

# Seconds after which a waiting claim looks for items that other processes have added.
_POLL_SECONDS = 1.0


class RunQueue:
    """The queue of one run. `Frontier` has checked all arguments.

    Attributes:
        run: The run, as the parts of the queue share it.
        scheduler: The part that claims items.
        limiter: The part that sets the limits of hosts.
    """

    def __init__(self, services: FrontierServices, control: RunControl, rules: LinkRules) -> None:
        """`control` is the control that is stored if the run has none yet, with the names of `rules`."""
        run = RunContext(services, control, rules)
        self.run: RunContext = run
        notifier = Notifier(run)
        self._unused = UnusedLeases(run, self.release)
        self.scheduler: Scheduler = Scheduler(run, self._unused)
        self.limiter: HostLimiter = HostLimiter(run)
        self._notifier = notifier
        self._budget = HostBudget(services, run)
        self._enqueuer = Enqueuer(run, notifier, self._budget)
        self._redirects = Redirects(services, run)
        self._settlement = Settlement(run, notifier)
        self._termination = Termination(run, notifier)
        self._dead_letters = DeadLetters(run, notifier)
        self._claims = ClaimCoalescer(run, self.scheduler, self._unused)

    async def add(
        self,
        links: Iterable[str | FrontierItem],
        common: dict[str, Any],
        base_url: str | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> list[AddResult]:
        """See Frontier.add; `common` has fields for the items that are built from URLs."""
        self.run.check_clock()
        await self._notifier.announce_left()
        return await self._enqueuer.add(links, common, base_url, on_progress)

    async def get(self, key: str) -> FrontierItem | None:
        """See Frontier.get."""
        await self.run.control.check_rules()
        item_ids = [link_id(key)]
        # A unique_key need not be a URL.
        with suppress(InvalidInputError):
            item_ids.append(link_id(self.run.rules.apply(key)[0]))
        item_ids = list(dict.fromkeys(item_ids))
        items = await self.run.items.read(item_ids)
        return next((items[item_id] for item_id in item_ids if item_id in items), None)

    async def claim(
        self, terms: list[LeaseTerms], wait_seconds: float, *, until_finished: bool = False
    ) -> list[Claim]:
        """See Frontier.claim."""
        self.run.require_open()
        clock = self.run.clock
        deadline = clock.monotonic() + wait_seconds
        failures = 0
        while True:
            self.run.view.changed.clear()
            self.run.check_clock()
            await self._notifier.announce_left()
            is_last = clock.monotonic() >= deadline
            claims, result = await self._claims.claim(terms, is_thorough=is_last)
            self._notifier.flush_if_due()
            if claims or (until_finished and result.is_finished):
                return claims
            pause = _POLL_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 # spreads load
            if result.next_at is not None:
                pause = min(pause, max(0.001, (result.next_at - clock.now()).total_seconds()))
            if not is_last:
                pause = min(pause, max(0.0, deadline - clock.monotonic()))
            elif result.throttled is None:
                return []
            else:
                # There are items to claim.
                failures += 1
                config = self.run.config
                seconds_left = deadline + config.call_timeout - (clock.monotonic() + pause)
                if is_spent(config, failures, seconds_left):
                    raise result.throttled
            await self._notifier.wait_for_change(pause)

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
        """See Frontier.renew."""
        await self.run.tasks.uninterrupted(self._settlement.renew(claims, lease_seconds))

    async def complete(self, claims: Sequence[Claim], payload: str | None, also: Iterable[str]) -> None:
        """See Frontier.complete."""
        items = self._redirects.items(also, claims)
        await self.run.while_leased(
            claims, partial(self.end, claims, FrontierStatus.COMPLETED, None, payload)
        )
        await self.run.while_leased(claims, partial(self.end_redirected, items))

    def redirected(self, also: Iterable[str], claims: Sequence[Claim]) -> dict[str, FrontierItem]:
        """Returns completed items for `end_redirected`, by id.

        Raises:
            InvalidInputError: A URL is no absolute http(s) URL, or its item cannot be stored.
        """
        return self._redirects.items(also, claims)

    async def end_redirected(self, items: Mapping[str, FrontierItem]) -> None:
        """Completes items that are not leased, and adds those that are not stored.

        Raises:
            PartialBatchError: Some items were not completed.
        """
        if items:
            await self.run.control.check_rules()
            await self.run.tasks.uninterrupted(self._redirects.complete(items))
            self._notifier.flush_if_due()

    async def end(
        self,
        claims: Sequence[Claim],
        status: FrontierStatus,
        error: str | None,
        payload: str | None = None,
        outcome: Item | None = None,
    ) -> None:
        """Ends leases with a final status; `outcome` has more attributes to store. See Frontier.complete."""
        items, now = self.run.items, self.run.clock.now()
        more = {**(outcome or {}), **self._payload(claims, payload)}
        updates = [items.finish(claim.item, status, now, error, more) for claim in claims]
        await self.run.tasks.uninterrupted(self._settlement.end(claims, updates, status))
        self._notifier.flush_if_due()

    async def fail(
        self,
        claim: Claim,
        error: str,
        retry_in: float | None,
        *,
        retry: bool,
        payload: str | None = None,
        outcome: Item | None = None,
    ) -> bool:
        """See Frontier.fail; `outcome` has more attributes to store with a dead letter."""
        failures = claim.item.retry_count
        if not retry or failures + 1 >= self.run.config.frontier_max_attempts:
            await self.end([claim], FrontierStatus.FAILED, error, payload, outcome)
            return False
        delay = self._settlement.backoff(failures) if retry_in is None else retry_in
        retry_at = self.run.clock.now() + timedelta(seconds=delay)
        update = self.run.items.retry(claim.item, retry_at, error, self._payload([claim], payload))
        await self._put_back([Return(claim, update, claim.item, retry_at)])
        return True

    async def release(self, claims: Sequence[Claim]) -> None:
        """See Frontier.release."""
        items = self.run.items
        await self._put_back([Return(claim, items.release(claim.item), claim.item) for claim in claims])

    async def put_back(self, claim: Claim, changed: dict[str, Any], *, to_end: bool) -> None:
        """See Frontier.put_back; `changed` has the new values of fields of the item."""
        if to_end:
            changed = {**changed, "discovered_at": self.run.view.next_moment(self.run.clock.now())}
        item = self._with(claim, changed)
        await self._put_back([Return(claim, self.run.items.release(item, changed), item)])

    async def prepare_commit(
        self,
        claim: Claim | None,
        outcome: Item,
        links: Sequence[str | FrontierItem],
        *,
        depth: int,
        referrer_url: str,
    ) -> ConditionalUpdate | None:
        """Adds the links of a page; returns the write that completes the page's item.

        A transaction can do the write, or `end_commit`.

        Args:
            claim: The claim of the page's item; None if there is none.
            outcome: The attributes that store the outcome of the commit in the item.
            links: The links that were found on the page.
            depth: The depth of the links.
            referrer_url: The URL of the page.

        Returns:
            The write; None without a claim.

        Raises:
            PartialBatchError: Some links may not have been added.
        """
        if links:
            await self._add_discovered(links, check_link_options(depth, referrer_url, None, None))
        if claim is None:
            return None
        now = self.run.clock.now()
        return self.run.items.finish(claim.item, FrontierStatus.COMPLETED, now, outcome=outcome)

    async def end_commit(self, claim: Claim, end: ConditionalUpdate) -> bool:
        """Completes the item of a committed page by the write that `prepare_commit` built.

        Returns:
            Whether the item was completed. It was not if the lease is over.

        Raises:
            RagcrawlDynamoError: It is not known whether the item was completed.
        """
        (outcome,) = await self.run.items.run_coalesced(
            [end], lambda _, seconds: self.pause_host_of(claim, seconds)
        )
        raise_if_failed([outcome])
        return isinstance(outcome, Applied)

    def pause_host_of(self, claim: Claim, seconds: float) -> None:
        """Lets claims leave out the host of a claim, whose end is throttled, for some seconds."""
        self.run.pause_host(claim.item.domain, seconds)

    async def _add_discovered(self, links: Sequence[str | FrontierItem], common: dict[str, Any]) -> None:
        """Adds the links of a page. Links that cannot be added are logged, and do not stop the commit."""
        try:
            results = await self.add(links, common, common["referrer_url"])
        except FrontierCancelledError:
            logger.info("run %r was cancelled: the links of a page are not added", self.run.run_id)
            return
        errors = [result.error for result in results if result.error is not None]
        if errors:
            logger.info(
                "%d of %d links of %s were not added, the first one because: %s",
                *(len(errors), len(results), common["referrer_url"], errors[0]),
            )

    async def note_completed(self, claim: Claim, *, is_counted: bool) -> None:
        """Notes that a commit has completed an item.

        Args:
            claim: The claim of the item.
            is_counted: Whether an earlier call has counted the item as completed.
        """
        work = self._settlement.note_completed(claim, is_counted=is_counted)
        await self.run.tasks.uninterrupted(work)
        self._notifier.flush_if_due()

    async def is_finished(self) -> bool:
        """See Frontier.is_finished."""
        await self._notifier.announce_left()
        await self._notifier.flush()
        is_finished = await self._termination.is_finished()
        await self._notifier.flush()
        return is_finished

    async def stats(self, host: str | None) -> FrontierStats:
        """See Frontier.stats."""
        await self._notifier.flush()
        if host is None:
            return await self._termination.stats()
        host = self.run.rules.host(host)
        await self.run.control.check_rules()
        return FrontierStats.estimated(stats_of(await self.run.hosts.get_item(host) or {}))

    async def iterate_hosts(self) -> AsyncIterator[HostStatus]:
        """See Frontier.iter_hosts."""
        await self._check_site()
        await self._notifier.flush()
        now = self.run.clock.now()
        async for record, item in self.run.hosts.iterate():
            yield HostStatus(
                host=record.host,
                delay=record.delay,
                max_in_flight=record.max_in_flight,
                in_flight=len(record.live_slots(now)),
                blocked_until=record.blocked_until,
                next_at=record.next_at,
                stats=FrontierStats.estimated(stats_of(item)),
            )

    async def recount(self) -> FrontierStats:
        """See Frontier.recount."""
        await self._check_site()
        await self._notifier.flush()
        stats = await self._termination.recount()
        await self._notifier.flush()
        return stats

    async def state(self) -> RunState:
        """See Frontier.state."""
        control = await self.run.control.read()
        return RunState.RUNNING if control is None else control.state

    async def set_state(self, state: RunState) -> None:
        """See Frontier.pause, resume and cancel."""
        await self.run.control.set_state(state)
        self.run.control_reads.forget()
        self.run.view.changed.set()

    async def requeue_failed(self) -> int:
        """See Frontier.requeue_failed."""
        await self._check_site()
        try:
            return await self._dead_letters.requeue()
        finally:
            self._notifier.flush_if_due()

    def clear(self) -> None:
        """Clears the local view of the run, after the run's items were deleted."""
        self.run.clear()
        self.scheduler.clear()
        self._budget.clear()

    async def close(self) -> None:
        """Waits for the work that is under way, stores the last counts and ends the membership."""
        await self._unused.close()
        await self.run.items.close()
        await self.run.tasks.join()
        try:
            async with asyncio.timeout(self.run.config.health_timeout):
                await self._notifier.close()
                await self.run.membership.leave()
        except (RagcrawlDynamoError, TimeoutError) as error:
            logger.warning(
                "run %r: the last counts were not stored, or others take this process for alive a while: %s",
                self.run.run_id,
                str(error) or "DynamoDB did not answer within health_timeout",
            )
        await self.run.tasks.cancel()

    async def _check_site(self) -> None:
        """Checks that the run is not one of another site.

        Raises:
            AmbiguousIdError: The run is one of another site.
        """
        await self.run.control.read()

    async def _put_back(self, returns: list[Return]) -> None:
        await self.run.tasks.uninterrupted(self._settlement.put_back(returns))
        self._notifier.flush_if_due()

    def _payload(self, claims: Sequence[Claim], payload: str | None) -> Item:
        """Returns the attribute of a new payload, which is checked as in `_with`; none if it is None."""
        if payload is None:
            return {}
        for claim in claims:
            self._with(claim, {"payload": payload})
        return payload_of(payload)

    def _with(self, claim: Claim, changed: dict[str, Any]) -> FrontierItem:
        """Returns the item of a claim with new values.

        Raises:
            InvalidInputError: The item cannot be stored.
        """
        item = claim.item.model_copy(update=changed)
        self.run.items.encode(item, 1)
        return item
