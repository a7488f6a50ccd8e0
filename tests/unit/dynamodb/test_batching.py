"""Batches with leftovers, one after the other, as no local engine answers."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from ragcrawl_dynamo import InvalidKeyError, PartialBatchError, RequestRejectedError, ThrottledError
from ragcrawl_dynamo._dynamodb import batching
from ragcrawl_dynamo._dynamodb.batching import (
    BATCHES_IN_FLIGHT,
    delete_all,
    key_values,
    read_all,
    save_all,
)
from ragcrawl_dynamo._dynamodb.codec import to_sized_item
from ragcrawl_dynamo._schema.keys import page_key
from ragcrawl_dynamo._schema.tables import PAGES
from ragcrawl_dynamo._utils.concurrency import PER_TURN
from tests.support.factories import make_page
from tests.support.fakes import ATTEMPTS, FAST, client_error, open_gateway
from tests.support.tracebacks import assert_ends_at_our_error
from tests.support.turns import counting_turns


class Leftovers:
    """An engine that takes the first `takes` of each batch, and leaves the rest to be sent again."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.batches: list[int] = []
        self.stored: dict[tuple[str, ...], Any] = {}

    def __call__(self, operation: str, request: Any) -> Any:
        entries = request["RequestItems"]["pages"]
        if operation == "batch_write_item":
            self.batches.append(len(entries))
            for entry in entries[: self.takes]:
                item = entry["PutRequest"]["Item"]
                key = key_values(PAGES, item)
                assert key not in self.stored, "sent again though it was taken"
                self.stored[key] = item
            rest = entries[self.takes :]
            return {"UnprocessedItems": {"pages": rest} if rest else {}}
        keys = entries["Keys"]
        self.batches.append(len(keys))
        items = [
            self.stored[key]
            for key in (key_values(PAGES, sent_key) for sent_key in keys[: self.takes])
            if key in self.stored
        ]
        rest = keys[self.takes :]
        return {
            "Responses": {"pages": items},
            "UnprocessedKeys": {"pages": {**entries, "Keys": rest}} if rest else {},
        }


def pages(count: int) -> list[Any]:
    return [make_page(f"p{i:03}") for i in range(count)]


def keys(ids: Sequence[int]) -> list[Any]:
    return [page_key("site", f"p{i:03}") for i in ids]


async def test_save_all_sends_25_items_a_request() -> None:
    engine = Leftovers(takes=25)
    async with open_gateway(engine) as (gateway, _):
        assert await save_all(gateway, PAGES, pages(60)) == 60
    assert sorted(engine.batches) == [10, 25, 25]
    assert len(engine.stored) == 60


async def test_save_all_sends_only_left_over_items_again() -> None:
    engine = Leftovers(takes=7)
    async with open_gateway(engine) as (gateway, _):
        assert await save_all(gateway, PAGES, pages(25)) == 25
    assert engine.batches == [25, 18, 11, 4]
    assert len(engine.stored) == 25


async def test_save_all_continues_while_there_is_progress() -> None:
    engine = Leftovers(takes=1)
    async with open_gateway(engine) as (gateway, _):
        assert await save_all(gateway, PAGES, pages(25)) == 25
    assert len(engine.batches) == 25 > ATTEMPTS


async def test_save_all_names_the_items_that_stay_left_over() -> None:
    def stuck(operation: str, request: Any) -> Any:
        entries = request["RequestItems"]["pages"]
        rest = [entry for entry in entries if entry["PutRequest"]["Item"]["page_id"]["S"] in ("p003", "p040")]
        return {"UnprocessedItems": {"pages": rest} if rest else {}}

    async with open_gateway(stuck) as (gateway, client):
        with pytest.raises(PartialBatchError, match="58 items saved, 2 not") as caught:
            await save_all(gateway, PAGES, pages(60))
        # Three first tries; each of the two stuck ones is repeated until no round makes progress.
        assert len(client.requests) == 3 + 2 * ATTEMPTS
    assert caught.value.saved == 58
    assert {page.page_id for page, _ in caught.value.failures} == {"p003", "p040"}
    assert all(isinstance(error, ThrottledError) for _, error in caught.value.failures)
    assert "unprocessed 4 times in a row" in str(caught.value)


@pytest.mark.parametrize("operation", ["BatchWriteItem", "BatchGetItem"])
async def test_batching_attempts_for_left_overs_and_for_errors_do_not_multiply(operation: str) -> None:
    calls = 0

    def failing(operation: str, request: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise client_error("InternalServerError", 500)
        name = "UnprocessedItems" if operation == "batch_write_item" else "UnprocessedKeys"
        return {name: request["RequestItems"]}

    async with open_gateway(failing) as (gateway, client):
        if operation == "BatchWriteItem":
            with pytest.raises(PartialBatchError):
                await save_all(gateway, PAGES, pages(3))
        else:
            with pytest.raises(ThrottledError):
                await read_all(gateway, PAGES, keys(range(3)))
        counters = gateway.metrics.snapshot()[operation, "pages"]
    assert len(client.requests) == ATTEMPTS
    assert (counters.requests, counters.retries, counters.throttled) == (4, 2, 2)


async def test_save_all_stores_the_others_beside_a_failed_batch() -> None:
    def refuse_one(operation: str, request: Any) -> Any:
        entries = request["RequestItems"]["pages"]
        if any(entry["PutRequest"]["Item"]["page_id"]["S"] == "p030" for entry in entries):
            raise client_error("ValidationException")
        return {}

    async with open_gateway(refuse_one) as (gateway, _):
        with pytest.raises(PartialBatchError) as caught:
            await save_all(gateway, PAGES, pages(60))
    assert caught.value.saved == 35
    assert [page.page_id for page, _ in caught.value.failures] == [f"p{i:03}" for i in range(25, 50)]
    assert {type(error) for _, error in caught.value.failures} == {RequestRejectedError}
    assert_ends_at_our_error(caught.value)


async def test_save_all_writes_the_last_of_each_key_and_a_bad_record_fails_alone() -> None:
    engine = Leftovers(takes=25)
    async with open_gateway(engine) as (gateway, _):
        with pytest.raises(PartialBatchError) as caught:
            await save_all(gateway, PAGES, [make_page("a", depth=1), make_page(""), make_page("a", depth=2)])
    assert caught.value.saved == 1
    assert isinstance(caught.value.failures[0][1], InvalidKeyError)
    assert engine.stored["site", "a"]["depth"] == {"N": "2"}


async def test_save_all_writes_the_last_of_a_key_that_can_be_stored() -> None:
    engine = Leftovers(takes=25)
    invalid = make_page("a", etag="x" * 500_000)
    async with open_gateway(engine) as (gateway, _):
        with pytest.raises(PartialBatchError) as caught:
            await save_all(gateway, PAGES, [make_page("a", depth=1), invalid])
    assert caught.value.saved == 1
    assert [record for record, _ in caught.value.failures] == [invalid]
    assert engine.stored["site", "a"]["depth"] == {"N": "1"}


async def test_save_all_encodes_the_records_of_a_batch_only_when_it_can_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[Any] = []
    gate = asyncio.Event()

    def encode(table: Any, record: Any) -> Any:
        encoded.append(record)
        return to_sized_item(table, record)

    async def answer(operation: str, request: Any) -> Any:
        await gate.wait()
        return {}

    monkeypatch.setattr(batching, "to_sized_item", encode)
    async with open_gateway(answer, FAST.model_copy(update={"max_connections": 50})) as (gateway, client):
        saving = asyncio.create_task(save_all(gateway, PAGES, pages(1000)))
        while len(client.requests) < BATCHES_IN_FLIGHT:  # noqa: ASYNC110 # the other task sends them
            await asyncio.sleep(0)
        # One more record than the batch has shows that the batch is full.
        assert len(encoded) == BATCHES_IN_FLIGHT * 25 + 1
        gate.set()
        assert await saving == 1000
    assert len(encoded) == 1000


async def test_save_all_and_read_all_let_other_tasks_run_between_the_keys_of_many_records() -> None:
    async with open_gateway(lambda operation, request: {}) as (gateway, client):

        async def turns_before_a_request(call: Any) -> int:
            client.requests.clear()
            async with counting_turns() as turns:
                task = asyncio.create_task(call)
                while not client.requests:  # noqa: ASYNC110 # the other task sends it
                    await asyncio.sleep(0)
                count = turns.count
            await task
            return count

        assert await turns_before_a_request(save_all(gateway, PAGES, pages(900))) >= 900 // PER_TURN
        wanted = keys(range(900))
        assert await turns_before_a_request(read_all(gateway, PAGES, wanted)) >= 900 // PER_TURN
        assert await turns_before_a_request(delete_all(gateway, PAGES, wanted)) >= 900 // PER_TURN


async def test_delete_all_names_the_items_that_were_not_deleted() -> None:
    def stuck(operation: str, request: Any) -> Any:
        return {"UnprocessedItems": {"pages": request["RequestItems"]["pages"][-1:]}}

    async with open_gateway(stuck) as (gateway, _):
        with pytest.raises(PartialBatchError) as caught:
            await delete_all(gateway, PAGES, keys(range(10)))
    assert caught.value.saved == 9
    assert caught.value.failures[0][0] == {"site_id": "site", "page_id": "p009"}


async def test_read_all_sends_100_keys_a_request_and_keeps_their_order() -> None:
    engine = Leftovers(takes=100)
    async with open_gateway(engine) as (gateway, _):
        await save_all(gateway, PAGES, pages(250))
        engine.batches.clear()
        engine.takes = 33
        wanted = [*range(249, 100, -1), 999, *range(100)]
        items = await read_all(gateway, PAGES, keys(wanted))
    assert [item["page_id"]["S"] for item in items] == [f"p{i:03}" for i in wanted if i != 999]
    assert max(engine.batches) == 100


async def test_keys_that_are_given_twice_are_sent_once() -> None:
    def refusing(operation: str, request: Any) -> Any:
        entries = request["RequestItems"]["pages"]
        sent = entries["Keys"] if "Keys" in entries else [entry["DeleteRequest"]["Key"] for entry in entries]
        # As DynamoDB does.
        if len({key_values(PAGES, key) for key in sent}) < len(sent):
            raise client_error("ValidationException")
        return {"Responses": {"pages": sent}}

    async with open_gateway(refusing) as (gateway, _):
        items = await read_all(gateway, PAGES, keys([2, 1, 2, 3, 1]))
        assert [item["page_id"]["S"] for item in items] == ["p002", "p001", "p003"]
        assert await delete_all(gateway, PAGES, keys([2, 1, 2])) == 2


async def test_read_all_raises_for_keys_that_stay_unread() -> None:
    def stuck(operation: str, request: Any) -> Any:
        return {"Responses": {}, "UnprocessedKeys": request["RequestItems"]}

    async with open_gateway(stuck) as (gateway, _):
        with pytest.raises(ThrottledError, match="DynamoDB left 2 items unprocessed 4 times in a row"):
            await read_all(gateway, PAGES, keys(range(2)))
