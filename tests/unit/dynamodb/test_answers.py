"""Answers of other requests, as shared connections and proxies bring them, on scripted engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ragcrawl_dynamo import AnswerMismatchError, Store
from ragcrawl_dynamo._dynamodb.codec import to_sized_item
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate, PartiqlWrites, SingleWrites
from ragcrawl_dynamo._dynamodb.expressions import Missing, Update
from ragcrawl_dynamo._dynamodb.outcomes import Failed
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import page_key
from ragcrawl_dynamo._schema.tables import PAGES
from tests.support.factories import make_page
from tests.support.fakes import FAST, FakeClient, open_gateway

MINE, OTHER = (to_sized_item(PAGES, make_page(name))[0] for name in ("mine", "other"))


@asynccontextmanager
async def open_store(answer: Mapping[str, Any], coalescing: bool) -> AsyncIterator[Store]:
    config = FAST.model_copy(update={"coalescing": coalescing, "table_prefix": ""})
    store = Store(config, client_factory=FakeClient(lambda *_: dict(answer)).factory)
    await store._rooms.gateway.open()
    yield store
    await store.close()


@pytest.mark.parametrize("coalescing", [True, False])
async def test_get_page_refuses_the_answer_of_another_request(coalescing: bool) -> None:
    async with open_store({"Item": OTHER}, coalescing) as store:
        with pytest.raises(
            AnswerMismatchError, match="the answer has an item that was not asked for"
        ) as info:
            await store.get_page("site", "mine")
    assert (info.value.code, info.value.operation, info.value.table) == ("AnswerMismatch", "GetItem", "pages")


async def test_get_page_refuses_an_item_of_another_table() -> None:
    async with open_store({"Item": {"run_id": {"S": "run"}}}, True) as store:
        with pytest.raises(AnswerMismatchError):
            await store.get_page("site", "mine")


async def test_get_pages_bulk_refuses_the_answer_of_another_request() -> None:
    async with open_store({"Responses": {"pages": [MINE, OTHER]}}, True) as store:
        assert len(await store.get_pages_bulk("site", ["mine", "other", "absent"])) == 2
        with pytest.raises(AnswerMismatchError, match="BatchGetItem on pages"):
            await store.get_pages_bulk("site", ["mine", "absent"])


@pytest.mark.parametrize("kind", [PartiqlWrites, SingleWrites])
async def test_conditional_update_refuses_the_answer_of_another_request(
    kind: type[PartiqlWrites | SingleWrites],
) -> None:
    """Whether the update was done is not known, so the caller looks before it does it again."""
    token = WriteToken.new("by")
    update = ConditionalUpdate(
        page_key("site", "mine"), Update(put={"by": token.value}), Missing("by"), token
    )
    answer = {"Attributes": OTHER} if kind is SingleWrites else {"Responses": [{"Item": OTHER}]}
    async with open_gateway(lambda *_: dict(answer)) as (gateway, _):
        (outcome,) = await kind(gateway, PAGES).run([update])
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, AnswerMismatchError)
    assert outcome.may_be_applied
