"""Crawls whose writes are throttled: one host all the time, or all hosts now and then."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig, ThrottledError
from ragcrawl_dynamo._utils.urls import link_id
from tests.support.engines import on_dynamodb_local
from tests.support.fakes import client_error
from tests.support.frontiers import opened
from tests.support.queues import items, names, url, urls

pytestmark = on_dynamodb_local

# Pauses as on AWS.
PACED: dict[str, Any] = {"retry_base_delay": 0.05, "retry_max_delay": 5.0}


def throttled(statement: Any) -> dict[str, Any]:
    """The answer to a statement that DynamoDB throttles."""
    return {"Error": {"Code": "ThrottlingError", "Message": "injected"}, "TableName": "t"}


class HotHost:
    """Throttles statements about the items of a host as long as it is hot."""

    def __init__(self, *item_urls: str) -> None:
        self.ids = {link_id(item_url) for item_url in item_urls}
        self.is_hot = False
        self.refused = 0

    async def __call__(self, operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation != "batch_execute_statement" or not self.is_hot:
            return await call(**request)
        statements = request["Statements"]
        cold = [statement for statement in statements if not self.is_of_host(statement)]
        self.refused += len(statements) - len(cold)
        answer: dict[str, Any] = {"ResponseMetadata": {"RequestId": "throttled"}}
        answers = iter(())
        if cold:
            answer = await call(**{**request, "Statements": cold})
            answers = iter(answer["Responses"])
        responses = [
            throttled(statement) if self.is_of_host(statement) else next(answers) for statement in statements
        ]
        return {**answer, "Responses": responses}

    def is_of_host(self, statement: Any) -> bool:
        return any(value.get("S") in self.ids for value in statement["Parameters"])


async def test_claim_returns_what_it_got_while_a_host_is_throttled(config: DynamoDBConfig) -> None:
    hot = urls(30, "hot.example")
    host = HotHost(*hot)
    async with opened(config.model_copy(update=PACED), host) as frontier:
        await frontier.add([*hot, *(url(0, f"h{i}.example") for i in range(20))])
        host.is_hot = True
        claims = await asyncio.wait_for(frontier.claim(30), 1)
        assert len(claims) == 20
        assert host.refused > 0
        # The completions of the others do not wait either.
        await asyncio.wait_for(frontier.complete(claims), 1)
        host.is_hot = False
        claims = await frontier.claim(40, wait_seconds=10)
        assert {claim.item.domain for claim in claims} == {"hot.example"}
        assert {claim.item.retry_count for claim in claims} == {0}


async def test_completions_of_a_throttled_host_hold_no_others_and_pause_the_host(
    config: DynamoDBConfig,
) -> None:
    hot = urls(40, "hot.example")
    host = HotHost(*hot)
    async with opened(config.model_copy(update=PACED), host) as frontier:
        await frontier.add([*hot, *(url(i, f"h{i}.example") for i in range(20))])
        claims = await frontier.claim(40)
        of_host = [claim for claim in claims if claim.item.domain == "hot.example"]
        host.is_hot = True
        slow = [asyncio.create_task(frontier.complete([claim])) for claim in of_host]
        others = [claim for claim in claims if claim not in of_host]
        await asyncio.wait_for(asyncio.gather(*(frontier.complete([claim]) for claim in others)), 1)
        assert not any(task.done() for task in slow)
        assert frontier._queue.run.view.bench.paused.keys() == {"hot.example"}
        host.is_hot = False
        await asyncio.wait_for(asyncio.gather(*slow), 10)
        assert len(await frontier.claim(40, wait_seconds=10)) == 20


@pytest.mark.parametrize(
    "limit", [{"retry_attempts": 3}, {"call_timeout": 3.0}], ids=lambda limit: next(iter(limit))
)
async def test_claim_that_gets_nothing_because_of_throttling_raises_after_its_attempts(
    config: DynamoDBConfig, limit: dict[str, Any]
) -> None:
    host = HotHost(*urls(5, "hot.example"))
    async with opened(config.model_copy(update=limit), host) as frontier:
        await frontier.add(urls(5, "hot.example"))
        host.is_hot = True
        async with asyncio.timeout(20):
            with pytest.raises(ThrottledError, match=r"1 hosts, such as hot\.example"):
                await frontier.claim()
        assert host.refused >= 3
        host.is_hot = False
        assert len(await frontier.claim(5, wait_seconds=5)) == 5


class Unsteady:
    """Throttles statements at random, loses answers, and lets some come after their leases have ended."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 # reproducible on purpose
        self.is_on = False
        self.lost = self.delayed = 0

    async def __call__(self, operation: str, request: dict[str, Any], call: Any) -> Any:
        if not self.is_on or operation != "batch_execute_statement":
            return await call(**request)
        is_claim = "started_at" in request["Statements"][0]["Statement"]
        if is_claim and self.chance.random() < 0.1:
            # The claims are applied. Their process learns of it too late, or never.
            self.delayed += 1
            answer = await call(**request)
            await asyncio.sleep(8)
            return answer
        if is_claim and self.chance.random() < 0.2:
            self.lost += 1
            await call(**request)
            raise client_error("InternalServerError", 500)
        kept = [statement for statement in request["Statements"] if self.chance.random() < 0.6]
        answer = {"ResponseMetadata": {"RequestId": "throttled"}}
        answers = iter(())
        if kept:
            answer = await call(**{**request, "Statements": kept})
            answers = iter(answer["Responses"])
        responses = [
            next(answers) if statement in kept else throttled(statement)
            for statement in request["Statements"]
        ]
        return {**answer, "Responses": responses}


async def test_only_leases_that_were_handed_out_count_as_attempts(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    quick = config.model_copy(
        update={"frontier_max_clock_skew": 0.5, "retry_attempts": 8, "retry_base_delay": 0.01}
    )
    links = [url(i, f"h{i % 8}.example") for i in range(60)]
    unsteady = Unsteady(seed=1)
    handled: list[str] = []

    async def handle(claim: Claim) -> None:
        handled.append(claim.item.url)

    async with opened(quick, unsteady) as first, opened(quick, unsteady) as second:
        await first.add(links)
        unsteady.is_on = True
        async with (
            first.worker(concurrency=8, lease_seconds=14) as one,
            second.worker(concurrency=8, lease_seconds=14) as other,
        ):
            await asyncio.gather(one.run(handle), other.run(handle))
    assert min(unsteady.lost, unsteady.delayed) > 0
    stored = await items(backend)
    assert {item.status for item in stored.values()} == {"completed"}
    assert {link: item.retry_count for link, item in stored.items() if item.retry_count} == {}
    assert sorted(set(handled)) == sorted(links)


async def test_claims_and_completions_do_not_wait_for_counts(config: DynamoDBConfig) -> None:
    is_open = asyncio.Event()
    held: list[str] = []

    async def hold_counts(operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation == "batch_execute_statement" and any(
            '"flush_' in statement["Statement"] for statement in request["Statements"]
        ):
            held.append(operation)
            await is_open.wait()
        return await call(**request)

    async with opened(config, hold_counts) as frontier:
        await frontier.add(urls(10))
        for _ in range(3):
            # Counts are due a second after the first move.
            claims = await asyncio.wait_for(frontier.claim(2), 1)
            await asyncio.wait_for(frontier.complete(claims[0]), 1)
            await asyncio.wait_for(frontier.release(claims[1]), 1)
            await asyncio.wait_for(frontier.add(urls(2, first=20)), 1)
            await asyncio.sleep(0.6)
        assert len(held) == 1
        is_open.set()
        stats = await frontier.stats()
        assert (stats.pending, stats.completed) == (9, 3)
        assert names(await frontier.claim(20)) != []
