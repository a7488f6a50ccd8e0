"""How a page is written over the one that was read, and what a refusal means."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import ServerFaultError
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._records.pages import PageStore, StoredPage
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, make_page
from tests.support.fake_commits import TABLES, as_stored
from tests.support.fakes import client_error, open_gateway, scripted
from tests.support.request_parts import condition_of, written_values

PAGE = make_page(first_seen=START, last_seen=START, status_code=200)
STORED = as_stored(PAGE)
REVISION = WriteToken("revision", {"S": "mine"})
DOWN = client_error("InternalServerError", 500)


def refused(revision: str) -> Any:
    """The condition failed, since the page has that revision."""
    return client_error("ConditionalCheckFailedException", Item={"revision": {"S": revision}})


async def rewrite(*answers: Any, stored: StoredPage = STORED) -> tuple[bool, dict[str, Any]]:
    """Writes the page with another status; returns whether it was written, and the request."""
    page = PAGE.model_copy(update={"status_code": 304})
    item = to_item(TABLES.pages, page, REVISION.attributes)
    async with open_gateway(scripted(*answers)) as (gateway, client):
        is_written = await PageStore(gateway, TABLES.pages, ManualClock()).rewrite(stored, item, REVISION)
    assert len(client.requests) == len(answers)
    return is_written, client.requests[0][1]


async def test_rewrite_of_a_page_writes_what_differs() -> None:
    is_written, request = await rewrite({})
    assert is_written
    assert written_values(request) == {"status_code": {"N": "304"}, "revision": {"S": "mine"}}
    assert request["Key"] == {"site_id": {"S": "site"}, "page_id": {"S": "page"}}
    assert condition_of(request) == "revision = before"


async def test_rewrite_of_a_page_that_is_not_stored_writes_all_but_its_key() -> None:
    is_written, request = await rewrite({}, stored=StoredPage())
    assert is_written
    assert {"url", "status_code", "revision"} <= written_values(request).keys()
    assert not {"site_id", "page_id"} & written_values(request).keys()
    assert condition_of(request) == "attribute_not_exists(page_id)"


async def test_rewrite_recognizes_its_write_after_an_internal_error_and_a_refusal() -> None:
    """The first attempt was done, and its answer was lost."""
    assert (await rewrite(DOWN, refused("mine")))[0]


async def test_rewrite_of_a_page_that_another_writer_changed_is_refused() -> None:
    assert not (await rewrite(refused("theirs")))[0]
    assert not (await rewrite(DOWN, refused("theirs")))[0]


async def test_rewrite_without_an_answer_raises() -> None:
    with pytest.raises(ServerFaultError):
        await rewrite(DOWN, DOWN, DOWN, DOWN)
