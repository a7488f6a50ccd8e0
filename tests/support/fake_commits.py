"""Fakes the stores around the commit of a page, each a few lines that note how they are called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from ragcrawl_dynamo import ChangeKind, Claim, FrontierItem, FrontierStatus, Page, PageVersion
from ragcrawl_dynamo._changes.change import LogPosition
from ragcrawl_dynamo._changes.log import PendingEntry
from ragcrawl_dynamo._commit.commit import Committer
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate
from ragcrawl_dynamo._dynamodb.expressions import Compare, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.transactions import Refusal
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._records.pages import StoredPage
from ragcrawl_dynamo._schema.attributes import CHANGE_ORDER, REVISION
from ragcrawl_dynamo._schema.keys import frontier_key
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, make_item
from tests.support.fake_run import FakeRun
from tests.support.fakes import FakeClient, client_error, open_gateway
from tests.support.hosts import at

TABLES = Tables.of("t_")

# The seconds after which the leases of claims end.
LEASE_SECONDS = 60.0


def make_claim(item_id: str = "page", **fields: Any) -> Claim:
    """Makes a claim that was made at the start."""
    item = make_item(item_id, **{"lease_token": "lease", "depth": 2, **fields})
    return Claim(item, "worker", at(LEASE_SECONDS), deadline=LEASE_SECONDS)


def as_stored(page: Page, revision: str | None = "before", order: int | None = None) -> StoredPage:
    """Returns a page as `PageStore.read` does."""
    extra: Item = {} if revision is None else {REVISION: {"S": revision}}
    if order is not None:
        extra[CHANGE_ORDER] = {"N": str(order)}
    return StoredPage(page, revision, order, to_item(TABLES.pages, page, extra))


class FakePages:
    """The pages: `stored` is what is read, and `lost_races` says how many rewrites come too late."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls
        self.stored = StoredPage()
        self.reads: list[tuple[str, str]] = []
        self.lost_races = 0
        self.rewrites: list[tuple[StoredPage, Item]] = []
        self.total = 0
        self.counted: list[tuple[str, bool]] = []

    async def read(self, site_id: str, page_id: str) -> StoredPage:
        self.reads.append((site_id, page_id))
        return self.stored

    async def rewrite(self, stored: StoredPage, item: Item, revision: WriteToken) -> bool:
        assert revision.is_in(item)
        self._calls.append("rewrite")
        self.rewrites.append((stored, item))
        self.lost_races -= 1
        return self.lost_races < 0

    async def count(self, site_id: str, include_tombstones: bool) -> int:
        self.counted.append((site_id, include_tombstones))
        return self.total


class FakeVersions:
    """The versions: `known` are those that are stored."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls
        self.known: set[tuple[str, str, str]] = set()
        self.prepared: list[tuple[str, bool, bool]] = []

    async def prepare(self, version: PageVersion, *, in_transaction: bool, is_first: bool) -> Item:
        self._calls.append("body")
        self.prepared.append((version.version_id, in_transaction, is_first))
        return {"version_id": {"S": version.version_id}, "content_hash": {"S": version.content_hash}}

    async def content_hashes(self, ids: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
        return {version_id: "hash" for version_id in ids if version_id in self.known}


class FakeLog:
    """The change log: the order of each change is one above that of the page's last one."""

    def __init__(self) -> None:
        self.is_on = True
        self.appended: list[tuple[str, str, ChangeKind, int | None]] = []
        self.refusals: list[tuple[str, int, Refusal]] = []

    def now(self) -> Any:
        return at(3)

    async def append(
        self, site_id: str, page_id: str, kind: ChangeKind, previous_order: int | None
    ) -> PendingEntry | None:
        self.appended.append((site_id, page_id, kind, previous_order))
        position = LogPosition("shard", len(self.appended))
        item: Item = {"site_id": {"S": "#site#shard"}, "page_id": {"S": str(position.sequence_number)}}
        entry = PendingEntry(position, (previous_order or 0) + 1, TABLES.pages, item)
        return entry if self.is_on else None

    def note_refusal(self, site_id: str, entry: PendingEntry, refusal: Refusal) -> None:
        self.refusals.append((site_id, entry.position.sequence_number, refusal))


class FakeQueue:
    """The queue of a run, as commits use it: `ended` is how `end_commit` ends a claim."""

    def __init__(self, calls: list[str], run_id: str) -> None:
        self._calls = calls
        self.run_id = run_id
        self.run = FakeRun()
        self.limiter = self
        self.ended = True
        self.prepared: list[tuple[Claim | None, Item, list[Any], int, str]] = []
        self.ends: list[tuple[Claim, ConditionalUpdate]] = []
        self.settled: list[dict[str, Any]] = []
        self.blocked: list[tuple[str, float]] = []
        self.paused: list[Claim] = []
        self.completed: list[tuple[Claim, bool]] = []
        self.redirects: list[dict[str, FrontierItem]] = []
        self.failures: list[Exception] = []

    async def prepare_commit(
        self, claim: Claim | None, outcome: Item, links: list[Any], *, depth: int, referrer_url: str
    ) -> ConditionalUpdate | None:
        self._calls.append("links")
        self.prepared.append((claim, outcome, list(links), depth, referrer_url))
        if claim is None:
            return None
        of_lease = Compare("lease_token", "=", {"S": claim.item.lease_token or ""})
        token = WriteToken("done_by", {"S": "token"})
        put = token.assignment
        put.update(outcome)
        return ConditionalUpdate(
            frontier_key(self.run_id, claim.item.item_id), Update(put=put), of_lease, token
        )

    async def end_commit(self, claim: Claim, end: ConditionalUpdate) -> bool:
        self._calls.append("end")
        self.ends.append((claim, end))
        return self.ended

    async def note_completed(self, claim: Claim, *, is_counted: bool) -> None:
        self._calls.append("completed")
        self.completed.append((claim, is_counted))

    def pause_host_of(self, claim: Claim, seconds: float) -> None:
        self.paused.append(claim)

    def redirected(self, also: Iterable[str], claims: list[Claim]) -> dict[str, FrontierItem]:
        return {
            url: make_item(claim.item.item_id) for url in also for claim in [*claims, make_claim("none")][:1]
        }

    async def end_redirected(self, items: dict[str, FrontierItem]) -> None:
        self._calls.append("redirects")
        self.redirects.append(items)

    async def end(
        self, claims: list[Claim], status: FrontierStatus, error: str | None, *, outcome: Item
    ) -> None:
        self._settle(claims=claims, status=status, error=error, outcome=outcome)

    async def fail(
        self, claim: Claim, error: str, retry_in: float | None, *, retry: bool, outcome: Item
    ) -> None:
        self._settle(claims=[claim], error=error, retry_in=retry_in, retry=retry, outcome=outcome)

    def _settle(self, **settled: Any) -> None:
        self._calls.append("settle")
        if self.failures:
            raise self.failures.pop(0)
        self.settled.append(settled)

    async def block(self, host: str, seconds: float) -> None:
        self.blocked.append((host, seconds))


class FakeLiveStats:
    """Notes which items were counted with which outcomes, and how often it was asked to write."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls
        self.noted: list[tuple[str, Item, str]] = []
        self.flushes = 0

    def note(self, item: FrontierItem, outcome: Item, queue: FakeQueue) -> None:
        self._calls.append("note")
        self.noted.append((item.item_id, outcome, queue.run_id))

    def flush_if_due(self) -> None:
        self.flushes += 1


class FakeCommits:
    """The stores around commits, and a committer on them. A transaction gets the next one of the answers.

    Attributes:
        calls: What was done, in order: the transactions, and the calls of stores that write.
        answers: Answers to the next requests; an exception is raised. After them, each is answered with {}.
        lost: The claims whose loss was told.
    """

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.calls: list[str] = []
        self.answers: list[Any] = []
        self.lost: list[Claim] = []
        self.client = FakeClient(self._answer)
        self.pages, self.versions = FakePages(self.calls), FakeVersions(self.calls)
        self.log, self.live_stats = FakeLog(), FakeLiveStats(self.calls)
        self.queues: dict[tuple[str, str], FakeQueue] = {}
        self.services: Any = None
        self.closed: list[tuple[str, str]] = []

    def use(self, gateway: Gateway) -> None:
        """Sets the gateway of the committer."""
        self.services = SimpleNamespace(
            gateway=gateway, tables=TABLES, clock=self.clock, on_lease_lost=self.lost.append
        )
        stores: list[Any] = [self, self.pages, self.versions, self.log, self.live_stats]
        self.committer = Committer(*stores)

    def queue(self, site_id: str, run_id: str) -> FakeQueue:
        """Returns the queue of a run, as `Frontiers` does."""
        queue = self.queues.setdefault((site_id, run_id), FakeQueue(self.calls, run_id))
        queue.run.clock = self.clock
        return queue

    async def close_run(self, site_id: str, run_id: str) -> None:
        """Notes that the queue of a run is closed."""
        self.closed.append((site_id, run_id))

    def sent(self, operation: str) -> list[Any]:
        """Returns the requests of one operation."""
        return [request for name, request in self.client.requests if name == operation]

    def _answer(self, operation: str, request: dict[str, Any]) -> Any:
        self.calls.append(operation)
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer


@asynccontextmanager
async def fake_commits() -> AsyncIterator[FakeCommits]:
    """Opens a committer on fakes."""
    commits = FakeCommits()
    async with open_gateway(commits._answer) as (gateway, client):
        commits.client = client
        commits.use(gateway)
        yield commits


def refused(**items: Item | None) -> Any:
    """An answer to a transaction: the writes with these names are refused, since the items are like that."""

    def answer(request: dict[str, Any]) -> Any:
        reasons = []
        for write in request["TransactItems"]:
            ((_, parts),) = write.items()
            name = name_of(parts)
            reason: Any = {"Code": "ConditionalCheckFailed" if name in items else "None"}
            if items.get(name):
                reason["Item"] = items[name]
            reasons.append(reason)
        raise client_error("TransactionCanceledException", CancellationReasons=reasons)

    return answer


def name_of(parts: dict[str, Any]) -> str:
    """Returns the name that a commit gives to a write of its transaction."""
    if parts["TableName"] == TABLES.pages.name:
        key = parts.get("Item") or parts["Key"]
        return "change" if key["site_id"]["S"].startswith("#") else "page"
    return {TABLES.frontier.name: "claim", TABLES.versions.name: "version"}[parts["TableName"]]


def writes_of(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the writes of a transaction by their names."""
    writes = [parts for write in request["TransactItems"] for parts in write.values()]
    return {name_of(parts): parts for parts in writes}


def revision_of(parts: dict[str, Any]) -> Item:
    """Returns an item that holds the revision of a page's write, as a lost answer leaves it."""
    return {REVISION: parts["Item"][REVISION]}
