from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import ConflictError, EndpointUnreachableError
from ragcrawl_dynamo._dynamodb.expressions import Missing, Update
from ragcrawl_dynamo._dynamodb.transactions import Transaction
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import frontier_key, page_key
from ragcrawl_dynamo._schema.tables import FRONTIER, PAGES
from tests.support.fakes import ATTEMPTS, client_error, open_gateway, scripted

TOKEN = WriteToken("revision", {"S": "mine"})


def transaction() -> Transaction:
    made = Transaction(TOKEN, marked="page")
    made.put("page", PAGES, {**page_key("s", "p"), **TOKEN.attributes}, Missing("page_id"))
    made.update("claim", FRONTIER, frontier_key("r", "i"), Update(put={"a": {"S": "b"}}), Missing("a"))
    return made


def cancelled(*reasons: dict[str, Any]) -> Any:
    return client_error("TransactionCanceledException", CancellationReasons=list(reasons))


async def test_transaction_sends_all_writes_with_its_token() -> None:
    async with open_gateway(scripted({})) as (gateway, client):
        assert await transaction().run(gateway) is None
    ((operation, request),) = client.requests
    assert operation == "transact_write_items"
    assert request["ClientRequestToken"] == "mine"
    assert [list(element) for element in request["TransactItems"]] == [["Put"], ["Update"]]


async def test_transaction_refusal_names_the_writes() -> None:
    refused = {"Code": "ConditionalCheckFailed", "Item": {"a": {"S": "theirs"}}}
    async with open_gateway(scripted(cancelled({"Code": "None"}, refused))) as (gateway, _):
        refusal = await transaction().run(gateway)
    assert refusal is not None
    assert (refusal.is_refused("page"), refusal.is_refused("claim")) == (False, True)
    assert not refusal.is_refused("a write that it does not have")
    assert (refusal.item("page"), refusal.item("claim")) == ({}, {"a": {"S": "theirs"}})


async def test_transaction_recognizes_that_its_first_attempt_was_applied() -> None:
    """Its answer was lost, and AWS's ten minutes for the client token are over."""
    refused = {"Code": "ConditionalCheckFailed", "Item": {"revision": {"S": "mine"}}}
    async with open_gateway(scripted(cancelled(refused, {"Code": "None"}))) as (gateway, _):
        assert await transaction().run(gateway) is None


async def test_transaction_that_another_write_preceded_is_refused() -> None:
    refused = {"Code": "ConditionalCheckFailed", "Item": {"revision": {"S": "theirs"}}}
    async with open_gateway(scripted(cancelled(refused, {"Code": "None"}))) as (gateway, _):
        refusal = await transaction().run(gateway)
    assert refusal is not None
    assert refusal.is_refused("page")


async def test_transaction_without_an_answer_raises() -> None:
    async with open_gateway(scripted(*[OSError("no network")] * 4)) as (gateway, _):
        with pytest.raises(EndpointUnreachableError):
            await transaction().run(gateway)


async def test_transaction_whose_conflicts_do_not_end_raises_a_conflict() -> None:
    conflict = cancelled({"Code": "TransactionConflict"}, {"Code": "None"})
    async with open_gateway(scripted(*[conflict] * ATTEMPTS)) as (gateway, _):
        with pytest.raises(ConflictError, match="TransactWriteItems: other writers changed the same items"):
            await transaction().run(gateway)


async def test_transaction_that_is_throttled_tells_how_long_it_pauses() -> None:
    pauses: list[float] = []
    throttled = cancelled({"Code": "ThrottlingError"}, {"Code": "None"})
    conflict = cancelled({"Code": "TransactionConflict"}, {"Code": "None"})
    async with open_gateway(scripted(throttled, conflict, {})) as (gateway, client):
        assert await transaction().run(gateway, pauses.append) is None
    assert (pauses, len(client.requests)) == ([0.0], 3)
