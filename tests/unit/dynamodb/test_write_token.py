from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo._dynamodb.expressions import Compare, Placeholders
from ragcrawl_dynamo._dynamodb.write_token import WriteToken


def test_write_token_is_in_the_item_that_its_write_stored() -> None:
    token = WriteToken.new("revision")
    assert token.is_in({"revision": token.value, "other": {"S": "x"}})
    assert not token.is_in({"revision": {"S": "another write's"}})


@pytest.mark.parametrize("item", [None, {}, {"other": {"S": "x"}}])
def test_write_token_is_not_in_an_item_without_it(item: Any) -> None:
    assert not WriteToken.new("revision").is_in(item)


def test_write_token_of_a_maps_member() -> None:
    token = WriteToken.new(("writers", "me"))
    assert token.is_in({"writers": {"M": {"me": token.value, "you": {"S": "x"}}}})
    assert not token.is_in({"writers": {"M": {"you": token.value}}})
    assert not token.is_in({"writers": {"S": "no map"}})
    assert not token.is_in({})


def test_write_token_differs_each_time() -> None:
    tokens = {str(WriteToken.new("a").value) for _ in range(100)}
    assert len(tokens) == 100
    assert WriteToken.new("a", length=8).value["S"].__len__() == 16


def test_write_token_conditions_exclude_each_other() -> None:
    token = WriteToken("a", {"S": "t"})
    assert token.is_present == Compare("a", "=", {"S": "t"})
    rendered = token.is_absent.render(Placeholders())
    assert rendered == "(attribute_not_exists(#0)) OR (#0 <> :0)"
    assert token.assignment == token.attributes == {"a": {"S": "t"}}
