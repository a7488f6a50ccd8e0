"""One atomic step per crawled page: body parts, discovered links, then all that shows, together.

That is the version's head, the page, the frontier item and, where the page changed, its change in the log.

A crash before the last request leaves parts that a clean-up finds, links that are in the queue already, and
an item that will be claimed again; a worker that lost its lease changes nothing that can be seen.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace

from ragcrawl_dynamo._changes.log import Lanes
from ragcrawl_dynamo._commit.decision import CommitResult, Decision, decide
from ragcrawl_dynamo._commit.live_stats import LiveStats
from ragcrawl_dynamo._commit.run_stats import record, recorded
from ragcrawl_dynamo._content.versions import VersionStore
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier.claim import Claim, LeaseObserver, note_lost
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo._records.pages import PageStore, StoredPage, as_read
from ragcrawl_dynamo._schema.attributes import CHANGE_ORDER, REVISION
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import ConditionFailedError, ConflictError, InvalidArgumentError, LeaseLostError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus, Page, PageVersion

# Times that a page is read again because somebody else changed it meanwhile.
_ATTEMPTS = 6


@dataclass
class Fetched:
    """What is to be committed, and what of it is durable already.

    Attributes:
        page: What the fetch says of the page.
        version: Its content, if any.
        claim: The claim of its frontier item, if any.
        frontier: The queue of the run that it belongs to, if it is known.
        links: Discovered links that are not added yet.
        head: The version's head, once its body is durable.
    """

    page: Page
    version: PageVersion | None
    claim: Claim | None
    frontier: Frontier | None
    links: list[str | FrontierItem]
    head: Item | None = None

    def check(self) -> None:
        """Refuses what does not belong together.

        Raises:
            InvalidArgumentError: It does not.
        """
        page, version, claim = self.page, self.version, self.claim
        if version is not None and (version.site_id, version.page_id) != (page.site_id, page.page_id):
            raise InvalidArgumentError("version", "is of another page or site than the page")
        if claim is not None and claim.item.site_id != page.site_id:
            raise InvalidArgumentError("claim", "is of another site than the page")
        if claim is not None and version is not None and version.run_id != claim.item.run_id:
            raise InvalidArgumentError("version", "is of another run than the claim")
        if self.links and self.frontier is None:
            raise InvalidArgumentError("discovered", "needs a claim, or a version, whose run gets the links")


class Committer:
    """Commits pages of all sites, for one process."""

    def __init__(
        self,
        gateway: Gateway,
        tables: Tables,
        pages: PageStore,
        versions: VersionStore,
        lanes: Lanes,
        live: LiveStats,
        clock: Clock,
        on_lease_lost: LeaseObserver,
    ) -> None:
        self._gateway = gateway
        self._tables = tables
        self._pages = pages
        self._versions = versions
        self._lanes = lanes
        self._live = live
        self._clock = clock
        self._on_lease_lost = on_lease_lost

    async def commit(self, fetched: Fetched) -> CommitResult:
        """Commits one page; see StorageBackend.commit_page."""
        fetched.check()
        now = self._clock.now()
        for failures in range(1, _ATTEMPTS + 1):
            stored = await self._read(fetched.page)
            decision = decide(stored.page, fetched.page, fetched.version, now)
            # Refused before anything is written.
            to_item(self._tables.pages, decision.page)
            await self._prepare(fetched, decision)
            result = await self._write(fetched, decision, stored)
            if result is not None:
                return result
            await asyncio.sleep(full_jitter(self._gateway.config, failures))
        raise ConflictError(
            f"page {fetched.page.page_id!r} of site {fetched.page.site_id!r} was changed by others "
            f"{_ATTEMPTS} times in a row; nothing was committed: commit it again"
        )

    async def _read(self, page: Page) -> StoredPage:
        stored = await self._pages.read(page.site_id, page.page_id)
        found = stored.page
        if found is None or stored.revision is not None or found.current_version_id is None:
            return stored
        # Saved as a record only, it may name a version that was never saved.
        current = (found.page_id, found.current_version_id, found.site_id)
        if current in await self._versions.content_hashes([current]):
            return stored
        without = found.model_copy(update={"current_version_id": None, "content_hash": None})
        return replace(stored, page=without)

    async def _prepare(self, fetched: Fetched, decision: Decision) -> None:
        """Makes durable what nothing shows yet, once: the body and the links."""
        if decision.writes_version and fetched.head is None and fetched.version is not None:
            fetched.head = await self._versions.prepare(fetched.version)
        if fetched.links and fetched.frontier is not None:
            claim, page = fetched.claim, fetched.page
            depth = 1 + (page.depth if claim is None else claim.item.depth)
            await fetched.frontier.add(fetched.links, depth=depth, referrer_url=page.url)
            fetched.links = []

    async def _write(self, fetched: Fetched, decision: Decision, stored: StoredPage) -> CommitResult | None:
        """Writes all at once; None if others changed the page since it was read, or took its number."""
        own = secrets.token_hex(8)
        site_id, page_id = fetched.page.site_id, fetched.page.page_id
        logged = None
        if decision.change is not None:
            logged = await self._lanes.log(site_id, page_id, decision.change, stored.order)
        order = stored.order if logged is None else logged.order
        extra: Item = {REVISION: {"S": own}}
        if order is not None:
            extra[CHANGE_ORDER] = {"N": str(order)}
        page = to_item(self._tables.pages, decision.page, extra)
        writes = [requests.transact_put(self._tables.pages, page, as_read(stored))]
        claim, frontier = fetched.claim, fetched.frontier
        outcome = record(decision.result, decision.page.status_code, fetched.version)
        if claim is not None and frontier is not None:
            change = frontier.completion(claim, outcome)
            writes.append(
                requests.transact_update(self._tables.frontier, change.key, change.update, change.condition)
            )
        if decision.writes_version and fetched.head is not None:
            writes.append(requests.transact_put(self._tables.versions, fetched.head))
        if logged is not None:
            writes.append(logged.write)
        try:
            await self._gateway.call("TransactWriteItems", requests.transaction_request(own, writes))
        except ConditionFailedError as error:
            page_then = error.items[0] or {}
            if page_then.get(REVISION) != {"S": own}:
                if logged is not None:
                    self._lanes.refused(site_id, logged.place, error, -1)
                if claim is None or error.reasons[1] != "ConditionalCheckFailed":
                    return None
                return await self._earlier_result(fetched, claim, error)
            # Otherwise applied by our own first attempt, whose answer was lost.
        if claim is not None and frontier is not None:
            self._live.note(claim.item.site_id, claim.item.run_id, _as_completed(claim, outcome))
            await frontier.completed_elsewhere(claim, counted=False)
        return decision.result

    async def _earlier_result(
        self, fetched: Fetched, claim: Claim, error: ConditionFailedError
    ) -> CommitResult:
        """The result of a commit under the same lease whose end its caller did not see."""
        item = error.items[1] or {}
        is_own = item.get("lease_token") == {"S": claim.item.lease_token or ""}
        result = recorded(item) if is_own else None
        if result is None:
            note_lost(claim, self._on_lease_lost)
        if fetched.frontier is not None:
            await fetched.frontier.completed_elsewhere(claim, counted=True)
        if result is None:
            raise LeaseLostError([claim]) from error
        return result


def _as_completed(claim: Claim, outcome: Item) -> Item:
    item = claim.item
    return {
        "status": {"S": FrontierStatus.COMPLETED},
        "domain": {"S": item.domain},
        "depth": {"N": str(item.depth)},
        **outcome,
    }
