"""The frontier's queue where many meet and things go wrong, on DynamoDB Local."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import (
    Claim,
    ClockSkewError,
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    FrontierStats,
    LeaseLostError,
    PartialBatchError,
)
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local, on_moto
from tests.support.fakes import Around, intercepting
from tests.support.queues import QUICK, claim_all, items, names, requests, url, urls

BATCHES = {"conditional_batches": "partiql", "retry_base_delay": 0.001, **QUICK}


@pytest.fixture
def config(dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend) -> DynamoDBConfig:
    """The tables of `backend`, with conditional writes in batches."""
    return dynamodb_config.model_copy(update=BATCHES)


@asynccontextmanager
async def opened(
    config: DynamoDBConfig, around: Around | None = None, clock: ManualClock | None = None
) -> AsyncIterator[Frontier]:
    """The queue as another process has it, with something between it and the engine."""
    factory = open_client if around is None else intercepting(around)
    async with DynamoDBBackend(config, clock=clock, client_factory=factory) as backend:
        yield backend.frontier("run", "site")


def is_of_index(operation: str, request: dict[str, Any]) -> bool:
    """Whether items are asked for; hosts are listed under names that begin with "#"."""
    return (
        operation == "query"
        and request.get("IndexName") == "by_queue"
        and not any(value["S"].startswith("#") for value in request["ExpressionAttributeValues"].values())
    )


def is_whole_run(operation: str, request: dict[str, Any]) -> bool:
    values = request.get("ExpressionAttributeValues", {}).values()
    return operation == "query" and "IndexName" not in request and {"S": "run"} in values


@dataclass
class Index:
    """Stands between a process and the engine: what the index shows of items can be held back."""

    shows: str = "truth"
    answers: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, operation: str, request: dict[str, Any], call: Any) -> Any:
        if not is_of_index(operation, request):
            return await call(**request)
        answer = await call(**request)
        if self.shows == "nothing":
            return {**answer, "Items": [], "Count": 0}
        if self.shows == "the past":
            return self.answers.get(repr(request), {**answer, "Items": [], "Count": 0})
        self.answers[repr(request)] = answer
        return answer


# Exclusive


@on_dynamodb_local
async def test_claim_never_leases_an_item_twice_under_concurrency(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(link for i in range(200) for link in urls(2, f"h{i % 7}.example", 2 * i))
    held: Counter[str] = Counter()

    async def work(frontier: Frontier) -> None:
        while claims := await frontier.claim(7, wait_seconds=2.5):
            held.update(names(claims))
            await asyncio.sleep(0)
            await frontier.complete(claims)

    async with opened(config) as one, opened(config) as two, opened(config) as three:
        await asyncio.gather(*(work(each) for each in (one, two, three) for _ in range(4)))
        assert (len(held), set(held.values())) == (400, {1})
        assert await one.is_finished()
        assert await two.stats() == FrontierStats(completed=400)


@on_dynamodb_local
async def test_claim_with_a_stale_index_leases_nothing_twice(config: DynamoDBConfig) -> None:
    index = Index()
    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, index, clock) as behind:
        await frontier.add(urls(10))
        # It has seen them all as pending.
        (own,) = await behind.claim(1)
        await behind.release(own)
        claims = await frontier.claim(10, lease_seconds=60)
        assert len(claims) == 10
        index.shows = "the past"
        for _ in range(3):
            clock.advance(6)
            assert await behind.claim(10) == []
        assert not await behind.is_finished()
        await frontier.complete(claims)


@on_dynamodb_local
async def test_settlement_by_two_holders_succeeds_for_one(config: DynamoDBConfig) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as one, opened(config, clock=clock) as two:
        await one.add(urls(20))
        old = await one.claim(20, lease_seconds=5)
        clock.advance(7)
        new = await two.claim(20, lease_seconds=5)
        assert len(new) == 20
        outcomes = await asyncio.gather(
            *(one.complete(each) for each in old),
            *(two.fail(each, "x", retry=False) for each in new),
            return_exceptions=True,
        )
        assert all(isinstance(each, LeaseLostError) for each in outcomes[:20])
        assert outcomes[20:] == [None] * 20
        assert await two.recount() == FrontierStats(failed=20)


# Nothing lost


@on_dynamodb_local
@pytest.mark.parametrize("state", ["pending", "delayed", "in_progress"])
async def test_is_finished_is_false_while_an_item_is_open_that_the_index_hides(
    config: DynamoDBConfig, state: str
) -> None:
    index = Index(shows="nothing")
    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, index, clock) as blind:
        later = clock.now() + timedelta(seconds=30) if state == "delayed" else None
        await frontier.add([url(1)], not_before=later)
        claims = await frontier.claim(lease_seconds=20) if state == "in_progress" else []
        # It looks twice, and lets the host sleep.
        for _ in range(3):
            assert await blind.claim() == []
            assert not await blind.is_finished()
            clock.advance(1.1)
        for claim in claims:
            await frontier.complete(claim)
        assert await blind.is_finished() == bool(claims)


@on_dynamodb_local
async def test_is_finished_reads_the_whole_run_once_not_at_every_poll(config: DynamoDBConfig) -> None:
    scans = 0
    index = Index()

    async def count(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal scans
        scans += is_whole_run(operation, request)
        return await index(operation, request, call)

    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, count, clock) as poller:
        await frontier.add(urls(30))
        for _ in range(5):
            assert not await poller.is_finished()
        assert scans == 0
        index.shows = "nothing"
        for _ in range(5):
            assert not await poller.is_finished()
        # It remembers what was open, and asks for that.
        assert scans == 1
        index.shows = "truth"
        await frontier.complete(await claim_all(frontier))
        for _ in range(5):
            assert await poller.is_finished()
        assert scans == 2


@on_dynamodb_local
async def test_is_finished_wakes_a_host_that_went_to_sleep_too_early(config: DynamoDBConfig) -> None:
    index = Index(shows="nothing")
    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, index, clock) as blind:
        await frontier.add([url(1)])
        for _ in range(3):
            assert await blind.claim() == []
            clock.advance(1.1)
        # All believe that the host has no work.
        assert await frontier.claim() == []
        assert not await frontier.is_finished()
        assert names(await frontier.claim()) == [url(1)]


@on_dynamodb_local
@pytest.mark.parametrize("by_holder", [True, False], ids=["by the last holder", "by somebody else"])
async def test_is_finished_is_false_if_links_are_added_while_the_run_is_read(
    config: DynamoDBConfig, by_holder: bool
) -> None:
    """The hard case: an item behind the reader's place adds one before it, and is completed then."""
    clock = ManualClock()
    added: list[str] = []
    async with opened(config, clock=clock) as frontier:
        await frontier.add([url(1)])
        (held,) = await frontier.claim()

        async def interleave(operation: str, request: dict[str, Any], call: Any) -> Any:
            if not is_whole_run(operation, request) or added:
                return await call(**request)
            # The reader sees nothing open: what it has read by now is the state from before the addition ...
            await frontier.complete(held) if not by_holder else None
            answer = await call(**request)
            added.append(url(2))
            await frontier.add(added)
            if by_holder:
                await frontier.complete(held)
                # ... and what it reads later that from after the completion.
                return {**answer, "Items": [], "Count": 0}
            return answer

        # Blind, so that the base table is read at once.
        index = Index(shows="nothing")

        async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
            if is_of_index(operation, request):
                return await index(operation, request, call)
            return await interleave(operation, request, call)

        async with opened(config, around, clock) as reader:
            assert not await reader.is_finished()
            assert added
            assert not await reader.is_finished()
        assert not await frontier.is_finished()
        assert names(await frontier.claim()) == [url(2)]


@on_dynamodb_local
async def test_is_finished_of_two_processes_at_once_agrees(config: DynamoDBConfig) -> None:
    async with opened(config) as one, opened(config) as two:
        await one.add(urls(5))
        await one.complete(await one.claim(5))
        for _ in range(20):
            answers = await asyncio.gather(*(each.is_finished() for each in (one, two) for _ in range(3)))
            if all(answers):
                break
        assert all(answers)
        await two.add([url(9)])
        assert not await one.is_finished()


# Idempotent adds


@on_dynamodb_local
async def test_frontier_add_of_known_links_takes_few_requests(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(90))
    async with DynamoDBBackend(config) as other:
        frontier = other.frontier("run", "site")
        before = requests(other)
        results = await frontier.add(urls(100))
        assert sum(each.added for each in results) == 10
        assert requests(other) - before <= 6
        before = requests(other)
        await asyncio.sleep(1.1)
        assert not any(each.added for each in await frontier.add(urls(100)))
        # The counts of before, which are written a second later, to places that may have to be made.
        assert requests(other) - before <= 3
        before = requests(other)
        assert not any(each.added for each in await frontier.add(urls(100)))
        assert requests(other) == before
    # The cache is bounded, and its loss changes nothing.
    async with opened(config.model_copy(update={"frontier_seen_cache": 3})) as forgetful:
        for _ in range(2):
            assert not any(each.added for each in await forgetful.add(urls(100)))
    assert len(await items(backend)) == 100


@on_dynamodb_local
async def test_frontier_add_by_many_at_once_adds_links_once(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with opened(config) as one, opened(config) as two:
        results = await asyncio.gather(*(each.add(urls(60)) for each in (one, two) for _ in range(3)))
        assert sum(each.added for part in results for each in part) == 60
        # A recount takes what another process has only noted for missing.
        await two.stats()
        assert await one.recount() == FrontierStats(pending=60)
        assert await one.stats() == FrontierStats(pending=60)
    assert len(await items(backend)) == 60


@on_dynamodb_local
async def test_frontier_add_spreads_a_large_host_over_shards(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(500))
        await frontier.add(urls(500, first=500))
        claims = await claim_all(frontier)
        assert len(claims) == 1000
        _, records = await frontier._hosts.read(["a.example"])
        assert records["a.example"].shards == 16


# What it costs


@on_dynamodb_local
async def test_capacity_units_of_a_link_from_add_to_complete(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    # The engine reports units for single requests only.
    single = dynamodb_config.model_copy(update={**BATCHES, "conditional_batches": "item"})
    async with DynamoDBBackend(single) as counted:
        frontier = counted.frontier("run", "site")
        await frontier.add(urls(100))

        def units() -> float:
            return sum(each.write_units for each in counted.metrics().values())

        before = units()
        await frontier.add(urls(10, first=100))
        assert units() - before == 20
        before = units()
        claims = await frontier.claim(10)
        # One for the item, two for its index entry, which moves; and a sign of life of the process.
        assert units() - before == 31
        before = units()
        await frontier.complete(claims)
        assert units() - before == 20


# Faults


def losing(count: int, which: Callable[[str, dict[str, Any]], bool]) -> tuple[Around, list[str]]:
    """Lets the engine apply some requests, and loses its answers."""
    lost: list[str] = []

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        if which(operation, request) and len(lost) < count:
            lost.append(operation)
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    return around, lost


@on_dynamodb_local
@pytest.mark.parametrize("way", ["partiql", "item"])
async def test_frontier_is_unaffected_by_lost_answers(
    config: DynamoDBConfig, backend: DynamoDBBackend, way: str
) -> None:
    single = config.model_copy(update={"conditional_batches": way})
    seen: Counter[str] = Counter()

    async def loses_every_third(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        seen[operation] += 1
        if seen[operation] % 3 == 1 and not operation.startswith("describe"):
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    async with opened(single, loses_every_third) as frontier:
        await frontier.set_host_max_in_flight("a.example", 4)
        assert all(each.added for each in await frontier.add(urls(60)))
        done = 0
        while claims := await frontier.claim(3):
            assert {each.item.attempt for each in claims} == {1}
            await frontier.renew(claims, 60)
            await frontier.complete(claims)
            done += len(claims)
        assert done == 60
        assert await frontier.is_finished()
        stats = await frontier.stats()
        assert stats == FrontierStats(completed=60) == await frontier.recount()
        assert [each.in_flight async for each in frontier.iter_hosts()] == [0]
    assert {item.attempt for item in (await items(backend)).values()} == {1}


@on_dynamodb_local
async def test_frontier_add_that_fails_names_the_links_and_can_be_repeated(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    broken = True

    async def fails(operation: str, request: dict[str, Any], call: Any) -> Any:
        if broken and operation == "batch_execute_statement":
            raise EndpointConnectionError(endpoint_url="down")
        return await call(**request)

    async with opened(config.model_copy(update={"retry_attempts": 2}), fails) as frontier:
        with pytest.raises(PartialBatchError) as caught:
            await frontier.add(urls(3))
        assert [item.url for item, _ in caught.value.failures] == urls(3)
        broken = False
        assert all(each.added for each in await frontier.add(urls(3)))
        assert len(await frontier.claim()) == 3


@on_dynamodb_local
async def test_frontier_add_that_fails_to_wake_the_host_loses_no_link(config: DynamoDBConfig) -> None:
    inserted = broken = False

    async def fails(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal inserted
        if broken and inserted:
            raise EndpointConnectionError(endpoint_url="down")
        answer = await call(**request)
        inserted = inserted or operation == "batch_execute_statement"
        return answer

    async with opened(config.model_copy(update={"retry_attempts": 2}), fails) as frontier:
        broken = True
        with pytest.raises(Exception, match="no usable answer"):
            await frontier.add([url(1)])
        broken = False
        assert names(await frontier.claim()) == [url(1)]


@on_dynamodb_local
async def test_frontier_add_again_repairs_what_a_killed_process_left(config: DynamoDBConfig) -> None:
    """It was killed after its link was durable, and before it could make that known."""
    killed = False

    async def dies(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal killed
        if killed:
            raise asyncio.CancelledError
        answer = await call(**request)
        killed = operation == "batch_execute_statement"
        return answer

    async with opened(config) as frontier:
        assert await frontier.is_finished()
        async with opened(config, dies) as dying:
            with pytest.raises(asyncio.CancelledError):
                await dying.add([url(1)])
            dying.forget()
        assert not await frontier.is_finished()
        assert [each.added for each in await frontier.add([url(1)])] == [False]
        assert not await frontier.is_finished()
        assert names(await frontier.claim()) == [url(1)]


@on_dynamodb_local
async def test_claim_that_is_cancelled_gives_its_items_back_at_once(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(40))
        for delay in range(20):
            claiming = asyncio.create_task(frontier.claim(4))
            for _ in range(delay):
                await asyncio.sleep(0.003)
            claiming.cancel()
            outcome = (await asyncio.gather(claiming, return_exceptions=True))[0]
            if not isinstance(outcome, BaseException):
                await frontier.release(outcome)
        await frontier._tasks.join()
        assert len(await claim_all(frontier)) == 40


@on_dynamodb_local
async def test_claim_that_is_cancelled_harms_no_other_caller(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(40))
        tasks = [asyncio.create_task(frontier.claim(2)) for _ in range(10)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [each for each in results[1::2] if isinstance(each, list)]
        assert [len(each) for each in kept] == [2] * 5
        await frontier._tasks.join()
        assert len(await claim_all(frontier)) == 30


@on_dynamodb_local
async def test_claim_calls_at_once_share_their_requests(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with DynamoDBBackend(config) as counted:
        frontier = counted.frontier("run", "site")
        await frontier.add(urls(64))
        before = requests(counted)
        results = await asyncio.gather(*(frontier.claim(1, worker_id=f"w{i}") for i in range(25)))
        assert [len(each) for each in results] == [1] * 25
        assert [each[0].worker_id for each in results] == [f"w{i}" for i in range(25)]
        assert requests(counted) - before <= 8


@on_dynamodb_local
async def test_claim_with_a_wrong_clock_raises(config: DynamoDBConfig) -> None:
    async def late(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        answer["ResponseMetadata"]["HTTPHeaders"]["date"] = "Thu, 01 Jan 2026 00:00:00 GMT"
        return answer

    async with opened(config, late) as frontier:
        await frontier.add(urls(3))
        with pytest.raises(ClockSkewError, match=r"clock is at least .* s ahead of DynamoDB's"):
            await frontier.claim()


@on_moto
async def test_frontier_on_an_engine_without_partiql_uses_single_requests(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend, caplog: pytest.LogCaptureFixture
) -> None:
    automatic = {"conditional_batches": "auto", "retry_attempts": 2, "retry_base_delay": 0.0}
    async with opened(dynamodb_config.model_copy(update=automatic)) as frontier:
        assert all(each.added for each in await frontier.add(urls(3)))
        await frontier.complete(await frontier.claim())
        assert await frontier.is_finished()
    assert caplog.text.count("PartiQL batches are denied or unsupported here") == 1


# Workers


@on_dynamodb_local
async def test_worker_keeps_the_lease_of_a_slow_handler(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    quick = config.model_copy(update={"frontier_max_clock_skew": 0.1})
    async with opened(quick) as frontier, opened(quick) as thief:
        await frontier.add([url(1)])
        stolen: list[Claim] = []

        async def handle(claim: Claim) -> None:
            for _ in range(8):
                await asyncio.sleep(0.3)
                stolen.extend(await thief.claim())

        async with frontier.worker(lease_seconds=1.0) as worker:
            await worker.run(handle)
        assert (stolen, worker.completed, worker.lost) == ([], 1, 0)
    assert (await items(backend))[url(1)].attempt == 1


@on_dynamodb_local
async def test_worker_cancels_a_handler_before_its_lease_is_taken_over(
    config: DynamoDBConfig,
) -> None:
    quick = config.model_copy(update={"frontier_max_clock_skew": 0.2, "retry_attempts": 1})
    loop = asyncio.get_running_loop()
    started = asyncio.Event()
    ended: list[float] = []

    async def cut_off(operation: str, request: dict[str, Any], call: Any) -> Any:
        statement = str(request.get("Statements"))
        if "lease_expires_at" in statement and "lease_owner" not in statement and "REMOVE" not in statement:
            raise EndpointConnectionError(endpoint_url="renewals are cut off")
        return await call(**request)

    async def handle(claim: Claim) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(loop.time())

    async with opened(quick, cut_off) as frontier, opened(quick) as other:
        await frontier.add([url(1)])
        async with frontier.worker(lease_seconds=1.5) as worker:
            running = asyncio.create_task(worker.run(handle))
            await started.wait()
            # Another handler of this worker must not get it first.
            worker.stop()
            claims = await other.claim(wait_seconds=20)
            taken = loop.time()
            assert names(claims) == [url(1)]
            assert len(ended) == 1
            assert ended[0] < taken
            await running
            assert (worker.lost, worker.completed) == (1, 0)


@on_dynamodb_local
async def test_worker_process_that_gets_sigterm_leaves_no_lease(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    frontier = backend.frontier("run", "site")
    await frontier.add(urls(3))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.patient_worker"),
        *(str(dynamodb_config.endpoint_url), dynamodb_config.table_prefix, "0.2"),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    begun = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
    assert sorted(begun) == sorted(urls(3))
    assert await frontier.claim() == []
    process.terminate()
    output, _ = await process.communicate()
    assert (output.decode().split(), process.returncode) == (["closed"], 143)
    # Its leases had ten minutes to go.
    assert sorted(names(await frontier.claim(wait_seconds=10))) == sorted(urls(3))
