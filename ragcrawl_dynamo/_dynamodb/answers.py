"""Compares the items of an answer with the keys that its request names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ragcrawl_dynamo.errors import AnswerMismatchError

# Requests that name one key. An answer with an item has all of it, or as much as holds the key.
_OF_ONE_KEY = frozenset({"DeleteItem", "GetItem", "UpdateItem"})


def check_items(operation: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> None:
    """Checks that an answer has no items but those that its request names by key.

    If processes share a connection, or a proxy mixes up answers, a request can get the answer of another
    one. Without this check, a caller would then get a different page.

    Raises:
        AnswerMismatchError: The answer has another item.
    """
    if operation in _OF_ONE_KEY:
        if item := response.get("Item") or response.get("Attributes"):
            check_item(operation, request["TableName"], request["Key"], item)
    elif operation == "BatchGetItem":
        for table, items in response.get("Responses", {}).items():
            _check_batch(table, request["RequestItems"].get(table, {}).get("Keys", []), items)


def check_item(operation: str, table: str, key: Mapping[str, Any], item: Mapping[str, Any]) -> None:
    """Checks that an item has a key.

    Raises:
        AnswerMismatchError: The item has another key.
    """
    for name, value in key.items():
        if item.get(name) != value:
            raise _mismatch(operation, table)


def _check_batch(table: str, keys: list[Mapping[str, Any]], items: Iterable[Mapping[str, Any]]) -> None:
    names = list(keys[0]) if keys else []
    try:
        # Every key attribute is a string.
        asked = {tuple([key[name]["S"] for name in names]) for key in keys}
        is_asked = all(tuple([item[name]["S"] for name in names]) in asked for item in items)
    except KeyError:
        is_asked = False
    if not is_asked:
        raise _mismatch("BatchGetItem", table)


def _mismatch(operation: str, table: str) -> AnswerMismatchError:
    return AnswerMismatchError(
        "the answer has an item that was not asked for, so it belongs to another request, and was not used: "
        "close the backend and open it again; then find out what mixes up the answers, such as a forked "
        "process that uses the same connections, or a proxy",
        code="AnswerMismatch",
        operation=operation,
        table=table,
    )
