"""Reads requests: the items that they write or read, and the parts of an answer about these items.

PartiQL is read as `ragcrawl_dynamo._dynamodb.partiql` writes it: INSERT and UPDATE by full key, all values as
parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

Item: TypeAlias = dict[str, Any]
# The table, and the key as JSON.
ItemId: TypeAlias = tuple[str, bytes]
# Names of key attributes, by table.
Keys: TypeAlias = Mapping[str, tuple[str, ...]]

SINGLE_WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem"})
WRITES = SINGLE_WRITES | {"BatchWriteItem", "BatchExecuteStatement", "TransactWriteItems"}
READS = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})

_TABLE = re.compile(r'(?:INSERT INTO|UPDATE) "([^"]+)"')
_MEMBER = re.compile(r"'((?:[^']|'')*)': \?")
_NAME = re.compile(r'"((?:[^"]|"")*)"')
_EQUALITY = re.compile(r"(#?\w+)\s*=\s*(:\w+)")
_PLACEHOLDER = re.compile(r"#?\w+")


@dataclass(frozen=True)
class Write:
    """One write of one item.

    Attributes:
        table: The table.
        key: The key attributes.
        item: The whole item, if the request has it.
        is_deletion: Whether it deletes the item.
        touched: The attributes that it can change; None for all.
    """

    table: str
    key: Item
    item: Item | None = None
    is_deletion: bool = False
    touched: frozenset[str] | None = None

    @property
    def id(self) -> ItemId:
        return item_id(self.table, self.key)


def item_id(table: str, key: Item) -> ItemId:
    """Returns the id of an item among those of all tables."""
    return table, orjson.dumps(key, option=orjson.OPT_SORT_KEYS)


def tables_of(operation: str, request: Item) -> set[str]:
    """Returns the tables of a request."""
    if "TableName" in request:
        return {request["TableName"]}
    if "RequestItems" in request:
        return set(request["RequestItems"])
    if operation == "TransactWriteItems":
        return {part["TableName"] for element in request["TransactItems"] for part in element.values()}
    return {_table_of_statement(statement["Statement"]) for statement in request.get("Statements", [])}


def writes_of(operation: str, request: Item, keys: Keys) -> list[Write]:
    """Returns the writes of a request, in the order of its parts."""
    match operation:
        case "PutItem" | "UpdateItem" | "DeleteItem":
            return [_single(operation.removesuffix("Item"), request, keys)]
        case "BatchWriteItem":
            return [
                _single(kind.removesuffix("Request"), {"TableName": table, **part}, keys)
                for table, elements in request["RequestItems"].items()
                for element in elements
                for kind, part in element.items()
            ]
        case "TransactWriteItems":
            return [
                _single(kind, part, keys)
                for element in request["TransactItems"]
                for kind, part in element.items()
            ]
        case _:
            return [_statement(statement, keys) for statement in request["Statements"]]


def _single(kind: str, part: Item, keys: Keys) -> Write:
    table = part["TableName"]
    match kind:
        case "Put":
            item = part["Item"]
            return Write(table, {name: item[name] for name in keys[table]}, item)
        case "Delete":
            return Write(table, part["Key"], is_deletion=True)
        case "ConditionCheck":
            return Write(table, part["Key"], touched=frozenset())
        case _:
            names = part.get("ExpressionAttributeNames", {})
            words = _PLACEHOLDER.findall(part.get("UpdateExpression", ""))
            return Write(table, part["Key"], touched=frozenset(names.get(word, word) for word in words))


def _table_of_statement(text: str) -> str:
    match = _TABLE.match(text)
    assert match is not None, f"this statement is not simulated: {text}"
    return match[1]


def _statement(statement: Item, keys: Keys) -> Write:
    text, parameters = statement["Statement"], statement["Parameters"]
    table = _table_of_statement(text)
    if text.startswith("INSERT"):
        names = [name.replace("''", "'") for name in _MEMBER.findall(text)]
        item = dict(zip(names, parameters, strict=True))
        return Write(table, {name: item[name] for name in keys[table]}, item)
    changes, _, where = text.partition(" WHERE ")
    first = changes.count("?")
    named = [f'"{name}" = ?' for name in keys[table]]
    assert where.startswith(" AND ".join(named)), f"this statement does not begin with its key: {text}"
    key = dict(zip(keys[table], parameters[first:], strict=False))
    # Names come after that of the table.
    return Write(table, key, touched=frozenset(_NAME.findall(changes)[1:]))


def partition_of(request: Item, partition_key: str) -> str | None:
    """Returns the value of the partition key that a query asks for."""
    names = request.get("ExpressionAttributeNames", {})
    for name, value in _EQUALITY.findall(request.get("KeyConditionExpression", "")):
        if names.get(name, name) == partition_key:
            return text_of(request["ExpressionAttributeValues"][value])
    return None


def text_of(value: Item) -> str:
    """Returns a key attribute's value as text."""
    ((_, text),) = value.items()
    return str(text)
