"""Commits where workers are killed, superseded or cut off, on DynamoDB Local."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import (
    Claim,
    CommitOutcome,
    ConflictError,
    DynamoDBBackend,
    DynamoDBConfig,
    FrontierStats,
    LeaseLostError,
)
from ragcrawl_dynamo._changes import change as _changes
from ragcrawl_dynamo.testing import ManualClock
from tests.support import commit_worker, processes
from tests.support.engines import on_dynamodb_local
from tests.support.factories import dense_text, make_page, make_version
from tests.support.fakes import client_error, intercepting
from tests.support.queues import QUICK, claim_all, items, url

pytestmark = on_dynamodb_local


async def run_worker(config: DynamoDBConfig, *step: Any) -> int:
    """The exit code of a worker process."""
    process = processes.start(commit_worker.work, str(config.endpoint_url), config.table_prefix, *step)
    try:
        return await processes.ended(process)
    finally:
        process.kill()


async def check_whole(backend: DynamoDBBackend) -> None:
    """Every page is there once with its whole body, and all counts agree with it."""
    frontier = backend.frontier("site", "run")
    assert await frontier.is_finished()
    assert await frontier.stats() == FrontierStats(completed=commit_worker.PAGES)
    pages = [page async for page in backend.iter_pages("site")]
    assert sorted(page.url for page in pages) == [url(i) for i in range(commit_worker.PAGES)]
    assert {page.version_count for page in pages} == {1}
    for page in pages:
        number = int(page.url.rpartition("/")[2])
        versions = await backend.list_versions(page.site_id, page.page_id)
        assert [(version.version_id, version.markdown) for version in versions] == [
            (f"v{number}", dense_text(20, f"{number}"))
        ]


@pytest.mark.parametrize("status", [200, 302, 403, 503])
async def test_commit_page_is_tried_again_until_it_is_done_while_its_lease_is_renewed(
    dynamodb_config: DynamoDBConfig, status: int
) -> None:
    """DynamoDB does not serve the handler for longer than one call, and than one lease, takes."""
    is_out = False
    failures = 0

    async def fails(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal failures
        statements = str(request.get("Statements"))
        is_renewal = "lease_expires_at" in statements and "REMOVE" not in statements
        if is_out and not is_renewal:
            failures += 1
            raise client_error("ThrottlingException")
        return await call(**request)

    changes = {**QUICK, "frontier_max_clock_skew": 0.2, "retry_attempts": 2, "conditional_batches": "partiql"}
    config = dynamodb_config.model_copy(update=changes)
    async with DynamoDBBackend(config, client_factory=intercepting(fails)) as backend:
        frontier = backend.frontier("site", "run")
        await backend.commit_page(make_page("page", url=url(1), status_code=200), make_version("v0"))
        await frontier.add([url(1)])
        begun = 0

        async def handle(claim: Claim) -> None:
            nonlocal is_out, begun
            is_out, begun = True, begun + 1
            asyncio.get_running_loop().call_later(4, end_outage)
            page = make_page("page", url=url(1), status_code=status, redirect_url=None)
            version = make_version("v1", content_hash="new") if status == 200 else None
            if status == 302:
                page.redirect_url = url(2)
            await backend.commit_page(page, version, claim=claim, follow_redirect=False)
            worker.stop()

        def end_outage() -> None:
            nonlocal is_out
            is_out = False

        async with frontier.worker(lease_seconds=2) as worker:
            await worker.run(handle)
        assert (begun, worker.lost) == (1, 0)
        assert failures > 4
        item = (await items(backend))[url(1)]
        assert item.attempt == 1
        assert item.status in ("completed", "skipped", "pending")
        stored = await backend.get_page("site", "page")
        assert stored is not None
        assert stored.error_count == (status in (403, 503))


@pytest.mark.long
async def test_commit_page_once_though_the_worker_is_killed_at_any_step(
    dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request from the first commit on, in turn, before it is sent and after the engine applied it."""

    monkeypatch.setattr(_changes, "SETTLE_SECONDS", -3600.0)

    async def crawl(step: int, moment: str) -> int:
        step_config = dynamodb_config.model_copy(
            update={"table_prefix": f"{dynamodb_config.table_prefix}{step}{moment}_"}
        )
        worker_config = commit_worker.settings(str(step_config.endpoint_url), step_config.table_prefix)
        async with DynamoDBBackend(worker_config) as backend:
            assert [change async for change in backend.iter_changes("site", "reader")] == []
            await backend.frontier("site", "run").add([url(0)])
            code = await run_worker(step_config, step, moment)
            assert code in (0, -signal.SIGKILL)
            # No torn page is visible.
            async for page in backend.iter_pages("site"):
                version = await backend.get_current_version("site", page.page_id)
                assert version is not None
            assert await run_worker(step_config) == 0
            await check_whole(backend)
            # A reader of changes that began before the crawl gets each page, once it gives up open numbers.
            changed = [change.page.page_id async for change in backend.iter_changes("site", "reader")]
            assert len(set(changed)) == len(changed) == commit_worker.PAGES
        return code

    # The first commit's requests: page, body, links (known, added, announced), the site's shard of changes
    # (found, made), transaction; and what follows.
    steps = [(step, moment) for step in range(1, 12) for moment in ("before", "after")]
    codes = []
    # Most of the time they wait for the lease of the killed worker to end.
    for i in range(0, len(steps), 4):
        codes += await asyncio.gather(*(crawl(*kill) for kill in steps[i : i + 4]))
    assert codes == [-signal.SIGKILL] * len(steps)


async def test_commit_page_by_two_workers_raises_for_the_one_without_a_lease(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    clock = ManualClock()
    config = dynamodb_config.model_copy(update=QUICK)
    async with DynamoDBBackend(config, clock=clock) as one, DynamoDBBackend(config, clock=clock) as two:
        for i in range(10):
            await one.frontier("site", "run").add([url(i)])
            (old,) = await one.frontier("site", "run").claim(lease_seconds=5)
            clock.advance(7)
            (new,) = await two.frontier("site", "run").claim(lease_seconds=5)
            page = make_page(f"p{i}", status_code=200)
            outcomes = await asyncio.gather(
                one.commit_page(page, make_version("old", f"p{i}", content_hash="old"), claim=old),
                two.commit_page(page, make_version("new", f"p{i}", content_hash="new"), claim=new),
                return_exceptions=True,
            )
            assert isinstance(outcomes[0], LeaseLostError)
            assert not isinstance(outcomes[1], BaseException)
            assert outcomes[1].outcome is CommitOutcome.CREATED
            stored = await backend.get_page("site", f"p{i}")
            assert stored is not None
            assert (stored.current_version_id, stored.version_count) == ("new", 1)
            assert await backend.get_version("site", f"p{i}", "old") is None


async def test_commit_page_of_one_page_at_once_counts_every_commit(backend: DynamoDBBackend) -> None:
    await asyncio.gather(
        *(
            backend.commit_page(
                make_page("page", status_code=200),
                make_version(f"v{i}", content_hash=f"{i}", markdown=f"{i}"),
            )
            for i in range(4)
        )
    )
    stored = await backend.get_page("site", "page")
    assert stored is not None
    assert stored.version_count == 4
    assert len(await backend.list_versions("site", "page")) == 4


async def test_commit_page_of_different_pages_does_not_conflict(backend: DynamoDBBackend) -> None:
    frontier = backend.frontier("site", "run")
    await frontier.add([url(i) for i in range(64)])
    claims = await claim_all(frontier)
    assert len(claims) == 64
    await asyncio.gather(
        *(
            backend.commit_page(
                make_page(claim.item.item_id, status_code=200),
                make_version("v1", claim.item.item_id),
                claim=claim,
            )
            for claim in claims
        )
    )
    commits = [counters for (name, _), counters in backend.metrics().items() if name == "TransactWriteItems"]
    assert (
        sum(counters.requests for counters in commits),
        sum(counters.retries for counters in commits),
    ) == (64, 0)
    assert await frontier.is_finished()


async def test_commit_page_of_a_page_that_keeps_changing_is_a_conflict(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    async def meddles(operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation == "transact_write_items":
            await backend.tombstone_pages("site", ["page"], allow_mass_deletion=True)
            await backend.commit_page(make_page("page", status_code=200), make_version("v1"))
        return await call(**request)

    await backend.commit_page(make_page("page", status_code=200), make_version("v1"))
    config = dynamodb_config.model_copy(update={"retry_base_delay": 0.0})
    async with DynamoDBBackend(config, client_factory=intercepting(meddles)) as other:
        with pytest.raises(ConflictError, match="was changed by other writers 6 times in a row"):
            await other.commit_page(make_page("page", status_code=200), make_version("v2", content_hash="b"))
    assert await backend.get_version("site", "page", "v2") is None


@pytest.mark.parametrize("with_claim", [True, False])
async def test_commit_page_whose_answer_was_lost_is_done_once(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, with_claim: bool
) -> None:
    tokens: list[str] = []

    async def loses(operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation != "transact_write_items":
            return await call(**request)
        tokens.append(request["ClientRequestToken"])
        # As if the engine had forgotten the token: the second attempt finds the writes of the first one.
        answer = await call(
            **{**request, "ClientRequestToken": f"{request['ClientRequestToken']}{len(tokens)}"}
        )
        if len(tokens) == 1:
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    config = dynamodb_config.model_copy(update={"retry_base_delay": 0.0})
    async with DynamoDBBackend(config, client_factory=intercepting(loses)) as other:
        frontier = other.frontier("site", "run")
        await frontier.add([url(1)])
        claim = (await frontier.claim())[0] if with_claim else None
        result = await other.commit_page(make_page("page", status_code=200), make_version("v1"), claim=claim)
        assert result.outcome is CommitOutcome.CREATED
        assert len(tokens) == 2
        assert tokens[0] == tokens[1]
        stored = await backend.get_page("site", "page")
        assert stored is not None
        assert stored.version_count == 1
        if with_claim:
            assert await frontier.stats() == FrontierStats(completed=1)
