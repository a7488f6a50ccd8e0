"""Escaping of ids in keys."""

from hypothesis import given

from ragcrawl_dynamo._dynamodb.values import escape, unescape
from tests.support.factories import ids


@given(ids)
def test_unescape_undoes_escape(text: str) -> None:
    assert unescape(escape(text)) == text


@given(ids)
def test_escape_leaves_no_separator(text: str) -> None:
    assert "#" not in escape(text)
