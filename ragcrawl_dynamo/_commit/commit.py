"""Commits a crawled page: first writes its body and its links, then everything else.

A page that changed is committed in one transaction. It writes the version's head, the page, the frontier item
and an entry of the change log. If a process is killed before the transaction, the links are in the queue, the
item will be claimed again, and `collect_garbage` finds the body parts. If the lease has been lost, the
transaction writes nothing.

A page that did not change needs no transaction, which costs twice the write units. Two writes follow each
other: the freshness of the page, such as `last_crawled`, and then the end of the claim. If a process is
killed between them, the item will be claimed again. After the other order, the page would look unseen
although its item is completed, and a clean-up of unseen pages would mark it as gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import NoneType
from typing import TypeVar

from ragcrawl_dynamo._changes.log import ChangeLog, PendingEntry
from ragcrawl_dynamo._commit.decision import (
    CommitOutcome,
    CommitResult,
    Decision,
    check_together,
    decide,
    error_of,
    kind_of,
)
from ragcrawl_dynamo._commit.live_stats import LiveStats
from ragcrawl_dynamo._commit.responses import ResponseKind
from ragcrawl_dynamo._commit.run_stats import outcome_attributes, recorded_result, status_attribute
from ragcrawl_dynamo._content.versions import VersionStore
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate
from ragcrawl_dynamo._dynamodb.expressions import AnyOf, Compare, Condition, Missing
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.transactions import Transaction
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.arguments import check_delay
from ragcrawl_dynamo._frontier.claim import Claim, note_lost
from ragcrawl_dynamo._frontier.frontiers import Frontiers
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo._records.pages import PageStore, StoredPage
from ragcrawl_dynamo._schema.attributes import CHANGE_ORDER, REVISION
from ragcrawl_dynamo._utils.validation import check_kind, check_several
from ragcrawl_dynamo.errors import ConflictError, InvalidArgumentError, LeaseLostError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus, Page, PageVersion

T = TypeVar("T")

# How many times a page is read, decided and written if other writers change it in between.
_ATTEMPTS = 6

# Stands for the order of the change while the size of the page's item is checked: the order is not known yet.
_LONGEST_ORDER: Item = {CHANGE_ORDER: {"N": "9" * 20}}


@dataclass
class Fetched:
    """The arguments of a commit, and how much of them is stored already.

    Attributes:
        page: The page as the fetch found it.
        version: The content of the page; None if the server sent none.
        claim: The claim of the page's frontier item; None if there is none.
        queue: The queue of the run; None if the run is not known.
        links: The discovered links that are not added yet.
        head: The head of the version, once its body is stored.
    """

    page: Page
    version: PageVersion | None
    claim: Claim | None
    queue: RunQueue | None
    links: list[str | FrontierItem]
    head: Item | None = None

    async def while_leased(self, work: Callable[[], Awaitable[T]]) -> T:
        """Does work, again and again while DynamoDB does not serve it and the lease of the claim runs."""
        if self.queue is None or self.claim is None:
            return await work()
        return await self.queue.run.while_leased([self.claim], work)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The writes of a commit.

    Attributes:
        page: The page's item.
        stored: The page as it was read.
        revision: The write token in the page's item, by which its write is recognized.
        outcome: The attributes that store the outcome in the frontier item.
        end: The write that completes the frontier item; None without a claim.
        entry: The log entry of the change; None if nothing changed, or if changes are not logged.
    """

    page: Item
    stored: StoredPage
    revision: WriteToken
    outcome: Item
    end: ConditionalUpdate | None
    entry: PendingEntry | None


class Committer:
    """Commits pages of all sites, for one process."""

    def __init__(
        self,
        frontiers: Frontiers,
        pages: PageStore,
        versions: VersionStore,
        change_log: ChangeLog,
        live_stats: LiveStats,
    ) -> None:
        self._frontiers = frontiers
        self._services = frontiers.services
        self._pages = pages
        self._versions = versions
        self._change_log = change_log
        self._live_stats = live_stats

    async def commit(
        self,
        page: Page,
        version: PageVersion | None,
        claim: Claim | None,
        discovered: Iterable[str | FrontierItem],
        also: Iterable[str],
        kind: ResponseKind | None,
        retry_after: float | None,
        *,
        follow_redirect: bool,
    ) -> CommitResult:
        """Commits one page; see StorageBackend.commit_page."""
        fetched = self._checked(page, version, claim, discovered)
        redirected = self._redirected(fetched, also)
        check_kind("kind", kind, ResponseKind, NoneType)
        kind = kind_of(page, version, kind)
        delay = check_delay("retry_after", retry_after)
        is_redirect = kind in (ResponseKind.MOVED, ResponseKind.REDIRECTED)
        if page.redirect_url and is_redirect and follow_redirect and fetched.queue is not None:
            fetched.links.append(page.redirect_url)
        now = self._services.clock.now()

        async def attempt() -> CommitResult | None:
            stored = await self._read(page)
            decision = decide(stored.page, page, version, kind, now)
            if decision.item_status is not FrontierStatus.COMPLETED:
                return await self._write_failure(fetched, decision, stored, delay)
            result = await self._commit(fetched, decision, stored)
            if result is not None and redirected and fetched.queue is not None:
                await fetched.queue.end_redirected(redirected)
            return result

        for failures in range(1, _ATTEMPTS + 1):
            result = await fetched.while_leased(attempt)
            if result is not None:
                self._live_stats.flush_if_due()
                return result
            await asyncio.sleep(full_jitter(self._services.gateway.config, failures))
        raise ConflictError(
            f"page {page.page_id!r} of site {page.site_id!r} was changed by other writers {_ATTEMPTS} "
            f"times in a row; nothing was committed: commit it again"
        )

    async def _commit(self, fetched: Fetched, decision: Decision, stored: StoredPage) -> CommitResult | None:
        """Writes a decision; returns None if another writer changed the page meanwhile."""
        prepared = await self._prepare(fetched, decision, stored)
        if decision.change is None and stored.page is not None and self._is_leased(fetched.claim):
            return await self._write_unchanged(fetched, decision, prepared)
        return await self._write(fetched, decision, prepared)

    def _checked(
        self,
        page: Page,
        version: PageVersion | None,
        claim: Claim | None,
        discovered: Iterable[str | FrontierItem],
    ) -> Fetched:
        """Checks the arguments of a commit.

        Raises:
            InvalidArgumentError: An argument has a wrong type, or the arguments do not belong together.
        """
        check_kind("page", page, Page)
        check_kind("version", version, PageVersion, NoneType)
        check_kind("claim", claim, Claim, NoneType)
        links = check_several("discovered", discovered, object)
        check_together(page, version, None if claim is None else claim.item)
        run_id = claim.item.run_id if claim is not None else version.run_id if version is not None else None
        if links and run_id is None:
            raise InvalidArgumentError(
                "discovered", "needs a claim or a version, whose run gets the links: pass one of them"
            )
        queue = None if run_id is None else self._frontiers.queue(page.site_id, run_id)
        return Fetched(page, version, claim, queue, links)

    def _redirected(self, fetched: Fetched, also: Iterable[str]) -> dict[str, FrontierItem]:
        """Returns the items of the other URLs of a page, completed.

        Raises:
            InvalidInputError: A URL is no absolute http(s) URL, or there is no run.
        """
        urls = check_several("also", also, str)
        if not urls:
            return {}
        if fetched.queue is None:
            raise InvalidArgumentError(
                "also", "needs a claim or a version, whose run gets the URLs: pass one of them"
            )
        return fetched.queue.redirected(urls, [] if fetched.claim is None else [fetched.claim])

    async def _read(self, page: Page) -> StoredPage:
        """Reads the stored page; without a current version that was never saved."""
        stored = await self._pages.read(page.site_id, page.page_id)
        stored_page = stored.page
        if stored_page is None or stored_page.current_version_id is None or stored.revision is not None:
            return stored
        # `save_page` wrote it, perhaps with a version that was never saved.
        current = (stored_page.page_id, stored_page.current_version_id, stored_page.site_id)
        if current in await self._versions.content_hashes([current]):
            return stored
        without_version = stored_page.model_copy(update={"current_version_id": None, "content_hash": None})
        return replace(stored, page=without_version)

    async def _prepare(self, fetched: Fetched, decision: Decision, stored: StoredPage) -> Prepared:
        """Stores the body and the links, if no earlier attempt has; builds the other writes."""
        page, claim, queue = fetched.page, fetched.claim, fetched.queue
        revision = WriteToken.new(REVISION, length=8)
        # An item that cannot be stored is refused here, before anything is written.
        page_item = to_item(
            self._services.tables.pages, decision.page, {**revision.attributes, **_LONGEST_ORDER}
        )
        if decision.writes_version and fetched.head is None and fetched.version is not None:
            is_first = decision.outcome is CommitOutcome.CREATED
            fetched.head = await self._versions.prepare(
                fetched.version, in_transaction=True, is_first=is_first
            )
        outcome = outcome_attributes(decision, fetched.version, stored.page)
        end = None
        if queue is not None:
            depth = 1 + (page.depth if claim is None else claim.item.depth)
            end = await queue.prepare_commit(
                claim, outcome, fetched.links, depth=depth, referrer_url=page.url
            )
            fetched.links = []
        entry = None
        if decision.change is not None:
            entry = await self._change_log.append(page.site_id, page.page_id, decision.change, stored.order)
        order = stored.order if entry is None else entry.order
        del page_item[CHANGE_ORDER]
        page_item |= _order_attribute(order)
        return Prepared(page_item, stored, revision, outcome, end, entry)

    async def _write(self, fetched: Fetched, decision: Decision, prepared: Prepared) -> CommitResult | None:
        """Runs the transaction; returns None if another writer changed the page or took its log position."""
        tables, end, entry = self._services.tables, prepared.end, prepared.entry
        transaction = Transaction(prepared.revision, marked="page")
        transaction.put("page", tables.pages, prepared.page, prepared.stored.is_unchanged)
        if end is not None:
            transaction.update("claim", tables.frontier, end.key, end.update, end.condition)
        if decision.writes_version and fetched.head is not None:
            transaction.put("version", tables.versions, fetched.head, _is_new_or_same(fetched.head))
        if entry is not None:
            entry.add_to(transaction)
        claim, queue = fetched.claim, fetched.queue
        on_throttled = None
        if claim is not None and queue is not None:
            on_throttled = partial(queue.pause_host_of, claim)
        refusal = await transaction.run(self._services.gateway, on_throttled)
        if refusal is not None and entry is not None:
            self._change_log.note_refusal(fetched.page.site_id, entry, refusal)
        if refusal is not None and refusal.is_refused("version") and not refusal.is_refused("claim"):
            raise InvalidArgumentError(
                "version",
                f"has the version_id {decision.page.current_version_id!r}, which is in use for other content "
                f"of page {fetched.page.page_id!r}: nothing was committed; use a new id for new content",
            ) from None
        if claim is None or queue is None:
            return decision.result if refusal is None else None
        if refusal is None:
            # Before anything is awaited: the caller may be cancelled, and the page is committed.
            self._live_stats.note(claim.item, prepared.outcome, queue)
            await queue.note_completed(claim, is_counted=False)
            return decision.result
        if not refusal.is_refused("claim"):
            return None
        return await self._earlier_result(claim, queue, refusal.item("claim"))

    def _is_leased(self, claim: Claim | None) -> bool:
        """Returns whether the lease of a claim is running, by this machine's clocks; True without a claim.

        `_write_unchanged` may only be used then: the page was read while no other worker had the item.
        """
        if claim is None:
            return True
        clock = self._services.clock
        return not claim.ended and clock.monotonic() < claim.deadline and clock.now() < claim.expires_at

    async def _write_unchanged(
        self, fetched: Fetched, decision: Decision, prepared: Prepared
    ) -> CommitResult | None:
        """Writes the freshness of a page, then ends its claim; None if another writer changed the page."""
        if not await self._pages.rewrite(prepared.stored, prepared.page, prepared.revision):
            return None
        claim, queue, end = fetched.claim, fetched.queue, prepared.end
        if claim is None or queue is None or end is None:
            return decision.result
        # If the caller is cancelled, the settlement still ends, and is counted and stored in the host.
        return await queue.run.tasks.uninterrupted(self._end_claim(claim, queue, decision, prepared, end))

    async def _write_failure(
        self, fetched: Fetched, decision: Decision, stored: StoredPage, retry_after: float | None
    ) -> CommitResult | None:
        """Counts the error of a page, then settles its claim; None if another writer changed the page.

        If a process is killed in between, or the settlement gets no answer, the item will be claimed again or
        committed again, and the next error is counted too.

        Raises:
            LeaseLostError: The lease was lost.
        """
        claim, queue = fetched.claim, fetched.queue
        if decision.is_stored and self._is_leased(claim):
            revision = WriteToken.new(REVISION, length=8)
            extra = {**revision.attributes, **_order_attribute(stored.order)}
            item = to_item(self._services.tables.pages, decision.page, extra)
            if not await self._pages.rewrite(stored, item, revision):
                return None
        if claim is not None and queue is not None:
            error = error_of(fetched.page, decision.status)
            outcome = status_attribute(decision.status)
            # By itself: repeating all of it would count the error of the page twice.
            if decision.item_status is FrontierStatus.SKIPPED:
                end = partial(queue.end, [claim], decision.item_status, error, outcome=outcome)
                await fetched.while_leased(end)
            else:
                fail = partial(queue.fail, claim, error, retry_after, retry=True, outcome=outcome)
                await fetched.while_leased(fail)
                if retry_after:
                    await queue.limiter.block(claim.item.domain, retry_after)
        return decision.result

    async def _end_claim(
        self, claim: Claim, queue: RunQueue, decision: Decision, prepared: Prepared, end: ConditionalUpdate
    ) -> CommitResult:
        """Ends the claim of a page whose freshness is written.

        Raises:
            LeaseLostError: The lease was lost, or another call ended it.
        """
        if await queue.end_commit(claim, end):
            self._live_stats.note(claim.item, prepared.outcome, queue)
            await queue.note_completed(claim, is_counted=False)
            return decision.result
        request = requests.get_request(self._services.tables.frontier, end.key)
        response = await self._services.gateway.call("GetItem", request)
        return await self._earlier_result(claim, queue, response.get("Item", {}))

    async def _earlier_result(self, claim: Claim, queue: RunQueue, item: Item) -> CommitResult:
        """Returns the result of an earlier commit under the same lease, whose answer was lost.

        Args:
            claim: The claim.
            queue: The queue of its run.
            item: The frontier item, which has refused to be completed.

        Raises:
            LeaseLostError: The lease was lost, or another call ended it.
        """
        is_same_lease = item.get("lease_token") == {"S": claim.item.lease_token or ""}
        result = recorded_result(item) if is_same_lease else None
        if result is None:
            note_lost(claim, self._services.on_lease_lost)
        await queue.note_completed(claim, is_counted=True)
        if result is None:
            raise LeaseLostError([claim])
        return result


def _is_new_or_same(head: Item) -> Condition:
    """The condition that a version is not stored yet, or has the same content: its id stands for content."""
    return AnyOf((Missing("page_id"), Compare("content_hash", "=", head["content_hash"])))


def _order_attribute(order: int | None) -> Item:
    """Returns the attribute that stores the order of a page's latest logged change."""
    return {} if order is None else {CHANGE_ORDER: {"N": str(order)}}
