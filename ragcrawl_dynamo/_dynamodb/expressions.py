"""Describes conditions, filters and updates; names and values always go through placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeAlias

from ragcrawl_dynamo._dynamodb.values import Item, Value

Path: TypeAlias = str | tuple[str, ...]


def names_of(path: Path) -> tuple[str, ...]:
    """Returns the names along a path, that of the attribute first."""
    return (path,) if isinstance(path, str) else path


class Placeholders:
    """The attribute names and values of one request."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Value] = {}
        self._tokens: dict[str, str] = {}

    def path(self, path: Path) -> str:
        """Returns the placeholder of an attribute, or of a member of a nested map."""
        return ".".join(map(self._name, names_of(path)))

    def value(self, value: Value) -> str:
        """Returns the placeholder of a value."""
        token = f":{len(self.values)}"
        self.values[token] = value
        return token

    def _name(self, name: str) -> str:
        if name not in self._tokens:
            token = self._tokens[name] = f"#{len(self._tokens)}"
            self.names[token] = name
        return self._tokens[name]


class Condition(Protocol):
    """A condition of a write, a key condition, or a filter."""

    def render(self, to: Placeholders) -> str:
        """Returns its text, with placeholders from `to`."""
        ...


@dataclass(frozen=True, slots=True)
class Compare:
    """`path operator value`; the operator is one of =, <>, <, <=, >, >=."""

    path: Path
    operator: str
    value: Value

    def render(self, to: Placeholders) -> str:
        """See Condition."""
        return f"{to.path(self.path)} {self.operator} {to.value(self.value)}"


@dataclass(frozen=True, slots=True)
class Between:
    """`low <= path <= high`; a condition on a sort key cannot give both ends in another way."""

    path: Path
    low: Value
    high: Value

    def render(self, to: Placeholders) -> str:
        """See Condition."""
        return f"{to.path(self.path)} BETWEEN {to.value(self.low)} AND {to.value(self.high)}"


@dataclass(frozen=True, slots=True)
class BeginsWith:
    """The text of `path` begins with `prefix`."""

    path: Path
    prefix: Value

    def render(self, to: Placeholders) -> str:
        """See Condition."""
        return f"begins_with({to.path(self.path)}, {to.value(self.prefix)})"


@dataclass(frozen=True, slots=True)
class Exists:
    """The attribute exists."""

    path: Path

    def render(self, to: Placeholders) -> str:
        """See Condition."""
        return f"attribute_exists({to.path(self.path)})"


@dataclass(frozen=True, slots=True)
class Missing:
    """The attribute does not exist."""

    path: Path

    def render(self, to: Placeholders) -> str:
        """See Condition."""
        return f"attribute_not_exists({to.path(self.path)})"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of the conditions holds."""

    conditions: Sequence[Condition]

    def render(self, to: Placeholders) -> str:
        """See Condition."""
        return " AND ".join(f"({condition.render(to)})" for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the conditions holds."""

    conditions: Sequence[Condition]

    def render(self, to: Placeholders) -> str:
        """See Condition."""
        return " OR ".join(f"({condition.render(to)})" for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Update:
    """The change that an UpdateItem makes.

    Attributes:
        put: Path -> the new value.
        default: Path -> the value of an attribute that is absent. An attribute that is there stays.
        increment: Path -> the number to add to the old value, or to 0. The map around it must exist.
        union: Top-level attribute -> the members to add to a set.
        subtract: Top-level attribute -> the members to remove from a set; an empty set vanishes.
        remove: The attributes to remove.
    """

    put: Mapping[Path, Value] = field(default_factory=dict)
    default: Mapping[Path, Value] = field(default_factory=dict)
    increment: Mapping[Path, Value] = field(default_factory=dict)
    union: Mapping[str, Value] = field(default_factory=dict)
    subtract: Mapping[str, Value] = field(default_factory=dict)
    remove: Sequence[str] = ()

    @classmethod
    def between(cls, before: Item, after: Item) -> Self:
        """Returns the change of the attributes that differ between two states of an item."""
        return cls(
            put={name: value for name, value in after.items() if before.get(name) != value},
            remove=[name for name in before if name not in after],
        )

    def render(self, to: Placeholders) -> str:
        """Returns the update expression, with placeholders from `to`."""
        sets = [f"{to.path(path)} = {to.value(value)}" for path, value in self.put.items()]
        sets += [
            f"{to.path(path)} = if_not_exists({to.path(path)}, {to.value(value)})"
            for path, value in self.default.items()
        ]
        if self.increment:
            zero = to.value({"N": "0"})
            sets += [
                f"{to.path(path)} = if_not_exists({to.path(path)}, {zero}) + {to.value(value)}"
                for path, value in self.increment.items()
            ]
        adds = [f"{to.path(path)} {to.value(value)}" for path, value in self.union.items()]
        deletes = [f"{to.path(path)} {to.value(value)}" for path, value in self.subtract.items()]
        removes = [to.path(path) for path in self.remove]
        clauses = {"SET": sets, "ADD": adds, "DELETE": deletes, "REMOVE": removes}
        return " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses.items() if parts)
