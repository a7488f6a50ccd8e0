"""Concurrent single calls in full batches, on scripted engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ragcrawl_dynamo import (
    BackendClosedError,
    BackendNotOpenError,
    RequestRejectedError,
    ThrottledError,
)
from ragcrawl_dynamo._dynamodb.coalescing import Gets, Puts
from ragcrawl_dynamo._dynamodb.codec import to_sized_item
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._schema.keys import page_key
from ragcrawl_dynamo._schema.tables import PAGES
from tests.support.factories import make_page
from tests.support.fakes import ATTEMPTS, FAST, FakeClient, client_error, open_gateway
from tests.support.tracebacks import assert_ends_at_our_error


class Engine:
    """Keeps items, takes `delay` seconds for a request, and refuses the ids in `bad`."""

    def __init__(self, delay: float = 0.0, bad: frozenset[str] = frozenset()) -> None:
        self.delay = delay
        self.bad = bad
        # Closed, it holds every request back.
        self.gate = asyncio.Event()
        self.gate.set()
        self.items: dict[str, Item] = {}
        # The page ids of each request, in the order in which they were sent.
        self.requests: list[list[str]] = []
        self.under_way: list[str] = []

    async def __call__(self, operation: str, request: Any) -> Any:
        if operation in ("put_item", "get_item"):
            sent = [request["Item"] if operation == "put_item" else request["Key"]]
        else:
            entries = request["RequestItems"]["pages"]
            is_write = operation == "batch_write_item"
            sent = [entry["PutRequest"]["Item"] for entry in entries] if is_write else entries["Keys"]
        names = [item_or_key["page_id"]["S"] for item_or_key in sent]
        assert len(set(names)) == len(names) <= (100 if "get" in operation else 25)
        self.requests.append(names)
        if "get" not in operation:
            assert not set(names) & set(self.under_way), "two writes of one key at a time"
        self.under_way += names
        await asyncio.sleep(self.delay)
        await self.gate.wait()
        self.under_way = [name for name in self.under_way if name not in names]
        if self.bad & set(names):
            raise client_error("ValidationException")
        match operation:
            case "get_item":
                item = self.items.get(names[0])
                return {} if item is None else {"Item": item}
            case "batch_get_item":
                return {"Responses": {"pages": [self.items[name] for name in names if name in self.items]}}
            case _:
                self.items |= dict(zip(names, sent, strict=True))
                return {}


async def settle() -> None:
    """Lets everything happen that waits for nothing but its turn."""
    for _ in range(50):
        await asyncio.sleep(0)


@asynccontextmanager
async def puts_on(engine: Any, **settings: Any) -> AsyncIterator[Puts]:
    config = FAST.model_copy(update={"max_connections": 50, **settings})
    async with open_gateway(engine, config) as (gateway, _):
        puts = Puts(gateway, PAGES)
        yield puts
        await puts.close()


def put(puts: Puts, page_id: str, depth: int = 0, **fields: Any) -> asyncio.Task[None]:
    item, size = to_sized_item(PAGES, make_page(page_id, depth=depth, **fields))
    return asyncio.create_task(puts.put(item, size))


async def test_puts_at_the_same_time_are_sent_in_full_batches() -> None:
    engine = Engine()
    async with puts_on(engine) as puts:
        await asyncio.gather(*(put(puts, f"p{i}") for i in range(64)))
    assert [len(names) for names in engine.requests] == [25, 25, 14]
    assert len(engine.items) == 64


async def test_puts_sends_a_single_write_as_put_item_at_once() -> None:
    engine = Engine()
    async with puts_on(engine) as puts:
        writing = put(puts, "p")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert engine.requests == [["p"]]
        await writing


async def test_puts_with_few_callers_do_not_wait_for_others() -> None:
    """Each put is called while others are in flight."""
    engine = Engine()
    engine.gate.clear()
    async with puts_on(engine) as puts:
        tasks = []
        for i in range(5):
            tasks.append(put(puts, f"p{i}"))
            await settle()
            # The put is sent, although none of the earlier puts has been answered.
            assert len(engine.requests) == i + 1
        engine.gate.set()
        await asyncio.gather(*tasks)


async def test_puts_with_many_callers_send_few_requests() -> None:
    """A thousand puts are called one by one, each while others are in flight."""
    engine = Engine(delay=0.02)
    loop = asyncio.get_running_loop()
    async with puts_on(engine) as puts:
        started = loop.time()
        tasks = []
        for i in range(1000):
            tasks.append(put(puts, f"p{i}"))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        seconds = loop.time() - started
    partial = [names for names in engine.requests if len(names) < 25]
    # A burst of batches that are not full, and then one in 20 ms.
    assert len(partial) <= 8 + seconds / 0.02 + 1
    assert len(engine.requests) < 60 + seconds / 0.02
    assert len(engine.items) == 1000


async def test_puts_sends_a_batch_as_soon_as_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragcrawl_dynamo._dynamodb.pacing.SECONDS_PER_BATCH", 60.0)
    engine = Engine()
    engine.gate.clear()
    async with puts_on(engine) as puts:
        tasks: list[asyncio.Task[None]] = []
        # Until a put is not sent at once.
        while len(tasks) == len(engine.requests):
            tasks.append(put(puts, f"first {len(tasks)}"))
            await settle()
        # The burst is used up: the last put waits. 24 others fill its batch.
        sent = len(engine.requests)
        tasks += [put(puts, f"p{i}") for i in range(24)]
        await settle()
        assert len(engine.requests) == sent + 1
        engine.gate.set()
        await asyncio.gather(*tasks)
    assert len(engine.items) == len(tasks)


async def test_puts_raises_unexpected_errors_to_every_caller() -> None:
    async def broken(operation: str, request: Any) -> Any:
        raise KeyError("bug")

    async with puts_on(broken) as puts:
        results = await asyncio.gather(*(put(puts, f"p{i}") for i in range(3)), return_exceptions=True)
    assert {type(error) for error in results} == {KeyError}


async def test_puts_of_one_key_are_done_in_their_order() -> None:
    engine = Engine(delay=0.002)
    async with puts_on(engine) as puts:
        done: list[int] = []

        async def write(i: int) -> None:
            await put(puts, f"p{i % 3}", depth=i)
            done.append(i)

        await asyncio.gather(*(write(i) for i in range(30)))
    # The engine itself refuses two of one key at a time.
    for key in range(3):
        order = [i for i in done if i % 3 == key]
        assert order == sorted(order)
        assert engine.items[f"p{key}"]["depth"] == {"N": str(27 + key)}


async def test_puts_that_are_refused_fail_alone_with_their_own_error() -> None:
    engine = Engine(bad=frozenset({"p3", "p7"}))
    async with puts_on(engine) as puts:
        results = await asyncio.gather(*(put(puts, f"p{i}") for i in range(20)), return_exceptions=True)
    failed = {i for i, error in enumerate(results) if error is not None}
    assert failed == {3, 7}
    assert isinstance(results[3], RequestRejectedError)
    assert results[3] is not results[7]
    assert "PutItem on pages" in str(results[3])
    assert len(engine.items) == 18


async def test_puts_that_all_fail_raise_one_error_each() -> None:
    async def throttled(operation: str, request: Any) -> Any:
        raise client_error("ThrottlingException")

    async with puts_on(throttled) as puts:
        results = await asyncio.gather(*(put(puts, f"p{i}") for i in range(20)), return_exceptions=True)
    assert {type(error) for error in results} == {ThrottledError}
    assert len({id(error) for error in results}) == 20
    first: Any = results[0]
    assert (first.code, first.operation) == ("ThrottlingException", "BatchWriteItem")
    assert first.cause_type == "botocore.exceptions.ClientError"
    assert_ends_at_our_error(first)


async def test_puts_that_are_cancelled_harm_no_other_and_are_not_sent_if_they_wait() -> None:
    engine = Engine(delay=0.05)
    async with puts_on(engine) as puts:
        tasks = [put(puts, f"p{i}") for i in range(25 * 32 + 10)]
        await asyncio.sleep(0.01)
        # As many batches as allowed are in flight. The other puts are not sent yet.
        tasks[3].cancel()
        tasks[803].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [i for i, error in enumerate(results) if error is not None] == [3, 803]
    assert engine.items.keys() == {f"p{i}" for i in range(810) if i != 803}


async def test_puts_batch_is_limited_to_half_a_megabyte() -> None:
    engine = Engine()
    async with puts_on(engine) as puts:
        await asyncio.gather(*(put(puts, f"p{i}", last_error="x" * 200_000) for i in range(5)))
    assert [len(names) for names in engine.requests] == [2, 2, 1]


async def test_puts_close_sends_waiting_puts_and_refuses_new_ones() -> None:
    engine = Engine(delay=0.01)
    async with puts_on(engine) as puts:
        tasks = [put(puts, f"p{i}") for i in range(300)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(puts.close())
        await asyncio.sleep(0)
        late = put(puts, "late")
        await closing
        with pytest.raises(BackendClosedError):
            await late
        assert await asyncio.gather(*tasks) == [None] * 300
    assert len(engine.items) == 300


async def test_puts_beyond_two_thousand_wait_to_be_accepted() -> None:
    engine = Engine()
    async with puts_on(engine) as puts:
        tasks = [put(puts, f"p{i}") for i in range(3000)]
        await asyncio.sleep(0)
        assert len(puts._calls._waiting) == 2000
        await asyncio.gather(*tasks)
    assert len(engine.items) == 3000


async def test_coalescing_switched_off_sends_a_request_each() -> None:
    engine = Engine()
    async with puts_on(engine, coalescing=False) as puts:
        await asyncio.gather(*(put(puts, f"p{i}") for i in range(10)))
    assert len(engine.requests) == 10


async def test_puts_before_open_are_refused() -> None:
    with pytest.raises(BackendNotOpenError):
        await put(Puts(Gateway(FAST, FakeClient(Engine()).factory), PAGES), "p")


def test_puts_works_in_another_event_loop_after_contention() -> None:
    async def many() -> None:
        await gateway.open()
        await asyncio.gather(*(put(puts, f"p{i}") for i in range(3000)))
        await puts.close()
        await gateway.close()

    gateway = Gateway(FAST, FakeClient(Engine()).factory)
    puts = Puts(gateway, PAGES)
    asyncio.run(many())
    asyncio.run(many())


async def test_gets_at_the_same_time_are_batched_and_read_a_key_once() -> None:
    engine = Engine()
    async with open_gateway(engine, FAST) as (gateway, _):
        puts, gets = Puts(gateway, PAGES), Gets(gateway, PAGES)
        await asyncio.gather(*(put(puts, f"p{i}") for i in range(150)))
        engine.requests.clear()
        wanted = [f"p{i}" for i in range(40)] * 2 + ["absent"]
        items = await asyncio.gather(*(gets.get(page_key("site", page_id)) for page_id in wanted))
        await asyncio.gather(puts.close(), gets.close())
    assert [None if item is None else item["page_id"]["S"] for item in items] == [*wanted[:-1], None]
    assert list(map(len, engine.requests)) == [41]


async def test_gets_of_a_refused_key_fails_alone() -> None:
    engine = Engine(bad=frozenset({"p1"}))
    async with open_gateway(engine, FAST) as (gateway, _):
        gets = Gets(gateway, PAGES)
        results = await asyncio.gather(
            *(gets.get(page_key("site", f"p{i}")) for i in range(4)), return_exceptions=True
        )
        await gets.close()
    assert [type(result) for result in results] == [type(None), RequestRejectedError, type(None), type(None)]


async def test_puts_and_gets_that_are_left_over_do_not_hold_the_others() -> None:
    engine = Engine()
    left_over = {"hot": 2}

    async def leaving_over(operation: str, request: Any) -> Any:
        """Leaves the hot item over twice, in a batch or alone."""
        if operation in ("put_item", "get_item"):
            if left_over["hot"] > 0:
                left_over["hot"] -= 1
                raise client_error("ProvisionedThroughputExceededException")
            return await engine(operation, request)
        is_write = operation == "batch_write_item"
        entries = request["RequestItems"]["pages"] if is_write else request["RequestItems"]["pages"]["Keys"]
        hot = [entry for entry in entries if "'hot'" in str(entry)]
        if not hot or left_over["hot"] <= 0:
            return await engine(operation, request)
        left_over["hot"] -= 1
        cold = [entry for entry in entries if entry not in hot]
        part = cold if is_write else {**request["RequestItems"]["pages"], "Keys": cold}
        answer = await engine(operation, {"RequestItems": {"pages": part}})
        name, left = ("UnprocessedItems", hot) if is_write else ("UnprocessedKeys", {"Keys": hot})
        return {**answer, name: {"pages": left}}

    config = FAST.model_copy(update={"retry_base_delay": 0.05})
    async with open_gateway(leaving_over, config) as (gateway, _):
        puts, gets = Puts(gateway, PAGES), Gets(gateway, PAGES)
        hot, *cold = [put(puts, name) for name in ("hot", "a", "b")]
        await asyncio.gather(*cold)
        assert not hot.done()
        await hot
        assert engine.requests == [["a", "b"], ["hot"]]
        left_over["hot"] = 2
        reads = [asyncio.create_task(gets.get(page_key("site", name))) for name in ("hot", "a", "b")]
        assert [(item or {})["page_id"]["S"] for item in await asyncio.gather(*reads[1:])] == ["a", "b"]
        assert not reads[0].done()
        assert ((await reads[0]) or {})["page_id"] == {"S": "hot"}
        await puts.close()
        await gets.close()


async def test_put_that_stays_left_over_fails_after_its_attempts() -> None:
    async def answer(operation: str, request: Any) -> Any:
        raise client_error("ProvisionedThroughputExceededException")

    async with open_gateway(answer) as (gateway, client):
        puts = Puts(gateway, PAGES)
        with pytest.raises(ThrottledError):
            await put(puts, "p")
        await puts.close()
    assert len(client.requests) == ATTEMPTS
