"""The effect of each HTTP status in a commit: on the page, the change feed, the queue and the run's stats."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import (
    ChangeKind,
    Claim,
    CommitOutcome,
    CommitResult,
    DynamoDBBackend,
    Frontier,
    FrontierItem,
    FrontierStats,
    FrontierStatus,
    InvalidArgumentError,
    LeaseLostError,
    Page,
    PageVersion,
    ResponseKind,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_page, make_run, make_version
from tests.support.queues import items, url

CONTENT, NOT_MODIFIED, MOVED, REDIRECTED, GONE, DENIED, FAILED = ResponseKind
CREATED, CHANGED, DELETED = ChangeKind

# Of the queue: the item that is fetched, another URL of the page, a link on it, and a target of redirects.
URL, ALSO, LINK, TARGET = url(1), url(2), url(3), url(4)
WAYS_TO_END = {
    **dict.fromkeys((CONTENT, NOT_MODIFIED, MOVED, REDIRECTED, GONE), FrontierStatus.COMPLETED),
    DENIED: FrontierStatus.SKIPPED,
    FAILED: FrontierStatus.PENDING,
}


@dataclass(frozen=True)
class Answer:
    """An answer of a server.

    Attributes:
        status: The HTTP status; None if no answer came.
        kind: The row of the table to which the status belongs.
    """

    status: int | None
    kind: ResponseKind

    @property
    def error(self) -> str | None:
        return "ConnectTimeout: no answer in 10 s" if self.status is None else None

    @property
    def stored_error(self) -> str:
        return self.error or f"HTTP {self.status}"

    def page(self, **fields: Any) -> Page:
        # A page that was read before it was fetched can have the target of an earlier redirect.
        redirect = TARGET if self.kind in (MOVED, REDIRECTED) else url(9)
        return page(status_code=self.status, last_error=self.error, redirect_url=redirect, **fields)

    def version(self, content: str = "new") -> PageVersion | None:
        return version("v2", content, status_code=self.status) if self.kind is CONTENT else None

    def __str__(self) -> str:
        return f"{self.status}"


ANSWERS = [
    *(Answer(status, CONTENT) for status in (200, 201)),
    Answer(304, NOT_MODIFIED),
    *(Answer(status, MOVED) for status in (301, 308)),
    *(Answer(status, REDIRECTED) for status in (302, 307)),
    *(Answer(status, GONE) for status in (404, 410)),
    *(Answer(status, DENIED) for status in (401, 403, 451)),
    *(Answer(status, FAILED) for status in (408, 425, 429, 500, 503, None)),
]
# One answer of each kind.
SOME_ANSWERS = list({answer.kind: answer for answer in reversed(ANSWERS)}.values())

# By kind of an answer and state of the page: the outcome, the changes that a reader gets, and whether a
# new reader gets the page.
EXPECTED = {
    (CONTENT, "new"): (CommitOutcome.CREATED, [CREATED], True),
    (CONTENT, "content"): (CommitOutcome.CHANGED, [CHANGED], True),
    (CONTENT, "gone"): (CommitOutcome.REVIVED, [CREATED], True),
    (NOT_MODIFIED, "content"): (CommitOutcome.UNCHANGED, [], True),
    (NOT_MODIFIED, "gone"): (CommitOutcome.REVIVED, [CREATED], True),
    (MOVED, "new"): (CommitOutcome.REDIRECTED, [], False),
    (MOVED, "content"): (CommitOutcome.REDIRECTED, [DELETED], False),
    (MOVED, "gone"): (CommitOutcome.REDIRECTED, [], False),
    (REDIRECTED, "new"): (CommitOutcome.REDIRECTED, [], False),
    (REDIRECTED, "content"): (CommitOutcome.REDIRECTED, [], True),
    (REDIRECTED, "gone"): (CommitOutcome.REDIRECTED, [], False),
    (GONE, "new"): (CommitOutcome.TOMBSTONED, [DELETED], False),
    (GONE, "content"): (CommitOutcome.TOMBSTONED, [DELETED], False),
    (GONE, "gone"): (CommitOutcome.UNCHANGED, [], False),
    (DENIED, "new"): (CommitOutcome.DENIED, [], False),
    (DENIED, "content"): (CommitOutcome.DENIED, [], True),
    (DENIED, "gone"): (CommitOutcome.DENIED, [], False),
    (FAILED, "new"): (CommitOutcome.FAILED, [], False),
    (FAILED, "content"): (CommitOutcome.FAILED, [], True),
    (FAILED, "gone"): (CommitOutcome.FAILED, [], False),
}
STATES = ("new", "content", "gone")
COUNTED_AS = {
    CommitOutcome.CREATED: "pages_new",
    CommitOutcome.CHANGED: "pages_changed",
    CommitOutcome.REVIVED: "pages_changed",
    CommitOutcome.UNCHANGED: "pages_unchanged",
    CommitOutcome.TOMBSTONED: "pages_deleted",
}


def page(**fields: Any) -> Page:
    return make_page("page", **{"url": URL, **fields})


def version(version_id: str, content: str, **fields: Any) -> PageVersion:
    return make_version(version_id, "page", url=URL, markdown=content, content_hash=content, **fields)


@dataclass
class Crawl:
    """A page in some state, a run whose only item is the page's, and a reader of the changes."""

    backend: DynamoDBBackend
    frontier: Frontier
    clock: ManualClock
    state: str
    before: Page | None
    cursor: str
    claim: Claim

    @classmethod
    async def begin(
        cls, backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock, state: str
    ) -> Crawl:
        if state != "new":
            await backend.commit_page(page(status_code=200, etag="e1"), version("v1", "old"))
        if state == "gone":
            clock.advance(60)
            await backend.commit_page(page(status_code=404))
        clock.advance(60)
        await backend.save_run(make_run(status="running"))
        cursor = await backend.get_change_cursor("site")
        assert cursor is not None
        await frontier.add([URL])
        (claim,) = await frontier.claim(lease_seconds=10)
        before = await backend.get_page("site", "page")
        clock.advance(1)
        return cls(backend, frontier, clock, state, before, cursor, claim)

    async def commit(self, answer: Answer, **options: Any) -> CommitResult:
        """Commits an answer, with a link and another URL of the page."""
        return await self.backend.commit_page(
            answer.page(),
            answer.version(),
            **{"claim": self.claim, "discovered": [LINK], "also": [ALSO], **options},
        )

    async def page(self) -> Page | None:
        return await self.backend.get_page("site", "page")

    async def items(self) -> dict[str, FrontierItem]:
        return await items(self.backend)

    async def changes(self) -> list[ChangeKind]:
        """Returns the changes for a reader that began before the commit."""
        part = await self.backend.list_changes("site", cursor=self.cursor)
        assert part.is_end
        return [change.kind for change in part]

    async def is_listed(self) -> bool:
        """Whether a reader that begins now gets the page."""
        part = await self.backend.list_changes("site")
        assert {change.kind for change in part} <= {CREATED}
        return [change.page.page_id for change in part] == ["page"]

    async def check_unchanged(self) -> None:
        """Page, changes and queue are as they were when the item was claimed."""
        assert await self.page() == self.before
        assert await self.changes() == []
        assert await self.is_listed() == (self.state == "content")
        stored = await self.items()
        assert set(stored) == {URL}
        assert (stored[URL].status, stored[URL].last_error) == (FrontierStatus.IN_PROGRESS, None)
        assert (stored[URL].retry_count, stored[URL].scheduled_at) == (0, None)
        assert [host.blocked_until async for host in self.frontier.iter_hosts()] == [None]


@pytest.fixture
def begin(backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock) -> Any:
    async def begin(state: str) -> Crawl:
        return await Crawl.begin(backend, frontier, clock, state)

    return begin


answers = pytest.mark.parametrize("answer", ANSWERS, ids=str)
some_answers = pytest.mark.parametrize("answer", SOME_ANSWERS, ids=str)
states = pytest.mark.parametrize("state", STATES)


@states
@answers
async def test_commit_page_by_status(begin: Any, state: str, answer: Answer) -> None:
    crawl = await begin(state)
    expected = EXPECTED.get((answer.kind, state))
    if expected is None:
        with pytest.raises(InvalidArgumentError, match="status 304, but no content of page 'page' is stored"):
            await crawl.commit(answer)
        await crawl.check_unchanged()
        return
    outcome, changes, is_listed = expected
    result = await crawl.commit(answer)
    is_answered = answer.kind not in (DENIED, FAILED)
    version_id = "v2" if answer.kind is CONTENT else None if state == "new" else "v1"
    assert result == CommitResult(outcome, version_id)

    await check_page(crawl, answer, await crawl.page())
    assert await crawl.changes() == changes
    assert await crawl.is_listed() == is_listed
    current = await crawl.backend.get_current_version("site", "page")
    assert (None if current is None else current.markdown) == {"v1": "old", "v2": "new", None: None}[
        version_id
    ]
    versions = await crawl.backend.list_versions(site_id="site", page_id="page")
    assert len(versions) == (state != "new") + (answer.kind is CONTENT)

    stored = await crawl.items()
    item = stored.pop(URL)
    assert item.status is WAYS_TO_END[answer.kind]
    assert item.last_error == (None if is_answered else answer.stored_error)
    assert item.retry_count == (answer.kind is FAILED)
    if answer.kind is FAILED:
        assert item.scheduled_at is not None
        # `frontier_retry_delay`, shortened by up to a half.
        delay = (item.scheduled_at - crawl.clock.now()).total_seconds()
        assert 2 <= delay <= 4
    else:
        assert item.scheduled_at is None
    targets = {TARGET: FrontierStatus.PENDING} if answer.kind in (MOVED, REDIRECTED) else {}
    others = {ALSO: FrontierStatus.COMPLETED, LINK: FrontierStatus.PENDING} if is_answered else {}
    assert {link: other.status for link, other in stored.items()} == {**others, **targets}
    if TARGET in stored:
        assert (stored[TARGET].referrer_url, stored[TARGET].depth) == (URL, 1)
    assert crawl.claim.ended
    assert not crawl.claim.lost
    assert crawl.claim.settled_as is item.status
    assert await blocks(crawl) == [None]

    run = await crawl.backend.complete_run("site", "run")
    stats = run.stats
    counted = {name: getattr(stats, name) for name in set(COUNTED_AS.values()) if getattr(stats, name)}
    # A page that is gone counts only if it was there.
    is_counted = outcome in COUNTED_AS and (answer.kind is not GONE or crawl.state == "content")
    assert counted == ({COUNTED_AS[outcome]: 1} if is_counted else {})
    assert stats.pages_crawled == (2 if is_answered else 0)
    assert (stats.pages_skipped, stats.pages_failed) == (answer.kind is DENIED, 0)
    # A failed item is still open.
    assert stats.status_codes == ({} if answer.kind is FAILED else {answer.status: 1})
    assert stats.errors_by_type == {}


async def check_page(crawl: Crawl, answer: Answer, stored: Page | None) -> None:
    """Checks the page after a commit."""
    before, now = crawl.before, crawl.clock.now()
    if answer.kind in (DENIED, FAILED):
        if before is None:
            assert stored is None
            return
        seen = {"last_seen": now} if answer.kind is DENIED else {}
        assert stored == before.model_copy(
            update={
                "status_code": answer.status,
                "error_count": 1,
                "last_error": answer.stored_error,
                **seen,
            }
        )
        return
    assert stored is not None
    # What was not modified has the status of its content.
    status = 200 if answer.kind is NOT_MODIFIED else answer.status
    assert (stored.status_code, stored.last_seen, stored.last_crawled) == (status, now, now)
    assert (stored.error_count, stored.last_error) == (0, None)
    assert stored.redirect_url == (TARGET if answer.kind in (MOVED, REDIRECTED) else None)
    assert stored.version_count == (before is not None) + (answer.kind is CONTENT)
    if before is not None:
        assert stored.first_seen == before.first_seen
    _, changes, is_listed = EXPECTED[answer.kind, crawl.state]
    assert stored.is_tombstone == (not is_listed)
    before_changed = None if before is None else before.last_changed
    assert stored.last_changed == (now if changes else before_changed)


@states
@some_answers
async def test_commit_page_by_status_without_a_claim(begin: Any, state: str, answer: Answer) -> None:
    """The page and its changes are the same; the queue stays."""
    crawl = await begin(state)
    expected = EXPECTED.get((answer.kind, state))
    options = {"claim": None, "discovered": (), "also": ()}
    if expected is None:
        with pytest.raises(InvalidArgumentError):
            await crawl.commit(answer, **options)
    else:
        outcome, changes, is_listed = expected
        assert (await crawl.commit(answer, **options)).outcome is outcome
        await check_page(crawl, answer, await crawl.page())
        assert await crawl.changes() == changes
        assert await crawl.is_listed() == is_listed
    assert {link: item.status for link, item in (await crawl.items()).items()} == {
        URL: FrontierStatus.IN_PROGRESS
    }


# Fields of a page without content that no commit accepts.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"status_code": 400}, "status_code: 400 has no meaning for a page"),
    ({"status_code": 418}, "status_code: 418 has no meaning for a page"),
    ({"status_code": 300}, "status_code: 300 has no meaning for a page"),
    ({"status_code": 200}, "version: is None, but status 200 needs content"),
    ({"status_code": 204}, "version: is None, but status 204 needs content"),
    ({"status_code": 301}, "page: has no redirect_url, but status 301"),
    ({"status_code": 302}, "page: has no redirect_url, but status 302"),
    ({}, "page: has neither status_code nor last_error"),
]


@states
async def test_commit_page_of_a_status_that_is_refused_changes_nothing(begin: Any, state: str) -> None:
    crawl = await begin(state)
    for fields, message in REFUSED:
        with pytest.raises(InvalidArgumentError, match=message):
            await crawl.backend.commit_page(page(**fields), claim=crawl.claim, discovered=[LINK], also=[ALSO])
        await crawl.check_unchanged()
    # The lease continues.
    assert not crawl.claim.ended
    await crawl.frontier.skip(crawl.claim, "HTTP 400")


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (GONE, CommitOutcome.TOMBSTONED),
        (DENIED, CommitOutcome.DENIED),
        (FAILED, CommitOutcome.FAILED),
        (NOT_MODIFIED, CommitOutcome.UNCHANGED),
    ],
)
@pytest.mark.parametrize("status", [200, 418])
async def test_commit_page_kind_overrules_the_status(
    begin: Any, status: int, kind: ResponseKind, outcome: CommitOutcome
) -> None:
    crawl = await begin("content")
    result = await crawl.backend.commit_page(page(status_code=status), claim=crawl.claim, kind=kind)
    assert result == CommitResult(outcome, "v1")
    stored = await crawl.page()
    assert stored is not None
    status_of_page = 200 if kind is NOT_MODIFIED else status
    assert (stored.status_code, stored.is_tombstone) == (status_of_page, kind is GONE)
    assert (await crawl.items())[URL].status is WAYS_TO_END[kind]


async def test_commit_page_kind_content_stores_the_content_of_any_status(begin: Any) -> None:
    crawl = await begin("content")
    soft = version("v2", "an error page that is wanted", status_code=500)
    result = await crawl.backend.commit_page(page(status_code=500), soft, claim=crawl.claim, kind=CONTENT)
    assert result == CommitResult(CommitOutcome.CHANGED, "v2")


async def test_commit_page_refuses_an_unknown_kind(begin: Any) -> None:
    crawl = await begin("new")
    with pytest.raises(InvalidArgumentError, match="kind"):
        await crawl.commit(Answer(404, GONE), kind="gone")
    with pytest.raises(InvalidArgumentError, match="retry_after"):
        await crawl.commit(Answer(404, GONE), retry_after=-1)
    await crawl.check_unchanged()


@pytest.mark.parametrize("state", ["content", "new"])
@pytest.mark.parametrize("status", [503, None])
async def test_commit_page_that_fails_each_time_leaves_a_dead_letter(
    begin: Any, state: str, status: int | None
) -> None:
    crawl, answer = await begin(state), Answer(status, FAILED)
    for attempt in range(1, 4):
        result = await crawl.commit(answer)
        assert result == CommitResult(CommitOutcome.FAILED, "v1" if state == "content" else None)
        stored = await crawl.page()
        assert (None if stored is None else stored.error_count) == (None if state == "new" else attempt)
        item = (await crawl.items())[URL]
        assert (item.retry_count, item.last_error) == (attempt, answer.stored_error)
        if attempt < 3:
            assert item.status is FrontierStatus.PENDING
            assert await crawl.frontier.claim() == []
            crawl.clock.advance(20)
            (crawl.claim,) = await crawl.frontier.claim()
    assert item.status is FrontierStatus.FAILED
    assert crawl.claim.settled_as is FrontierStatus.FAILED
    assert await crawl.frontier.stats() == FrontierStats(failed=1)
    assert await crawl.frontier.is_finished()
    assert await crawl.changes() == []
    assert set(await crawl.items()) == {URL}
    run = await crawl.backend.complete_run("site", "run")
    assert (run.status, run.stats.pages_failed, run.stats.pages_crawled) == ("partial", 1, 0)
    assert run.stats.errors_by_type == {"ConnectTimeout" if status is None else "HTTP 503": 1}
    assert run.stats.status_codes == ({} if status is None else {503: 1})
    # The page is as readers know it, and the next success forgets the errors.
    assert await crawl.is_listed() == (state == "content")
    await crawl.backend.commit_page(page(status_code=200), version("v9", "new"))
    stored = await crawl.page()
    assert stored is not None
    assert (stored.error_count, stored.last_error, stored.current_version_id) == (0, None, "v9")


async def test_complete_run_forgets_the_status_of_a_dead_letter_that_was_requeued(begin: Any) -> None:
    crawl = await begin("content")
    for _ in range(3):
        await crawl.commit(Answer(503, FAILED))
        crawl.clock.advance(20)
        # There is none after the last failure.
        crawl.claim = next(iter(await crawl.frontier.claim()), crawl.claim)
    assert (await crawl.backend.complete_run("site", "run")).stats.status_codes == {503: 1}
    assert await crawl.frontier.requeue_failed() == 1
    assert (await crawl.backend.complete_run("site", "run")).stats.status_codes == {}
    (claim,) = await crawl.frontier.claim()
    await crawl.frontier.complete(claim)
    run = await crawl.backend.complete_run("site", "run")
    assert (run.stats.pages_crawled, run.stats.status_codes) == (1, {})


async def test_commit_page_retry_after_delays_the_item_and_blocks_its_host(begin: Any) -> None:
    crawl = await begin("content")
    await crawl.frontier.add([url(5), url(5, "b.example")])
    await crawl.commit(Answer(429, FAILED), retry_after=30)
    until = crawl.clock.now() + timedelta(seconds=30)
    assert (await crawl.items())[URL].scheduled_at == until
    hosts = {host.host: host.blocked_until async for host in crawl.frontier.iter_hosts()}
    assert hosts == {"a.example": until, "b.example": None}
    assert [claim.item.url for claim in await crawl.frontier.claim()] == [url(5, "b.example")]
    crawl.clock.advance(29)
    assert await crawl.frontier.claim() == []
    crawl.clock.advance(1)
    assert {claim.item.url for claim in await crawl.frontier.claim()} == {URL, url(5)}


@pytest.mark.parametrize("is_limited", [False, True])
async def test_commit_page_retry_after_blocks_the_host_of_a_dead_letter_too(
    begin: Any, is_limited: bool
) -> None:
    crawl = await begin("content")
    if is_limited:
        # Then this process knows the limits of the host, and that it is not blocked.
        await crawl.frontier.set_host_max_in_flight("a.example", 5)
    await fail_twice(crawl)
    await crawl.commit(Answer(503, FAILED), retry_after=30)
    assert (await crawl.items())[URL].status is FrontierStatus.FAILED
    assert await blocks(crawl) == [crawl.clock.now() + timedelta(seconds=30)]


async def fail_twice(crawl: Crawl) -> None:
    """The next failure of the item is the last one."""
    for _ in range(2):
        await crawl.frontier.fail(crawl.claim, "x", retry_in=0)
        (crawl.claim,) = await crawl.frontier.claim()


async def blocks(crawl: Crawl) -> list[datetime | None]:
    """Until when each host is blocked."""
    return [host.blocked_until async for host in crawl.frontier.iter_hosts()]


@pytest.mark.parametrize("status", [429, 403, 404])
async def test_commit_page_retry_after_counts_for_failures_only(begin: Any, status: int) -> None:
    crawl = await begin("content")
    is_failure = status == 429
    kind = ResponseKind.of(status)
    await crawl.commit(Answer(status, kind), retry_after=30)
    assert await blocks(crawl) == [crawl.clock.now() + timedelta(seconds=30) if is_failure else None]


async def test_commit_page_retry_after_zero_lets_the_item_be_claimed_at_once(begin: Any) -> None:
    crawl = await begin("content")
    await crawl.commit(Answer(503, FAILED), retry_after=0)
    assert await blocks(crawl) == [None]
    assert [claim.item.url for claim in await crawl.frontier.claim()] == [URL]


@pytest.mark.parametrize("is_last", [False, True])
async def test_commit_page_retry_after_does_not_shorten_a_longer_block(begin: Any, is_last: bool) -> None:
    crawl = await begin("content")
    if is_last:
        await fail_twice(crawl)
    until = crawl.clock.now() + timedelta(hours=1)
    async with DynamoDBBackend(crawl.backend.config, clock=crawl.clock) as other:
        # The process that commits does not know of it.
        await other.frontier("site", "run").block_host("a.example", until)
    await crawl.commit(Answer(429, FAILED), retry_after=10)
    assert await blocks(crawl) == [until]


REPEATABLE = [answer for answer in SOME_ANSWERS if answer.kind is not NOT_MODIFIED]


@pytest.mark.parametrize("answer", REPEATABLE, ids=str)
@pytest.mark.parametrize("state", ["new", "content"])
async def test_commit_page_repeated_under_the_same_claim_changes_nothing_more(
    begin: Any, state: str, answer: Answer
) -> None:
    crawl = await begin(state)
    first = await crawl.commit(answer)
    after, stored = await crawl.page(), await crawl.items()
    changes, counts = await crawl.changes(), await crawl.frontier.stats()
    crawl.clock.advance(1)
    assert await crawl.commit(answer) == first
    assert await crawl.page() == after
    assert await crawl.changes() == changes
    repeated = await crawl.items()
    assert repeated[URL] == stored[URL]
    assert {link: item.status for link, item in repeated.items()} == {
        link: item.status for link, item in stored.items()
    }
    assert await crawl.frontier.stats() == counts
    assert not crawl.claim.lost


@some_answers
async def test_commit_page_whose_lease_was_lost_changes_nothing(begin: Any, answer: Answer) -> None:
    crawl = await begin("content")
    crawl.clock.advance(12)
    (new,) = await crawl.frontier.claim()
    before = await crawl.items()
    with pytest.raises(LeaseLostError) as caught:
        await crawl.commit(answer, discovered=[], also=[], retry_after=30)
    assert caught.value.claims == (crawl.claim,)
    assert crawl.claim.lost
    assert crawl.claim.settled_as is None
    assert await crawl.page() == crawl.before
    assert await crawl.changes() == []
    after = await crawl.items()
    after.pop(TARGET, None)
    assert after == before
    assert await blocks(crawl) == [None]
    await crawl.frontier.complete(new)


@some_answers
async def test_commit_page_of_a_claim_that_was_settled_otherwise_raises(begin: Any, answer: Answer) -> None:
    crawl = await begin("content")
    if answer.kind is DENIED:
        await crawl.frontier.complete(crawl.claim)
    else:
        await crawl.frontier.skip(crawl.claim, "unwanted")
    settled_as = crawl.claim.settled_as
    with pytest.raises(LeaseLostError):
        await crawl.commit(answer, discovered=[], also=[])
    assert await crawl.page() == crawl.before
    assert await crawl.changes() == []
    assert (await crawl.items())[URL].status is settled_as
    assert crawl.claim.settled_as is settled_as


@pytest.mark.parametrize(
    "answer", [Answer(503, FAILED), Answer(403, DENIED), Answer(302, REDIRECTED)], ids=str
)
async def test_commit_page_that_is_no_change_leaves_the_page_its_latest_change(
    begin: Any, answer: Answer
) -> None:
    crawl = await begin("new")
    for content in ("one", "two"):
        crawl.clock.advance(1)
        await crawl.backend.commit_page(page(status_code=200), version(content, content))
    await crawl.commit(answer)
    kinds, cursor = [], crawl.cursor
    while True:
        part = await crawl.backend.list_changes("site", limit=1, cursor=cursor)
        kinds += [change.kind for change in part]
        cursor = part.cursor
        if part.is_end:
            break
    # The entry of the first change is not of interest any more.
    assert kinds == [CHANGED]


async def test_commit_page_of_a_redirect_queues_the_resolved_target_and_stores_it_as_sent(begin: Any) -> None:
    crawl = await begin("new")
    await crawl.backend.commit_page(page(status_code=308, redirect_url="/moved"), claim=crawl.claim)
    stored = await crawl.page()
    assert stored is not None
    assert stored.redirect_url == "/moved"
    assert url(0).replace("/0", "/moved") in await crawl.items()


async def test_commit_page_of_a_redirect_to_a_target_that_is_no_link_stores_the_redirect(begin: Any) -> None:
    crawl = await begin("content")
    result = await crawl.backend.commit_page(
        page(status_code=301, redirect_url="mailto:a@b.example"), claim=crawl.claim
    )
    assert result.outcome is CommitOutcome.REDIRECTED
    assert await crawl.changes() == [DELETED]
    assert {link: item.status for link, item in (await crawl.items()).items()} == {
        URL: FrontierStatus.COMPLETED
    }


async def test_commit_page_of_an_alias_that_has_content_again_is_revived(begin: Any) -> None:
    crawl = await begin("content")
    await crawl.commit(Answer(301, MOVED))
    assert await crawl.changes() == [DELETED]
    result = await crawl.backend.commit_page(page(status_code=200), version("v2", "old"))
    assert result == CommitResult(CommitOutcome.REVIVED, "v1")
    assert await crawl.changes() == [CREATED]
    stored = await crawl.page()
    assert stored is not None
    assert (stored.redirect_url, stored.is_tombstone) == (None, False)


async def test_commit_page_does_not_change_the_links_that_the_caller_passed(begin: Any) -> None:
    crawl = await begin("new")
    links = [LINK]
    await crawl.commit(Answer(301, MOVED), discovered=links)
    assert links == [LINK]
