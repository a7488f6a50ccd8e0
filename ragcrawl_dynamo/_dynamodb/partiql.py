"""Conditional writes as PartiQL statements; values are always parameters, names always quoted."""

from __future__ import annotations

from functools import singledispatchmethod
from typing import TYPE_CHECKING

from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    BeginsWith,
    Between,
    Compare,
    Condition,
    Contains,
    Exists,
    Missing,
    Path,
    Update,
)
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import BatchStatementRequestTypeDef


def insert_statement(table: str, item: Item) -> BatchStatementRequestTypeDef:
    """Writes an item if there is none of its key."""
    members = ", ".join(f"{_literal(name)}: ?" for name in item)
    return {"Statement": f"INSERT INTO {_name(table)} VALUE {{{members}}}", "Parameters": [*item.values()]}


def update_statement(
    table: str, key: Key, update: Update, condition: Condition
) -> BatchStatementRequestTypeDef:
    """Changes an item if it exists and `condition` holds, and returns it as it is then.

    A counter must exist: PartiQL has no `if_not_exists`.
    """
    statement = _Statement()
    clauses = [f"SET {_path(path)} = {statement.value(value)}" for path, value in update.put.items()]
    clauses += [
        f"SET {_path(path)} = {_path(path)} + {statement.value(value)}"
        for path, value in update.increment.items()
    ]
    clauses += [
        f"SET {_path(name)} = set_add({_path(name)}, {statement.value(value)})"
        for name, value in update.union.items()
    ]
    clauses += [
        f"SET {_path(name)} = set_delete({_path(name)}, {statement.value(value)})"
        for name, value in update.subtract.items()
    ]
    clauses += [f"REMOVE {_path(name)}" for name in update.remove]
    where = [f"{_path(name)} = {statement.value(value)}" for name, value in key.items()]
    where.append(f"({statement.text(condition)})")
    text = f"UPDATE {_name(table)} {' '.join(clauses)} WHERE {' AND '.join(where)} RETURNING ALL NEW *"
    return {"Statement": text, "Parameters": statement.parameters}


class _Statement:
    """Parameters in the order in which their places are written."""

    def __init__(self) -> None:
        self.parameters: list[Value] = []

    def value(self, value: Value) -> str:
        self.parameters.append(value)
        return "?"

    @singledispatchmethod
    def text(self, condition: Condition) -> str:
        raise TypeError(f"no PartiQL for {condition!r}")

    @text.register
    def _(self, condition: Compare) -> str:
        return f"{_path(condition.path)} {condition.operator} {self.value(condition.value)}"

    @text.register
    def _(self, condition: Between) -> str:
        low, high = self.value(condition.low), self.value(condition.high)
        return f"{_path(condition.path)} BETWEEN {low} AND {high}"

    @text.register
    def _(self, condition: BeginsWith) -> str:
        return f"begins_with({_path(condition.path)}, {self.value(condition.prefix)})"

    @text.register
    def _(self, condition: Contains) -> str:
        return f"contains({_path(condition.path)}, {self.value(condition.part)})"

    @text.register
    def _(self, condition: Exists) -> str:
        return f"{_path(condition.path)} IS NOT MISSING"

    @text.register
    def _(self, condition: Missing) -> str:
        return f"{_path(condition.path)} IS MISSING"

    @text.register
    def _(self, condition: AllOf) -> str:
        return " AND ".join(f"({self.text(each)})" for each in condition.conditions)

    @text.register
    def _(self, condition: AnyOf) -> str:
        return " OR ".join(f"({self.text(each)})" for each in condition.conditions)


def _path(path: Path) -> str:
    return ".".join(map(_name, (path,) if isinstance(path, str) else path))


def _name(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'"{quoted}"'


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
