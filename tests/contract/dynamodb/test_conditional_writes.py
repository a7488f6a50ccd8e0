"""Conditional writes give the same answers in PartiQL batches and as single requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    ConditionalInsert,
    ConditionalUpdate,
    ConditionalWrites,
    conditional_writes,
)
from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Missing,
    Update,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Outcome, Refused
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import frontier_key
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.factories import make_item

WAYS = pytest.mark.parametrize(
    ("dynamodb_endpoint", "way"),
    [("moto", "item"), ("dynamodb-local", "item"), ("dynamodb-local", "partiql"), ("dynamodb-local", "auto")],
    indirect=["dynamodb_endpoint"],
)
pytestmark = WAYS


class Setting:
    """A frontier table with its conditional writes."""

    def __init__(self, gateway: Gateway, table: Table[Any]) -> None:
        self.gateway = gateway
        self.table = table
        self.writes: ConditionalWrites = conditional_writes(gateway, table)

    def insert(self, item_id: str, token: str = "t", **fields: Any) -> ConditionalInsert:
        item = to_item(self.table, make_item(item_id, **fields), {"writer": {"S": token}, "n": {"N": "1"}})
        return ConditionalInsert(item, written_by(token))

    async def get(self, item_id: str) -> Item | None:
        request: Any = {"TableName": self.table.name, "Key": key(item_id), "ConsistentRead": True}
        return (await self.gateway.call("GetItem", request)).get("Item")


def written_by(token: str) -> WriteToken:
    return WriteToken("writer", {"S": token})


def key(item_id: str) -> Key:
    return frontier_key("run", item_id)


def claim(item_id: str, token: str, condition: Condition | None = None) -> ConditionalUpdate:
    update = Update(
        put={"status": {"S": "in_progress"}, "writer": {"S": token}},
        increment={"n": {"N": "1"}},
        remove=["last_error"],
    )
    return ConditionalUpdate(
        key(item_id), update, condition or Compare("status", "=", {"S": "pending"}), written_by(token)
    )


@pytest_asyncio.fixture
async def setting(backend: DynamoDBBackend, way: str) -> AsyncIterator[Setting]:
    config: DynamoDBConfig = backend.config.model_copy(update={"conditional_batches": way})
    gateway = Gateway(config)
    await gateway.open()
    yield Setting(gateway, Tables.of(config.table_prefix).frontier)
    await gateway.close()


def kinds(outcomes: list[Outcome]) -> list[type[Outcome]]:
    return [type(outcome) for outcome in outcomes]


async def test_conditional_insert_never_overwrites_an_item(setting: Setting) -> None:
    writes = [setting.insert(f"i{i}", "first") for i in range(60)]
    assert kinds(await setting.writes.run(writes)) == [Applied] * 60
    again = [setting.insert(f"i{i}", "second") for i in range(55, 65)]
    assert kinds(await setting.writes.run(again)) == [Refused] * 5 + [Applied] * 5
    for item_id, token in (("i56", "first"), ("i62", "second")):
        item = await setting.get(item_id)
        assert item is not None
        assert item["writer"] == {"S": token}


async def test_conditional_update_applies_if_the_condition_holds_and_returns_the_item(
    setting: Setting,
) -> None:
    await setting.writes.run([setting.insert(f"i{i}", last_error="x") for i in range(3)])
    outcomes = await setting.writes.run([claim("i0", "a"), claim("absent", "a"), claim("i1", "a")])
    assert kinds(outcomes) == [Applied, Refused, Applied]
    assert isinstance(outcomes[0], Applied)
    assert outcomes[0].item == await setting.get("i0")
    assert outcomes[0].item is not None
    assert outcomes[0].item["n"] == {"N": "2"}
    assert "last_error" not in outcomes[0].item
    assert kinds(await setting.writes.run([claim("i0", "b"), claim("i2", "b")])) == [Refused, Applied]
    assert await setting.get("absent") is None


async def test_conditional_writes_of_one_key_keep_their_order(setting: Setting) -> None:
    outcomes = await setting.writes.run(
        [setting.insert("i"), claim("i", "a"), setting.insert("i"), claim("i", "b"), setting.insert("other")]
    )
    assert kinds(outcomes) == [Applied, Applied, Refused, Refused, Applied]
    item = await setting.get("i")
    assert item is not None
    assert (item["writer"], item["n"]) == ({"S": "a"}, {"N": "2"})


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Compare("n", "<", {"N": "2"}), True),
        (Compare("n", ">=", {"N": "2"}), False),
        (Missing("lease"), True),
        (Missing("status"), False),
        (AllOf((Missing("lease"), Compare("status", "<>", {"S": "pending"}))), False),
        (AnyOf((Missing("status"), Compare("status", "=", {"S": "pending"}))), True),
    ],
    ids=repr,
)
async def test_conditional_update_evaluates_each_condition(
    setting: Setting, condition: Condition, holds: bool
) -> None:
    await setting.writes.run([setting.insert("i")])
    (outcome,) = await setting.writes.run([claim("i", "a", condition)])
    assert isinstance(outcome, Applied if holds else Refused)


async def test_conditional_update_adds_to_and_removes_from_sets(setting: Setting) -> None:
    insert = setting.insert("i")
    await setting.writes.run([ConditionalInsert({**insert.item, "tags": {"SS": ["a", "b"]}}, insert.token)])
    for update in (Update(union={"tags": {"SS": ["c"]}}), Update(subtract={"tags": {"SS": ["a"]}})):
        request = requests.update_request(setting.table, key("i"), update, Missing("lease"))
        await setting.gateway.call("UpdateItem", request)
    item = await setting.get("i")
    assert item is not None
    assert sorted(item["tags"]["SS"]) == ["b", "c"]


async def test_conditional_writes_use_placeholders_for_names_and_values(setting: Setting) -> None:
    odd = """x' OR '1'='1 "; -- ?"""
    insert = setting.insert("i", url=odd)
    await setting.writes.run([ConditionalInsert({**insert.item, odd: {"S": odd}}, insert.token)])
    update = Update(put={"writer": {"S": "x"}, (odd + "2"): {"S": odd}})
    condition = Compare(odd, "=", {"S": odd})
    assert kinds(
        await setting.writes.run([ConditionalUpdate(key("i"), update, condition, written_by("x"))])
    ) == [Applied]
    item = await setting.get("i")
    assert item is not None
    assert (item[odd], item[odd + "2"], item["url"]) == ({"S": odd},) * 3


async def test_conditional_writes_accept_an_empty_list(setting: Setting) -> None:
    assert await setting.writes.run([]) == []
