"""The values of items, as they are stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import attrs
import pytest
from parsel import Selector
from scrapy import Field, Item

from ragcrawl_dynamo.adapters.scrapy.json_values import json_value

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Product(Item):
    name = Field()
    unset = Field()


@dataclass
class Offer:
    price: Decimal
    product: Any


@attrs.define
class Shop:
    offers: list[Offer]


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (datetime(2026, 7, 1, 12, tzinfo=UTC), "2026-07-01T12:00:00+00:00"),
        (date(2026, 7, 1), "2026-07-01"),
        (time(12, 30), "12:30:00"),
        (timedelta(minutes=1.5), 90.0),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (Color.RED, "red"),
        (b"text \xc3\xa4", "text \u00e4"),
        (b"\xff", "/w=="),
        (("a", 1), ["a", 1]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", 1, None}), ["b", 1, None]),
        ({1: True, None: "x", "a": {date(2026, 7, 1): 1}}, {"1": True, "null": "x", "a": {"2026-07-01": 1}}),
        (float("nan"), None),
        (float("-inf"), None),
        (2**64, str(2**64)),
        (2**64 - 1, 2**64 - 1),
        ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        (
            Shop([Offer(Decimal(2), Product(name="n"))]),
            {"offers": [{"price": "2", "product": {"name": "n"}}]},
        ),
    ],
)
def test_scrapy_json_values_of_types_that_json_does_not_have(value: Any, stored: Any) -> None:
    assert json_value(value) == stored
    assert json.loads(json.dumps(json_value(value), allow_nan=False)) == stored


def test_scrapy_json_values_of_sets_do_not_depend_on_their_order() -> None:
    # Otherwise each crawl would find other content, and make a version.
    assert json_value({"a", "b", "c"}) == json_value({"c", "b", "a"}) == ["a", "b", "c"]


@pytest.mark.parametrize("value", [object(), Selector("<p/>"), [lambda: 0], {"a": type}])
def test_scrapy_json_values_refuse_objects_that_are_not_data(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be stored as JSON"):
        json_value(value)
