"""Renders conditional writes as PartiQL statements; values are parameters, names are quoted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Missing,
    Path,
    Update,
    names_of,
)
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import BatchStatementRequestTypeDef


def insert_statement(table: str, item: Item) -> BatchStatementRequestTypeDef:
    """Returns the statement that writes an item if there is none with its key."""
    members = ", ".join(f"{_literal(name)}: ?" for name in item)
    return {"Statement": f"INSERT INTO {_name(table)} VALUE {{{members}}}", "Parameters": [*item.values()]}


def update_statement(
    table: str, key: Key, update: Update, condition: Condition
) -> BatchStatementRequestTypeDef:
    """Returns the statement that changes an item if it exists and `condition` holds; it answers the new item.

    A counter must exist: PartiQL has no `if_not_exists`.

    Raises:
        TypeError: No conditional update has needed such a condition or such an update yet.
    """
    if update.union or update.subtract or update.default:
        raise TypeError("conditional updates cannot change sets, nor set defaults: PartiQL cannot either")
    statement = _Statement()
    clauses = [f"SET {_path(path)} = {statement.value(value)}" for path, value in update.put.items()]
    clauses += [
        f"SET {_path(path)} = {_path(path)} + {statement.value(value)}"
        for path, value in update.increment.items()
    ]
    clauses += [f"REMOVE {_path(name)}" for name in update.remove]
    where = [f"{_path(name)} = {statement.value(value)}" for name, value in key.items()]
    where.append(f"({statement.text(condition)})")
    text = f"UPDATE {_name(table)} {' '.join(clauses)} WHERE {' AND '.join(where)} RETURNING ALL NEW *"
    return {"Statement": text, "Parameters": statement.parameters}


class _Statement:
    """Collects the parameters in the order in which their placeholders are written."""

    def __init__(self) -> None:
        self.parameters: list[Value] = []

    def value(self, value: Value) -> str:
        self.parameters.append(value)
        return "?"

    def text(self, condition: Condition) -> str:
        match condition:
            case Compare(path, operator, value):
                return f"{_path(path)} {operator} {self.value(value)}"
            case Missing(path):
                return f"{_path(path)} IS MISSING"
            case AllOf(conditions):
                return " AND ".join(f"({self.text(part)})" for part in conditions)
            case AnyOf(conditions):
                return " OR ".join(f"({self.text(part)})" for part in conditions)
        raise TypeError(f"conditional updates cannot use {condition!r}: add its PartiQL here first")


def _path(path: Path) -> str:
    return ".".join(map(_name, names_of(path)))


def _name(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'"{quoted}"'


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
