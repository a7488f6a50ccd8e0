"""Commits of unchanged pages, whose two writes are interrupted, on DynamoDB Local.

The freshness of the page is written first, and then the claim is ended.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import (
    Claim,
    CommitOutcome,
    CommitResult,
    ConflictError,
    DynamoDBBackend,
    DynamoDBConfig,
    EndpointUnreachableError,
    FrontierStats,
    LeaseLostError,
    Page,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.integration.commit.interrupted import (
    WAYS,
    abandoned,
    clock,
    config_of,
    given_up,
    is_page,
    stored_page,
)
from tests.support import commit_worker, processes
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page, make_run, make_version
from tests.support.fakes import intercepting
from tests.support.queues import url

__all__ = ["clock"]

pytestmark = on_dynamodb_local

UNCHANGED = CommitResult(CommitOutcome.UNCHANGED, "v1")


def page(**fields: Any) -> Page:
    return make_page("page", **{"status_code": 200, **fields})


def is_end(operation: str, request: dict[str, Any]) -> bool:
    """Whether a request ends a claim: it is the one that stores an outcome outside of a transaction."""
    return operation in ("update_item", "batch_execute_statement") and "outcome" in str(request)


@pytest_asyncio.fixture
async def backend(dynamodb_config: DynamoDBConfig, clock: ManualClock) -> AsyncIterator[DynamoDBBackend]:
    """A backend whose site has one page, committed a minute ago, and a run that is to crawl it again."""
    async with DynamoDBBackend(config_of(dynamodb_config), clock=clock) as backend:
        await backend.commit_page(page(), make_version("v1"))
        clock.advance(60)
        await backend.save_run(make_run(status="running", started_at=clock.now()))
        clock.advance(1)
        await backend.frontier("site", "run").add([url(1)])
        yield backend


async def claim_one(backend: DynamoDBBackend) -> Claim:
    (claim,) = await backend.frontier("site", "run").claim(lease_seconds=10)
    return claim


@WAYS
@pytest.mark.parametrize("writes", [0, 1])
async def test_commit_page_unchanged_cut_off_between_its_writes_leaves_an_item_to_crawl_again(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, way: str, writes: int
) -> None:
    """After `writes` of the two writes nothing arrives any more, as if the machine had lost its power."""
    sent = 0

    async def loses_power(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal sent
        if sent == writes and (operation == "transact_write_items" or is_page(operation, request)):
            raise EndpointConnectionError(endpoint_url="off")
        if sent == writes and is_end(operation, request):
            raise EndpointConnectionError(endpoint_url="off")
        sent += is_page(operation, request) or is_end(operation, request)
        return await call(**request)

    crawled_before = (await stored_page(backend)).last_crawled
    config = config_of(dynamodb_config, conditional_batches=way, retry_attempts=1)
    async with DynamoDBBackend(config, client_factory=intercepting(loses_power), clock=clock) as dying:
        claim = await claim_one(dying)
        with pytest.raises(EndpointUnreachableError):
            await given_up(dying.commit_page(page(), make_version("v2"), claim=claim), clock)
    assert sent == writes
    assert ((await stored_page(backend)).last_crawled != crawled_before) == (writes == 1)
    # No item that is completed has a page that looks unseen.
    frontier = backend.frontier("site", "run")
    assert not await frontier.is_finished()
    clock.advance(12)
    assert await backend.commit_page(page(), make_version("v2"), claim=await claim_one(backend)) == UNCHANGED
    assert (await stored_page(backend)).last_crawled == clock.now()
    run = await backend.complete_run("site", "run")
    assert (run.stats.pages_crawled, run.stats.pages_unchanged) == (1, 1)
    assert await backend.get_unseen_pages("site", "run") == []


@WAYS
@pytest.mark.parametrize("lost", [is_page, is_end])
async def test_commit_page_unchanged_whose_answers_were_lost_is_done_once(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, way: str, lost: Any
) -> None:
    count = 0

    async def loses(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal count
        is_hit = lost(operation, request)
        count += is_hit
        answer = await call(**request)
        if is_hit and count == 1:
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    config = config_of(dynamodb_config, conditional_batches=way)
    async with DynamoDBBackend(config, client_factory=intercepting(loses), clock=clock) as other:
        claim = await claim_one(other)
        assert await other.commit_page(page(), make_version("v2"), claim=claim) == UNCHANGED
        assert count == 2
        assert claim.ended
        assert not claim.lost
        assert await other.frontier("site", "run").stats() == FrontierStats(completed=1)
    run = await backend.get_run("site", "run")
    assert run is not None
    assert (run.stats.pages_crawled, run.stats.pages_unchanged) == (1, 1)
    assert (await stored_page(backend)).version_count == 1


@WAYS
async def test_commit_page_unchanged_repeated_after_a_lost_end_returns_the_recorded_result(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, way: str
) -> None:
    """The claim was ended, but its caller was cancelled: the lease seems to run when it commits again."""
    is_cut = True
    is_lost = asyncio.Event()

    async def loses(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        if is_cut and is_end(operation, request):
            is_lost.set()
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    config = config_of(dynamodb_config, conditional_batches=way, retry_attempts=1)
    async with DynamoDBBackend(config, client_factory=intercepting(loses), clock=clock) as other:
        claim = await claim_one(other)
        await abandoned(other.commit_page(page(), make_version("v2"), claim=claim), is_lost)
        is_cut = False
        assert not claim.ended
        assert await other.commit_page(page(), make_version("v2"), claim=claim) == UNCHANGED
        assert claim.ended
        assert not claim.lost
        # A later change of the page does not change the result.
        await backend.commit_page(page(), make_version("v3", content_hash="other"))
        assert await other.commit_page(page(), make_version("v2"), claim=claim) == UNCHANGED
    run = await backend.complete_run("site", "run")
    assert (run.stats.pages_crawled, run.stats.pages_unchanged) == (1, 1)


async def test_commit_page_unchanged_repeats_the_outcome_that_a_changing_commit_recorded(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    """The first call created the page; to the second one, whose lease seems to run, it is unchanged."""
    is_lost = asyncio.Event()

    async def loses(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        if operation == "transact_write_items":
            is_lost.set()
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    config = config_of(dynamodb_config, retry_attempts=1)
    async with DynamoDBBackend(config, client_factory=intercepting(loses), clock=clock) as other:
        claim = await claim_one(other)
        new = make_page("new", status_code=200), make_version("v1", "new")
        await abandoned(other.commit_page(*new, claim=claim), is_lost)
        assert await other.commit_page(*new, claim=claim) == CommitResult(CommitOutcome.CREATED, "v1")
    run = await backend.complete_run("site", "run")
    assert (run.stats.pages_new, run.stats.pages_unchanged) == (1, 0)


async def test_commit_page_unchanged_by_a_superseded_worker_raises_and_writes_freshness_only(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    """The clock of the first worker stands still, so that its lease seems to run."""
    slow_clock = ManualClock(clock.now())
    lost: list[Claim] = []
    async with DynamoDBBackend(
        config_of(dynamodb_config), clock=slow_clock, on_lease_lost=lost.append
    ) as slow:
        old = await claim_one(slow)
        clock.advance(12)
        new = await claim_one(backend)
        before = await stored_page(backend)
        slow_clock.advance(1)
        with pytest.raises(LeaseLostError) as caught:
            await slow.commit_page(page(), make_version("v2"), claim=old)
        assert caught.value.claims == (old,)
        assert lost == [old]
        assert old.ended
        assert old.lost
        moment = slow_clock.now()
        fresh = {"last_crawled": moment, "last_seen": moment}
        assert await stored_page(backend) == before.model_copy(update=fresh)
        # The end of the claim is that of the worker that has the lease.
        assert await backend.commit_page(page(), make_version("v2"), claim=new) == UNCHANGED
    run = await backend.complete_run("site", "run")
    assert (run.stats.pages_crawled, run.stats.pages_unchanged) == (1, 1)


class StillClock(ManualClock):
    """A clock of which one time stands still: the machine sleeps, or its time of day is set back."""

    def __init__(self, start: datetime, still: str) -> None:
        super().__init__(start)
        self._still = still

    def now(self) -> datetime:
        return self._start if self._still == "now" else super().now()

    def monotonic(self) -> float:
        return 0.0 if self._still == "monotonic" else super().monotonic()


@pytest.mark.parametrize("still", ["now", "monotonic"])
async def test_commit_page_unchanged_writes_nothing_if_either_clock_says_that_the_lease_is_over(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, still: str
) -> None:
    other_clock = StillClock(clock.now(), still)
    async with DynamoDBBackend(config_of(dynamodb_config), clock=other_clock) as other:
        old = await claim_one(other)
        clock.advance(12)
        other_clock.advance(12)
        new = await claim_one(backend)
        before = await stored_page(backend)
        with pytest.raises(LeaseLostError):
            await other.commit_page(page(), make_version("v2"), claim=old)
        assert await stored_page(backend) == before
        assert await backend.commit_page(page(), make_version("v2"), claim=new) == UNCHANGED


@pytest.mark.parametrize("status", [200, 304])
async def test_commit_page_unchanged_does_not_overwrite_what_the_worker_that_superseded_it_committed(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, status: int
) -> None:
    """A worker stalls before its first write; meanwhile its lease ends and the page changes."""
    is_stalled = True

    async def stalls(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal is_stalled
        if is_stalled and is_page(operation, request):
            is_stalled = False
            clock.advance(12)
            new = await claim_one(backend)
            changed = make_version("v2", content_hash="new")
            await backend.commit_page(page(etag="new"), changed, claim=new)
        return await call(**request)

    async with DynamoDBBackend(
        config_of(dynamodb_config), client_factory=intercepting(stalls), clock=clock
    ) as slow:
        claim = await claim_one(slow)
        version = make_version("v1") if status == 200 else None
        with pytest.raises(LeaseLostError):
            await slow.commit_page(page(etag="old", status_code=status), version, claim=claim)
    assert not is_stalled
    stored = await stored_page(backend)
    # An old etag beside the new content would make a server say that the new content is unchanged.
    assert (stored.etag, stored.current_version_id, stored.status_code) == ("new", "v2", 200)


async def test_commit_page_unchanged_decides_again_if_the_page_changes_meanwhile(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    is_first = True

    async def meddles(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal is_first
        if is_first and is_page(operation, request):
            is_first = False
            await backend.tombstone_pages("site", ["page"], allow_mass_deletion=True)
        return await call(**request)

    async with DynamoDBBackend(
        config_of(dynamodb_config), client_factory=intercepting(meddles), clock=clock
    ) as other:
        result = await other.commit_page(page(), make_version("v2"), claim=await claim_one(other))
    assert result == CommitResult(CommitOutcome.REVIVED, "v1")


async def test_commit_page_unchanged_of_a_page_that_keeps_changing_is_a_conflict(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    async def meddles(operation: str, request: dict[str, Any], call: Any) -> Any:
        if is_page(operation, request):
            await backend.commit_page(page(), make_version("v2"))
        return await call(**request)

    async with DynamoDBBackend(
        config_of(dynamodb_config), client_factory=intercepting(meddles), clock=clock
    ) as other:
        claim = await claim_one(other)
        with pytest.raises(ConflictError, match="was changed by other writers 6 times in a row"):
            await other.commit_page(page(), make_version("v2"), claim=claim)
        assert not claim.ended
        await other.frontier("site", "run").release(claim)


@WAYS
async def test_commit_page_unchanged_that_is_cancelled_while_its_claim_ends_is_counted(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, way: str
) -> None:
    ending, go_on = asyncio.Event(), asyncio.Event()

    async def holds(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        if is_end(operation, request):
            ending.set()
            await go_on.wait()
        return answer

    config = config_of(dynamodb_config, conditional_batches=way)
    async with DynamoDBBackend(config, client_factory=intercepting(holds), clock=clock) as other:
        frontier = other.frontier("site", "run")
        await frontier.set_host_max_in_flight("a.example", 1)
        claim = await claim_one(other)
        task = asyncio.create_task(other.commit_page(page(), make_version("v2"), claim=claim))
        await ending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    assert claim.ended
    hosts = [host async for host in backend.frontier("site", "run").iter_hosts()]
    assert [host.in_flight for host in hosts] == [0]
    run = await backend.get_run("site", "run")
    assert run is not None
    assert (run.stats.pages_crawled, run.stats.pages_unchanged) == (1, 1)


async def test_commit_page_unchanged_sends_no_transaction(backend: DynamoDBBackend) -> None:
    def transactions() -> int:
        return sum(
            count.requests for (name, _), count in backend.metrics().items() if name == "TransactWriteItems"
        )

    before = transactions()
    assert await backend.commit_page(page(), make_version("v2"), claim=await claim_one(backend)) == UNCHANGED
    assert await backend.commit_page(page(), make_version("v2")) == UNCHANGED
    # A page that `save_page` wrote has no revision.
    await backend.save_page(page(current_version_id="v1", content_hash="c0ffee"))
    assert await backend.commit_page(page(), make_version("v2")) == UNCHANGED
    # Absent fields are removed, as by every commit.
    await backend.save_page(page(current_version_id="v1", content_hash="c0ffee", etag="old"))
    assert await backend.commit_page(page(), make_version("v2")) == UNCHANGED
    assert (await stored_page(backend)).etag is None
    assert transactions() == before


@pytest.mark.long
async def test_commit_page_unchanged_once_though_the_worker_is_killed_at_any_step(
    dynamodb_config: DynamoDBConfig,
) -> None:
    """Every request of a commit, in turn, before it is sent and after the engine applied it."""

    async def work(config: DynamoDBConfig, *step: Any) -> int:
        process = processes.start(commit_worker.work, str(config.endpoint_url), config.table_prefix, *step)
        try:
            return await processes.ended(process)
        finally:
            process.kill()

    async def crawl(step: int, moment: str) -> int:
        step_config = dynamodb_config.model_copy(
            update={"table_prefix": f"{dynamodb_config.table_prefix}{step}{moment}_"}
        )
        worker_config = commit_worker.settings(str(step_config.endpoint_url), step_config.table_prefix)
        async with DynamoDBBackend(worker_config) as backend:
            await backend.frontier("site", "run").add([commit_worker.url(0)])
            assert await work(step_config) == 0
            started_at = max([page.last_crawled or datetime.min async for page in backend.iter_pages("site")])
            frontier = backend.frontier("site", "again")
            await frontier.add([commit_worker.url(0)])
            code = await work(step_config, step, moment, "again")
            completed = {
                item.item_id
                for item in await backend.get_frontier_items("again")
                if item.status == "completed"
            }
            async for page in backend.iter_pages("site"):
                assert page.last_crawled is not None
                # No item is completed before its page is fresh.
                assert page.page_id not in completed or page.last_crawled > started_at
            assert await work(step_config, None, "before", "again") == 0
            assert await frontier.is_finished()
            await backend.save_run(make_run("again", status="running", started_at=started_at))
            run = await backend.complete_run("site", "again")
            assert (run.stats.pages_crawled, run.stats.pages_unchanged) == (commit_worker.PAGES,) * 2
            assert await backend.get_unseen_pages("site", "again") == []
        return code

    # The first commit's requests: page, links (known, added, announced), freshness, end; and what follows.
    steps = [(step, moment) for step in range(1, 9) for moment in ("before", "after")]
    codes = []
    for i in range(0, len(steps), 4):
        codes += await asyncio.gather(*(crawl(*kill) for kill in steps[i : i + 4]))
    assert codes == [-signal.SIGKILL] * len(steps)
