"""Links that a redirect ends while other processes work on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig, FrontierStats
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import opened
from tests.support.queues import items, url, urls

pytestmark = on_dynamodb_local


class AfterRead:
    """Runs something once, after the next read of items and before the write that follows."""

    def __init__(self) -> None:
        self.work: Callable[[], Awaitable[object]] | None = None

    async def __call__(self, operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        if operation == "batch_get_item" and self.work is not None:
            work, self.work = self.work, None
            await work()
        return answer


async def test_complete_also_leaves_a_link_that_is_claimed_meanwhile(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    between = AfterRead()
    async with opened(config, between) as frontier, opened(config) as other:
        await frontier.add(urls(2))
        (claim,) = await frontier.claim(1)
        taken: list[Claim] = []

        async def take() -> None:
            taken.extend(await other.claim(1))

        between.work = take
        await frontier.complete(claim, also=[url(1)])
        assert [claim.item.url for claim in taken] == [url(1)]
        assert (await items(backend))[url(1)].status == "in_progress"
        await other.complete(taken)
        assert await frontier.is_finished()


@pytest.mark.parametrize("is_known", [True, False])
async def test_complete_also_completes_a_link_that_changes_meanwhile(
    config: DynamoDBConfig, backend: DynamoDBBackend, is_known: bool
) -> None:
    """It is put back at another place, or added by another process."""
    between = AfterRead()
    async with opened(config, between) as frontier, opened(config) as other:
        await frontier.add(urls(2 if is_known else 1))
        (claim,) = await frontier.claim(1)

        async def change() -> None:
            await other.add([url(1)])
            (held,) = await other.claim(1)
            await other.put_back(held, priority=5)

        between.work = change
        await frontier.complete(claim, also=[url(1)])
        assert {item.status for item in (await items(backend)).values()} == {"completed"}
        assert await frontier.is_finished()
        assert await other.stats() == FrontierStats(completed=2)


async def test_complete_also_keeps_the_counts_of_a_run_that_is_proven_finished_meanwhile(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    between = AfterRead()
    async with opened(config, between) as frontier, opened(config) as other:
        await frontier.add(urls(1))
        (claim,) = await frontier.claim(1)

        async def prove() -> None:
            assert await other.is_finished()

        between.work = prove
        await frontier.complete(claim, also=[url(1), url(1, "b.example")])
        for queue in (frontier, other):
            assert await queue.is_finished()
            assert await queue.stats() == FrontierStats(completed=3)


async def test_complete_also_takes_few_requests(config: DynamoDBConfig) -> None:
    sent: list[str] = []

    async def count(operation: str, request: dict[str, Any], call: Any) -> Any:
        sent.append(operation)
        return await call(**request)

    async with opened(config, count) as frontier:
        await frontier.add(urls(20))
        (claim,) = await frontier.claim(1)
        sent.clear()
        await frontier.complete(claim, also=urls(5, first=10))
        # The end of the claim, the states of the links, and their end.
        assert sent == ["batch_execute_statement", "batch_get_item", "batch_execute_statement"], sent
