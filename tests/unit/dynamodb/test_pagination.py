import base64
import weakref
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import InvalidArgumentError, InvalidCursorError, Slice
from ragcrawl_dynamo._dynamodb.expressions import Exists
from ragcrawl_dynamo._dynamodb.pagination import _decode_cursor, _encode_cursor, read_pages, read_slice
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._schema.tables import PAGES
from tests.support.fakes import open_gateway
from tests.support.slices import all_slices

SCOPE = ["pages", "", "site"]
NAMES = frozenset({"site_id", "page_id"})
QUERY = Query(PAGES, "site")
FILTERED = Query(PAGES, "site", filter=Exists("page_id"))


def key(number: int) -> dict[str, Any]:
    return {"site_id": {"S": "site"}, "page_id": {"S": f"{number:04}"}}


def engine(count: int, page: int, matches: int = 1) -> Any:
    """A partition of `count` items, at most `page` read per request, of which every `matches`-th passes."""

    def answer(operation: str, request: Any) -> Any:
        start = int(request["ExclusiveStartKey"]["page_id"]["S"]) + 1 if "ExclusiveStartKey" in request else 0
        end = min(count, start + min(page, request["Limit"]))
        items = [key(i) for i in range(start, end) if i % matches == 0 or "FilterExpression" not in request]
        # Like DynamoDB, it only notices the end when nothing was left to read.
        return {"Items": items, "Count": len(items)} | (
            {"LastEvaluatedKey": key(end - 1)} if end < count else {}
        )

    return answer


def number(item: Any) -> int:
    return int(item["page_id"]["S"])


def whole(item: Any) -> tuple[str, int]:
    return item["site_id"]["S"], number(item)


@pytest.mark.parametrize("limit", [1, 7, 99, 100, 101, 5000])
@pytest.mark.parametrize("query", [QUERY, FILTERED], ids=["all", "filtered"])
async def test_read_slice_has_every_item_once_for_all_sizes(query: Query, limit: int) -> None:
    async with open_gateway(engine(count=500, page=30, matches=3)) as (gateway, _):
        slices = await all_slices(
            lambda cursor: read_slice(gateway, query, number, limit=limit, cursor=cursor)
        )
    expected = [i for i in range(500) if i % 3 == 0 or query is QUERY]
    assert [item for part in slices for item in part] == expected
    assert all(len(part) == limit for part in slices[:-1])


async def test_read_slice_without_matches_is_one_empty_slice() -> None:
    async with open_gateway(engine(count=500, page=30, matches=10_000)) as (gateway, _):
        part = await read_slice(gateway, Query(PAGES, "s", filter=Exists("x")), number, limit=5)
    assert (list(part), part.cursor) == ([0], None)


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 100])
@pytest.mark.parametrize("query", [QUERY, FILTERED], ids=["all", "filtered"])
async def test_read_slice_reads_several_partitions_one_after_the_other(query: Query, limit: int) -> None:
    counts = {"site": 4, "empty": 0, "other": 9, "last": 0}

    def answer(operation: str, request: Any) -> Any:
        values = request["ExpressionAttributeValues"].values()
        partition = next(value["S"] for value in values if value.get("S") in counts)
        assert request.get("ExclusiveStartKey", {"site_id": {"S": partition}})["site_id"] == {"S": partition}
        response = engine(counts[partition], page=2, matches=3)(operation, request)
        text = orjson.dumps(response).replace(b'"site"', orjson.dumps(partition))
        return orjson.loads(text)

    more = [replace(query, partition=partition) for partition in ("empty", "other", "last")]
    async with open_gateway(answer) as (gateway, _):
        slices = await all_slices(
            lambda cursor: read_slice(gateway, query, whole, limit=limit, cursor=cursor, more=more)
        )
    expected = [
        (partition, i)
        for partition, count in counts.items()
        for i in range(count)
        if i % 3 == 0 or query is QUERY
    ]
    assert [item for part in slices for item in part] == expected
    assert all(len(part) == limit for part in slices[:-1])


class OnePage(list[Any]):
    """A list whose life can be watched."""

    __hash__ = object.__hash__  # type: ignore[assignment] # a WeakSet holds it by identity


async def test_read_pages_keeps_no_page_that_was_handed_out() -> None:
    keys = sorted(sha256(f"{i}".encode()).hexdigest() for i in range(5000))
    alive: weakref.WeakSet[OnePage] = weakref.WeakSet()

    def answer(operation: str, request: Any) -> Any:
        text = request["KeyConditionExpression"]
        low, high = (
            request["ExpressionAttributeValues"].get(placeholder, {}).get("S") for placeholder in (":1", ":2")
        )
        remaining = [
            page_id
            for page_id in keys
            if ("BETWEEN" not in text or low <= page_id <= high)
            and (" > " not in text or page_id > low)
            and page_id > request.get("ExclusiveStartKey", {"page_id": {"S": ""}})["page_id"]["S"]
        ]
        items = OnePage({"site_id": {"S": "site"}, "page_id": {"S": page_id}} for page_id in remaining[:50])
        alive.add(items)
        return {"Items": items, "Count": len(items)} | (
            {"LastEvaluatedKey": items[-1]} if len(remaining) > 50 else {}
        )

    seen: list[str] = []
    most = 0
    async with open_gateway(answer) as (gateway, client), aclosing(read_pages(gateway, QUERY)) as pages:
        async for _, items in pages:
            seen += [item["page_id"]["S"] for item in items]
            most = max(most, len(alive))
    assert seen == keys
    assert len(client.requests) >= 100
    # Four ranges are read ahead, each at most a page ahead of the last page that was handed out.
    assert most <= 10


async def test_read_slice_refuses_a_limit_below_one() -> None:
    async with open_gateway(engine(1, 1)) as (gateway, client):
        with pytest.raises(InvalidArgumentError, match="limit: must be at least 1, not -3"):
            await read_slice(gateway, QUERY, number, limit=-3)
    assert client.requests == []


@given(st.text(), st.text())
def test_cursor_round_trip(site_id: str, page_id: str) -> None:
    place: Any = {"site_id": {"S": site_id}, "page_id": {"S": page_id}}
    try:
        cursor = _encode_cursor(place, SCOPE)
    except TypeError:  # a lone surrogate, which no key holds
        return
    assert _decode_cursor(cursor, SCOPE, NAMES) == place
    for scope in (["runs", "", "site"], ["pages", "by_url", "site"], ["pages", "", "other"]):
        with pytest.raises(InvalidCursorError, match="another listing"):
            _decode_cursor(cursor, scope, NAMES)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: base64.urlsafe_b64encode(repr(value).encode()).decode()
))  # fmt: skip
def test_cursor_refuses_any_other_text(text: str) -> None:
    with pytest.raises(InvalidCursorError):
        _decode_cursor(text, SCOPE, NAMES)


@pytest.mark.parametrize(
    "inside", [[], {}, 1, None, ["pages", "", "site", {}], ["pages", "", "site", []], "x"]
)
def test_cursor_refuses_a_forged_one(inside: Any) -> None:
    with pytest.raises(InvalidCursorError):
        _decode_cursor(base64.urlsafe_b64encode(orjson.dumps(inside)).decode(), SCOPE, NAMES)


def test_slice_is_a_list_that_shows_its_cursor() -> None:
    part = Slice([1, 2], "abc")
    assert part == [1, 2]
    assert repr(part) == "Slice([1, 2], cursor='abc')"
