"""Adds links to the queue, each link once, whichever processes add it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Outcome, Refused
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.claim import AddResult
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_budget import HostBudget
from ragcrawl_dynamo._frontier.host_updates import shards_for
from ragcrawl_dynamo._frontier.item_store import candidate_of, work_of
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.work import Work, WorkByHost
from ragcrawl_dynamo._schema.queue_order import split_facts
from ragcrawl_dynamo._utils.concurrency import in_turns, read_ahead
from ragcrawl_dynamo._utils.urls import join_url, link_id, url_hash
from ragcrawl_dynamo.errors import (
    HostBudgetError,
    InvalidArgumentError,
    InvalidInputError,
    PartialBatchError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

# The fields that the queue sets. Their values in an added item are ignored.
SET_BY_QUEUE = {
    *("item_id", "run_id", "site_id", "normalized_url", "url_hash", "domain"),
    *("status", "retry_count", "last_error", "started_at", "completed_at"),
    *("attempt", "lease_owner", "lease_token", "lease_expires_at"),
}

# How many links one batch has, and how many batches are added ahead of the first unfinished one.
_LINKS_PER_BATCH = 1000
_BATCHES_AHEAD = 3

# A batch of at least this number of links is added without a read of known ones, if at least this share of
# the batch before was new.
_MANY_LINKS = 100
_MOSTLY_NEW = 0.9


class Enqueuer:
    """Adds links to the queue of one run."""

    def __init__(self, run: RunContext, notifier: Notifier, budget: HostBudget) -> None:
        self._run = run
        self._notifier = notifier
        self._budget = budget
        # The share of links that were new in the last call, of those that this process did not know.
        self._share_new = 0.0

    async def add(
        self,
        links: Iterable[str | FrontierItem],
        common: dict[str, Any],
        base_url: str | None,
        on_progress: Callable[[int], object] | None,
    ) -> list[AddResult]:
        """Adds links in batches; returns a result for each link, in their order.

        Args:
            links: URLs, or items of this run.
            common: Fields for the items that are built from URLs.
            base_url: The URL against which relative URLs are resolved; None refuses them.
            on_progress: Called after each batch with the number of links so far.

        Raises:
            AmbiguousIdError: The run is one of another site.
            FrontierCancelledError: The run is cancelled.
            InvalidArgumentError: The run compares its links by other rules.
            PartialBatchError: Some links may not have been added; all others were.
        """
        remaining = iter(links)

        async def batches() -> AsyncIterator[Callable[[], Awaitable[list[AddResult] | PartialBatchError]]]:
            while batch := list(islice(remaining, _LINKS_PER_BATCH)):
                yield partial(self._try_batch, batch, common, base_url)

        results: list[AddResult] = []
        failures: list[tuple[Any, RagcrawlDynamoError]] = []
        saved = 0
        async with aclosing(read_ahead(batches(), _BATCHES_AHEAD)) as added_batches:
            async for added in added_batches:
                if isinstance(added, PartialBatchError):
                    saved += added.saved
                    failures += added.failures
                else:
                    saved += len(added)
                    results += added
                if on_progress is not None:
                    on_progress(saved + len(failures))
        if failures:
            raise PartialBatchError(saved, failures)
        return results

    async def _try_batch(
        self, links: list[str | FrontierItem], common: dict[str, Any], base_url: str | None
    ) -> list[AddResult] | PartialBatchError:
        """Adds a batch of links. If some of them fail, the other batches are still added."""
        try:
            return await self._add_batch(links, common, base_url)
        except PartialBatchError as error:
            return error
        finally:
            self._notifier.flush_if_due()

    async def _add_batch(
        self, links: list[str | FrontierItem], common: dict[str, Any], base_url: str | None
    ) -> list[AddResult]:
        """Adds links; returns a result for each link, in their order.

        Raises:
            AmbiguousIdError: The run is one of another site.
            FrontierCancelledError: The run is cancelled.
            InvalidArgumentError: The run compares its links by other rules.
            PartialBatchError: Some links may not have been added; all others were.
        """
        run = self._run
        results: list[AddResult | None] = []
        urls: list[Any] = []
        indexes: dict[str, int] = {}
        new: dict[str, FrontierItem] = {}
        shards: dict[str, int] = {}
        inserts: dict[str, ConditionalInsert] = {}
        # Before anything is awaited: the batches of one call are claimed in their order.
        moments = [run.view.next_moment(run.clock.now()) for _ in links]
        async for part in in_turns(zip(links, moments, strict=True)):
            for link, moment in part:
                url = link.url if isinstance(link, FrontierItem) else link
                urls.append(url)
                try:
                    item = self._item(link, {"discovered_at": moment, **common}, base_url)
                    if item.domain not in shards:
                        shards[item.domain] = self._shards(item.domain)
                    # An item that cannot be stored is refused here, so that it fails alone.
                    insert = run.items.encode(item, shards[item.domain])
                except InvalidInputError as error:
                    results.append(AddResult(url, None, added=False, error=error))
                    continue
                if item.item_id in run.view.seen_links or item.item_id in new:
                    results.append(AddResult(url, item.item_id, added=False))
                    continue
                new[item.item_id] = item
                inserts[item.item_id] = insert
                indexes[item.item_id] = len(results)
                results.append(None)
        if not new:
            return [result for result in results if result is not None]
        work = WorkByHost()
        known, limit = await self._take_known(new, work)
        over_budget = {} if limit is None else await self._take_over_budget(new, limit)
        for item_id, result in (known | over_budget).items():
            results[indexes[item_id]] = result
        failures: list[tuple[Any, RagcrawlDynamoError]] = []
        # Runs to its end even if the caller is cancelled: an item that is added must be announced.
        insertion = self._insert_and_announce(
            list(new.values()), [inserts[item_id] for item_id in new], shards, work
        )
        outcomes = dict(zip(new, await run.tasks.uninterrupted(insertion), strict=True))
        added_count = sum(isinstance(outcome, Applied) for outcome in outcomes.values())
        self._share_new = added_count / max(1, len(outcomes) + len(known))
        if limit is not None:
            refused = [item_id for item_id, outcome in outcomes.items() if isinstance(outcome, Refused)]
            await self._budget.give_back(Counter(new[item_id].domain for item_id in refused))
        async for decided in in_turns(outcomes.items()):
            for item_id, outcome in decided:
                if isinstance(outcome, Failed):
                    failures.append((new[item_id], outcome.error))
                    continue
                added = isinstance(outcome, Applied)
                results[indexes[item_id]] = AddResult(new[item_id].url, item_id, added=added)
                run.view.seen_links.add(item_id)
        complete = [
            # Another spelling of a link has the result of the link, with its own URL.
            replace(over_budget.get(result.item_id or "", result), url=url)
            async for answered in in_turns(zip(urls, results, strict=True))
            for url, result in answered
            if result is not None
        ]
        if failures:
            raise PartialBatchError(len(complete), failures)
        return complete

    async def _take_known(
        self, new: dict[str, FrontierItem], work: WorkByHost
    ) -> tuple[dict[str, AddResult], int | None]:
        """Removes stored items from `new`, and adds their work to `work`.

        Returns:
            The results of the stored items, and how many links a host may have; None for any number.
        """
        run = self._run
        # An insert of a known link costs five times a read, and says the same.
        read = [] if len(new) >= _MANY_LINKS and self._share_new >= _MOSTLY_NEW else list(new)
        states, control = await run.read_states(read)
        control = await run.control.admit(control)
        # Removes the proof before an item is added: this process may be killed right after it adds one.
        await run.control.reopen(control)
        results: dict[str, AddResult] = {}
        for item_id, state in states.items():
            item = new.pop(item_id)
            status = FrontierStatus(state["status"]["S"])
            results[item_id] = AddResult(item.url, item_id, added=False, status=status)
            # The process that added the item may have been killed before it announced the work.
            if (queued := work_of(state)) is not None:
                work.note(item.domain, queued)
            run.view.seen_links.add(item_id)
        if new:
            await run.control.warn_of_end(control)
        return results, control.host_max_items

    async def _take_over_budget(self, new: dict[str, FrontierItem], limit: int) -> dict[str, AddResult]:
        """Removes items that the budgets of their hosts do not allow from `new`; returns their results."""
        left = await self._budget.reserve(Counter(item.domain for item in new.values()), limit)
        results: dict[str, AddResult] = {}
        for item_id, item in list(new.items()):
            left[item.domain] -= 1
            if left[item.domain] < 0:
                reason = f"host {item.domain!r} has {limit:,} links already, as many as host_max_items allows"
                error = HostBudgetError("url", reason)
                results[item_id] = AddResult(item.url, None, added=False, error=error)
                del new[item_id]
        return results

    def _item(self, link: str | FrontierItem, common: dict[str, Any], base_url: str | None) -> FrontierItem:
        """Builds the item of a link.

        Raises:
            InvalidArgumentError: The link is neither a URL nor an item of this run, or its URL is not valid.
        """
        run = self._run
        if isinstance(link, FrontierItem):
            if (link.run_id, link.site_id) != (run.run_id, run.site_id):
                raise InvalidArgumentError(
                    "run_id",
                    f"the item is of run {link.run_id!r} of site {link.site_id!r}, and this frontier of run "
                    f"{run.run_id!r} of site {run.site_id!r}: add the item to the frontier of its run",
                )
            fields = link.model_dump(exclude=SET_BY_QUEUE)
            if "discovered_at" not in link.model_fields_set:
                fields["discovered_at"] = common["discovered_at"]
        elif isinstance(link, str):
            fields = {"url": link, **common}
        else:
            raise InvalidArgumentError(
                "links", f"a link must be a URL or a FrontierItem, not {type(link).__name__}"
            )
        if base_url is not None:
            fields["url"] = join_url(base_url, fields["url"])
        try:
            normalized, host = run.rules.apply(fields["url"])
        except InvalidArgumentError as error:
            if base_url is not None or "://" in fields["url"]:
                raise
            raise InvalidArgumentError("url", f"{error.reason}; for relative links, pass base_url") from None
        return FrontierItem(
            **fields,
            item_id=link_id(fields.get("unique_key") or normalized),
            run_id=run.run_id,
            site_id=run.site_id,
            normalized_url=normalized,
            url_hash=url_hash(normalized),
            domain=host,
        )

    async def _insert_and_announce(
        self,
        items: list[FrontierItem],
        inserts: list[ConditionalInsert],
        shards: dict[str, int],
        work: WorkByHost,
    ) -> list[Outcome]:
        """Inserts items, and announces their work and `work`; returns the outcomes in order."""
        run = self._run
        outcomes = await run.items.run(inserts)
        added: list[Candidate] = []
        async for part in in_turns(zip(items, outcomes, strict=True)):
            for item, outcome in part:
                candidate = candidate_of(item, item.scheduled_at)
                # An item whose insert failed may have been added, and one whose insert was refused is stored.
                is_added = isinstance(outcome, Applied)
                item_id = candidate.item_id if is_added else None
                work.note(candidate.host, Work(candidate.order, shards[candidate.host], item_id=item_id))
                if is_added:
                    run.counters.move(candidate.host, None, candidate.state)
                    added.append(candidate)
        try:
            await self._notifier.announce(work)
        except RagcrawlDynamoError:
            # If inserts failed too, the caller gets their errors. The next call announces the work.
            if not any(isinstance(outcome, Failed) for outcome in outcomes):
                raise
        async for candidates in in_turns(added):
            for candidate in candidates:
                run.offer(candidate)
        await self._notifier.flush_of({host for host in work if not run.owns(host)})
        return outcomes

    def _shards(self, host: str) -> int:
        """Returns over how many shards new items of a host are spread: more if they are claimed fast."""
        run = self._run
        known = run.view.bench.hosts.get(host)
        if known is None or known.order is None:
            return 1
        pace = known.pace.per_second if known.pace is not None else 0.0
        return max(split_facts(known.order).shards, shards_for(pace * run.membership.count))
