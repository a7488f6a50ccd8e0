"""Commits a crawled page: what nothing shows yet is written first, then all that shows it in one transaction.

The transaction holds the version's head, the page, the frontier item and, where the page changed, its entry in
the change log. A crash before it leaves body parts that a clean-up finds, links that are in the queue already,
and an item that will be claimed again. A worker that lost its lease changes nothing that can be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import NoneType

from ragcrawl_dynamo._changes.log import ChangeLog, PendingEntry
from ragcrawl_dynamo._commit.decision import CommitResult, Decision, decide
from ragcrawl_dynamo._commit.live_stats import LiveStats
from ragcrawl_dynamo._commit.run_stats import outcome_attributes, recorded_result
from ragcrawl_dynamo._content.versions import VersionStore
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.transactions import Refusal, Transaction
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.arguments import check_link_options
from ragcrawl_dynamo._frontier.claim import Claim, note_lost
from ragcrawl_dynamo._frontier.frontiers import Frontiers
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo._records.pages import PageStore, StoredPage, as_read
from ragcrawl_dynamo._schema.attributes import CHANGE_ORDER, REVISION
from ragcrawl_dynamo._utils.validation import check_kind, check_several
from ragcrawl_dynamo.errors import ConflictError, InvalidArgumentError, LeaseLostError
from ragcrawl_dynamo.models import FrontierItem, Page, PageVersion

# Times that a page is read again because another process changed it meanwhile.
_ATTEMPTS = 6


@dataclass
class Fetched:
    """What a fetch brought, and what of it is durable already.

    Attributes:
        page: What the fetch says of the page.
        version: Its content, if any.
        claim: The claim of its frontier item, if any.
        queue: The queue of the run that it belongs to, if it is known.
        links: Discovered links that are not added yet.
        head: The version's head, once its body is durable.
    """

    page: Page
    version: PageVersion | None
    claim: Claim | None
    queue: RunQueue | None
    links: list[str | FrontierItem]
    head: Item | None = None


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
    ) -> CommitResult:
        """Commits one page; see StorageBackend.commit_page."""
        fetched = self._checked(page, version, claim, discovered)
        now = self._services.clock.now()
        for failures in range(1, _ATTEMPTS + 1):
            stored = await self._read(page)
            decision = decide(stored.page, page, version, now)
            # Refused before anything is written.
            to_item(self._services.tables.pages, decision.page)
            await self._prepare(fetched, decision)
            result = await self._write(fetched, decision, stored)
            if result is not None:
                await self._live_stats.flush_if_due()
                return result
            await asyncio.sleep(full_jitter(self._services.gateway.config, failures))
        raise ConflictError(
            f"page {page.page_id!r} of site {page.site_id!r} was changed by others {_ATTEMPTS} times in a "
            f"row; nothing was committed: commit it again"
        )

    def _checked(
        self,
        page: Page,
        version: PageVersion | None,
        claim: Claim | None,
        discovered: Iterable[str | FrontierItem],
    ) -> Fetched:
        """What a caller gives, if it belongs together.

        Raises:
            InvalidArgumentError: It does not.
        """
        check_kind("page", page, Page)
        check_kind("version", version, PageVersion, NoneType)
        check_kind("claim", claim, Claim, NoneType)
        links = check_several("discovered", discovered, object)
        if version is not None and (version.site_id, version.page_id) != (page.site_id, page.page_id):
            raise InvalidArgumentError("version", "is of another page or site than the page")
        if claim is not None and claim.item.site_id != page.site_id:
            raise InvalidArgumentError("claim", "is of another site than the page")
        if claim is not None and version is not None and version.run_id != claim.item.run_id:
            raise InvalidArgumentError("version", "is of another run than the claim")
        run_id = claim.item.run_id if claim is not None else version.run_id if version is not None else None
        if links and run_id is None:
            raise InvalidArgumentError("discovered", "needs a claim, or a version, whose run gets the links")
        queue = None if run_id is None else self._frontiers.queue(run_id, page.site_id)
        return Fetched(page, version, claim, queue, links)

    async def _read(self, page: Page) -> StoredPage:
        stored = await self._pages.read(page.site_id, page.page_id)
        known = stored.page
        if known is None or stored.revision is not None or known.current_version_id is None:
            return stored
        # Saved as a record only, it may name a version that was never saved.
        current = (known.page_id, known.current_version_id, known.site_id)
        if current in await self._versions.content_hashes([current]):
            return stored
        without = known.model_copy(update={"current_version_id": None, "content_hash": None})
        return replace(stored, page=without)

    async def _prepare(self, fetched: Fetched, decision: Decision) -> None:
        """Makes durable what nothing shows yet, once: the body and the links."""
        if decision.writes_version and fetched.head is None and fetched.version is not None:
            fetched.head = await self._versions.prepare(fetched.version)
        if fetched.links and fetched.queue is not None:
            claim, page = fetched.claim, fetched.page
            depth = 1 + (page.depth if claim is None else claim.item.depth)
            await fetched.queue.add(fetched.links, check_link_options(depth, page.url, None, None))
            fetched.links = []

    async def _write(self, fetched: Fetched, decision: Decision, stored: StoredPage) -> CommitResult | None:
        """Writes all at once; None if others changed the page since it was read, or took its log position."""
        services, claim, queue = self._services, fetched.claim, fetched.queue
        revision = WriteToken.new(REVISION, length=8)
        entry = await self._log_entry(fetched.page, decision, stored)
        order = stored.order if entry is None else entry.order
        extra: Item = {**revision.attributes}
        if order is not None:
            extra[CHANGE_ORDER] = {"N": str(order)}
        outcome = outcome_attributes(decision.result, decision.page.status_code, fetched.version)
        transaction = Transaction(revision, marked="page")
        page_item = to_item(services.tables.pages, decision.page, extra)
        transaction.put("page", services.tables.pages, page_item, as_read(stored))
        if claim is not None and queue is not None:
            end = queue.completion(claim, outcome)
            transaction.update("claim", services.tables.frontier, end.key, end.update, end.condition)
        if decision.writes_version and fetched.head is not None:
            transaction.put("version", services.tables.versions, fetched.head)
        if entry is not None:
            entry.add_to(transaction)
        refusal = await transaction.run(services.gateway)
        if refusal is not None:
            if entry is not None:
                self._change_log.note_refusal(fetched.page.site_id, entry, refusal)
            if claim is None or queue is None or not refusal.is_refused("claim"):
                return None
            return await self._earlier_result(claim, queue, refusal)
        if claim is not None and queue is not None:
            self._live_stats.note(claim.item, outcome)
            await queue.note_completed(claim, is_counted=False)
        return decision.result

    async def _log_entry(self, page: Page, decision: Decision, stored: StoredPage) -> PendingEntry | None:
        if decision.change is None:
            return None
        return await self._change_log.append(page.site_id, page.page_id, decision.change, stored.order)

    async def _earlier_result(self, claim: Claim, queue: RunQueue, refusal: Refusal) -> CommitResult:
        """The result of a commit under the same lease whose end its caller did not see."""
        item = refusal.item("claim")
        is_same_lease = item.get("lease_token") == {"S": claim.item.lease_token or ""}
        result = recorded_result(item) if is_same_lease else None
        if result is None:
            note_lost(claim, self._services.on_lease_lost)
        await queue.note_completed(claim, is_counted=True)
        if result is None:
            raise LeaseLostError([claim]) from refusal.error
        return result
