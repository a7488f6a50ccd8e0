"""Commits of fetches that failed or were denied, interrupted between their writes, on DynamoDB Local.

The error of the page is counted first, and then the claim is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
    FrontierStats,
    FrontierStatus,
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
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page, make_run, make_version
from tests.support.fakes import intercepting
from tests.support.queues import claim_all, items, url, urls

__all__ = ["clock"]

pytestmark = on_dynamodb_local

TARGET = url(9)
STATUSES = {
    403: (CommitOutcome.DENIED, FrontierStatus.SKIPPED),
    503: (CommitOutcome.FAILED, FrontierStatus.PENDING),
    302: (CommitOutcome.REDIRECTED, FrontierStatus.COMPLETED),
}

STATUS = pytest.mark.parametrize("status", STATUSES)


def page(status: int) -> Page:
    return make_page("page", url=url(1), status_code=status, redirect_url=TARGET if status == 302 else None)


def is_settlement(operation: str, request: dict[str, Any]) -> bool:
    """Whether a request settles a claim: it takes the item out of the queue, or puts it back."""
    return (
        operation in ("update_item", "batch_execute_statement")
        and "changed_by" in str(request)
        and "lease_expires_at" in str(request)
    )


async def item_status(backend: DynamoDBBackend) -> FrontierStatus:
    return (await items(backend))[url(1)].status


@pytest_asyncio.fixture
async def backend(dynamodb_config: DynamoDBConfig, clock: ManualClock) -> AsyncIterator[DynamoDBBackend]:
    """A backend whose site has one page, and a run that is to crawl it again."""
    async with DynamoDBBackend(config_of(dynamodb_config), clock=clock) as backend:
        await backend.commit_page(make_page("page", url=url(1), status_code=200), make_version("v1"))
        clock.advance(60)
        await backend.save_run(make_run(status="running", started_at=clock.now()))
        frontier = backend.frontier("site", "run")
        await frontier.add([url(1)])
        # Stores the counts, so that other processes have them.
        await frontier.stats()
        yield backend


async def claim_one(backend: DynamoDBBackend) -> Claim:
    claims = await backend.frontier("site", "run").claim(lease_seconds=10)
    return next(claim for claim in claims if claim.item.url == url(1))


@WAYS
@STATUS
async def test_commit_page_cut_off_before_its_settlement_leaves_an_item_that_is_claimed_again(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, way: str, status: int
) -> None:
    """After the page is written nothing arrives any more, as if the worker had been killed."""
    is_cut = False

    async def dies(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal is_cut
        if is_cut:
            raise EndpointConnectionError(endpoint_url="off")
        answer = await call(**request)
        # A write of counts that began before may end after it.
        is_cut |= is_page(operation, request)
        return answer

    outcome, item_end = STATUSES[status]
    config = config_of(dynamodb_config, conditional_batches=way, retry_attempts=1)
    async with DynamoDBBackend(config, client_factory=intercepting(dies), clock=clock) as dying:
        claim = await claim_one(dying)
        with pytest.raises(Exception, match="off"):
            await given_up(dying.commit_page(page(status), claim=claim), clock)
    assert is_cut
    assert (await stored_page(backend)).error_count == (status != 302)
    assert await item_status(backend) is FrontierStatus.IN_PROGRESS
    assert not await backend.frontier("site", "run").is_finished()
    clock.advance(12)
    again = await claim_one(backend)
    # The expired lease counts as a failed attempt.
    assert (again.item.attempt, again.item.retry_count) == (2, 1)
    assert await backend.commit_page(page(status), claim=again) == CommitResult(outcome, "v1")
    assert (await stored_page(backend)).error_count == 2 * (status != 302)
    assert await item_status(backend) is item_end
    if status == 503:
        # The third attempt is the last one.
        clock.advance(20)
        assert (await backend.commit_page(page(503), claim=await claim_one(backend))).version_id == "v1"
        assert await item_status(backend) is FrontierStatus.FAILED
        assert await backend.frontier("site", "run").is_finished()
    run = await backend.complete_run("site", "run")
    assert run.stats.status_codes == {status: 1}


@WAYS
@STATUS
@pytest.mark.parametrize("lost", [is_page, is_settlement])
async def test_commit_page_whose_answers_were_lost_is_counted_once(
    backend: DynamoDBBackend,
    dynamodb_config: DynamoDBConfig,
    clock: ManualClock,
    way: str,
    status: int,
    lost: Any,
) -> None:
    count = 0

    async def loses(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal count
        is_hit = claimed and lost(operation, request)
        count += is_hit
        answer = await call(**request)
        if is_hit and count == 1:
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    outcome, item_end = STATUSES[status]
    claimed = False
    config = config_of(dynamodb_config, conditional_batches=way)
    async with DynamoDBBackend(config, client_factory=intercepting(loses), clock=clock) as other:
        claim = await claim_one(other)
        claimed = True
        assert await other.commit_page(page(status), claim=claim) == CommitResult(outcome, "v1")
        assert count == 2
        assert claim.settled_as is item_end
        assert not claim.lost
        counts = await other.frontier("site", "run").stats()
    settled = {"completed": status == 302, "skipped": status == 403, "delayed": status == 503}
    assert counts == FrontierStats(**settled, pending=int(status == 302))
    assert (await stored_page(backend)).error_count == (status != 302)
    assert (await items(backend))[url(1)].retry_count == (status == 503)


@WAYS
@STATUS
async def test_commit_page_repeated_after_a_lost_settlement_returns_the_same_result(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, way: str, status: int
) -> None:
    """The claim was settled, but its caller was cancelled: the lease seems to run when it commits again."""
    is_cut = False
    is_lost = asyncio.Event()

    async def loses(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        if is_cut and is_settlement(operation, request):
            is_lost.set()
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    outcome, item_end = STATUSES[status]
    config = config_of(dynamodb_config, conditional_batches=way, retry_attempts=1)
    async with DynamoDBBackend(config, client_factory=intercepting(loses), clock=clock) as other:
        claim = await claim_one(other)
        is_cut = True
        await abandoned(other.commit_page(page(status), claim=claim), is_lost)
        is_cut = False
        assert not claim.ended
        assert await item_status(backend) is item_end
        assert await other.commit_page(page(status), claim=claim) == CommitResult(outcome, "v1")
        assert claim.ended
        assert not claim.lost
        assert claim.settled_as is item_end
        # Once more: the claim is known to be over.
        before = await stored_page(backend)
        assert await other.commit_page(page(status), claim=claim) == CommitResult(outcome, "v1")
        assert await stored_page(backend) == before
    item = (await items(backend))[url(1)]
    assert (item.status, item.retry_count) == (item_end, status == 503)


@STATUS
async def test_commit_page_decides_again_if_the_page_changes_meanwhile(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, status: int
) -> None:
    is_first = True

    async def meddles(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal is_first
        if is_first and is_page(operation, request):
            is_first = False
            await backend.commit_page(
                make_page("page", url=url(1), status_code=200, etag="new"),
                make_version("v2", content_hash="new"),
            )
        return await call(**request)

    outcome, item_end = STATUSES[status]
    async with DynamoDBBackend(
        config_of(dynamodb_config), client_factory=intercepting(meddles), clock=clock
    ) as other:
        result = await other.commit_page(page(status), claim=await claim_one(other))
    assert result == CommitResult(outcome, "v2")
    stored = await stored_page(backend)
    assert (stored.current_version_id, stored.etag) == ("v2", "new")
    assert (stored.status_code, stored.error_count) == (status, int(status != 302))
    assert await item_status(backend) is item_end


@STATUS
async def test_commit_page_of_a_page_that_keeps_changing_leaves_its_item_leased(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, status: int
) -> None:
    async def meddles(operation: str, request: dict[str, Any], call: Any) -> Any:
        if is_page(operation, request):
            await backend.commit_page(make_page("page", url=url(1), status_code=200), make_version("v1"))
        return await call(**request)

    async with DynamoDBBackend(
        config_of(dynamodb_config), client_factory=intercepting(meddles), clock=clock
    ) as other:
        claim = await claim_one(other)
        with pytest.raises(ConflictError, match="was changed by other writers 6 times in a row"):
            await other.commit_page(page(status), claim=claim)
        assert not claim.ended
        assert await item_status(backend) is FrontierStatus.IN_PROGRESS
        assert (await stored_page(backend)).error_count == 0
        await other.frontier("site", "run").release(claim)


async def test_commit_page_retry_after_of_many_pages_of_a_host_at_once_blocks_it_once(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    """A busy host answers 429 to all that is in flight."""
    blocks = 0

    async def counts(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal blocks
        blocks += "blocked_until" in str(request.get("ExpressionAttributeNames", request.get("Statements")))
        return await call(**request)

    config = config_of(dynamodb_config, frontier_retry_delay=0.0)
    async with DynamoDBBackend(config, client_factory=intercepting(counts)) as other:
        frontier = other.frontier("site", "again")
        await frontier.add(urls(60))
        claims = await claim_all(frontier)
        assert len(claims) == 60
        blocks = 0
        await asyncio.gather(
            *(
                other.commit_page(
                    make_page(claim.item.item_id, status_code=429), claim=claim, retry_after=3600
                )
                for claim in claims
            )
        )
        assert await frontier.claim() == []
        (host,) = [host async for host in frontier.iter_hosts()]
        assert host.blocked_until is not None
        later = list((await items(other, "again")).values())
        assert {item.status for item in later} == {FrontierStatus.PENDING}
    # Each one writes at most once: when it reads the host again, it finds the block of another one.
    assert 1 <= blocks <= 60
