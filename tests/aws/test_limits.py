"""Limits of the simulation: a hot key is throttled, and nothing else, in the way of each operation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.aws import Limits, Settings, SimulatedAWS
from tests.support.aws.raw import RawTable, Time, code_of, item, simulation

pytestmark = pytest.mark.aws

LIMITS = Limits(read_units=10, write_units=10)
THROTTLED = {"ThrottlingException", "ProvisionedThroughputExceededException"}


@asynccontextmanager
async def limited(engine: str) -> AsyncIterator[tuple[SimulatedAWS, RawTable, Time]]:
    time = Time()
    async with simulation(engine, Settings(limits=LIMITS), time) as (aws, table):
        yield aws, table, time


async def heat(aws: SimulatedAWS, table: RawTable, p: str = "hot") -> None:
    """Uses up all units of a key."""
    for i in range(10):
        await table.put(p, f"{i}")
    assert not aws.events["ThrottlingError"]


async def test_hot_key_is_throttled_and_no_other_one(engine: str) -> None:
    async with limited(engine) as (aws, table, time):
        await heat(aws, table)
        codes = {await code_of(table.put("hot", "more")) for _ in range(10)}
        # Of tables on demand, and of provisioned ones.
        assert codes == THROTTLED
        assert aws.events["ThrottlingError"] == 10
        await table.put("cold", "0")
        time.now += 0.05
        await table.put("hot", "more")
        assert await code_of(table.put("hot", "again")) in THROTTLED


async def test_large_item_takes_a_unit_for_each_kilobyte(engine: str) -> None:
    async with limited(engine) as (_, table, time):
        await table.put("hot", "large", text="x" * 12_000)
        assert await code_of(table.put("hot", "small")) in THROTTLED
        time.now += 0.15
        # Two units are missing still.
        assert await code_of(table.put("hot", "small")) in THROTTLED
        time.now += 0.15
        await table.put("hot", "small")


async def test_update_takes_the_units_of_the_item_that_it_leaves(engine: str) -> None:
    async with limited(engine) as (_, table, time):
        await table.put("hot", "large", text="x" * 9_900)
        time.now += 1
        await table.move("hot", "large", "a")
        assert await code_of(table.put("hot", "small")) in THROTTLED


async def test_capacity_can_be_cut_while_the_simulation_runs(engine: str) -> None:
    async with limited(engine) as (aws, table, time):
        aws.settings = replace(aws.settings, limits=Limits(0.1, 0.1))
        await table.put("hot", "0")
        time.now += 5
        await table.put("hot", "1")
        time.now += 4
        assert await code_of(table.put("hot", "2")) in THROTTLED
        aws.settings = replace(aws.settings, limits=LIMITS)
        time.now += 0.1
        await table.put("hot", "2")


async def test_hot_statements_fail_one_by_one(engine: str) -> None:
    async with limited(engine) as (aws, table, _):
        await heat(aws, table)
        text = f"INSERT INTO \"{table.name}\" VALUE {{'p': ?, 's': ?}}"
        keys = [("hot", "a"), ("cold", "b"), ("hot", "c"), ("cool", "d")]
        statements = [{"Statement": text, "Parameters": [{"S": p}, {"S": s}]} for p, s in keys]
        codes: set[str] = set()
        for _ in range(5):
            answer = await table.client.batch_execute_statement(Statements=statements)
            hot, first, again, second = (response.get("Error", {}) for response in answer["Responses"])
            codes |= {hot["Code"], again["Code"]}
        assert codes == {"ThrottlingError", "ProvisionedThroughputExceeded"}
        # They were inserted the first time.
        assert (first["Code"], second["Code"]) == ("DuplicateItem", "DuplicateItem")
        assert await table.get("hot", "a") is None
        answer = await table.client.batch_execute_statement(Statements=statements[:1])
        assert answer["Responses"][0]["Error"]["Code"] in codes


async def test_hot_writes_of_a_batch_are_left_over(engine: str) -> None:
    async with limited(engine) as (aws, table, _):
        await heat(aws, table)
        hot = [{"PutRequest": {"Item": item("hot", s)}} for s in ("a", "b")]
        cold = {"PutRequest": {"Item": item("cold", "c")}}
        batch = {table.name: [hot[0], cold, hot[1]]}
        answer = await table.client.batch_write_item(RequestItems=batch)
        assert answer["UnprocessedItems"] == {table.name: hot}
        assert await table.get("cold", "c") is not None
        assert await table.get("hot", "a") is None
        assert await code_of(table.client.batch_write_item(RequestItems={table.name: hot})) in THROTTLED


async def test_hot_keys_of_a_batch_of_reads_are_left_over(engine: str) -> None:
    async with limited(engine) as (_, table, _time):
        await table.put("hot", "0")
        await table.put("cold", "0")
        hot, cold = item("hot", "0"), item("cold", "0")
        for _ in range(10):
            await table.get("hot", "0")
        assert await code_of(table.get("hot", "0")) in THROTTLED
        keys = {"Keys": [hot, cold], "ConsistentRead": True}
        answer = await table.client.batch_get_item(RequestItems={table.name: keys})
        assert answer["Responses"][table.name] == [cold]
        assert answer["UnprocessedKeys"][table.name] == {"Keys": [hot], "ConsistentRead": True}
        only_hot = {table.name: {"Keys": [hot]}}
        assert await code_of(table.client.batch_get_item(RequestItems=only_hot)) in THROTTLED


async def test_transaction_with_a_hot_key_is_cancelled_with_reasons(engine: str) -> None:
    async with limited(engine) as (aws, table, _):
        await heat(aws, table)
        writes = [{"Put": {"TableName": table.name, "Item": item(p, "t")}} for p in ("cold", "hot")]
        with pytest.raises(ClientError) as raised:
            await table.client.transact_write_items(TransactItems=writes)
        response: Any = raised.value.response
        assert response["Error"]["Code"] == "TransactionCanceledException"
        assert [reason["Code"] for reason in response["CancellationReasons"]] == ["None", "ThrottlingError"]
        assert await table.get("cold", "t") is None


async def test_queries_are_limited_by_the_units_that_they_read(engine: str) -> None:
    async with limited(engine) as (_, table, time):
        for i in range(10):
            await table.put("p", f"{i}", place="busy", rank=f"{i}", text="x" * 900)
            time.now += 1
        request: dict[str, Any] = {
            "TableName": table.name,
            "KeyConditionExpression": "p = :p",
            "ExpressionAttributeValues": {":p": {"S": "p"}},
            "ConsistentRead": True,
        }
        # Each takes two and a half units of ten.
        for _ in range(4):
            await table.client.query(**request)
        assert await code_of(table.client.query(**request)) in THROTTLED
        # The index has units of its own.
        assert len(await table.listed("busy")) == 10
        # A scan is not limited.
        await table.client.scan(TableName=table.name, ConsistentRead=True)


async def test_hot_partition_of_an_index_throttles_writes_that_change_it(engine: str) -> None:
    async with limited(engine) as (_, table, _time):
        for i in range(10):
            await table.put(f"p{i}", "s", place="hot", rank="1")
        assert await code_of(table.put("p10", "s", place="hot", rank="1")) in THROTTLED
        await table.put("p11", "s", place="cold", rank="1")
        # What leaves the hot partition is written there too; what does not change its entry is not.
        assert await code_of(table.move("p1", "s", "cold")) in THROTTLED
        await table.client.update_item(
            TableName=table.name,
            Key=item("p1", "s"),
            UpdateExpression="SET note = :n",
            ExpressionAttributeValues={":n": {"S": "x"}},
        )
