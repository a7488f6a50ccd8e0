"""Defines a table: its name, its keys, its indexes, and the model of its items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, Self, TypeVar

from pydantic import BaseModel

from ragcrawl_dynamo._dynamodb.values import Key
from ragcrawl_dynamo.config import DynamoDBConfig

E = TypeVar("E", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index; its projection is KEYS_ONLY."""

    name: str
    partition_key: str
    sort_key: str | None = None
    is_global: bool = True

    @property
    def key_attributes(self) -> tuple[str, ...]:
        """The names of the index's key attributes."""
        return (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)


@dataclass(frozen=True, slots=True)
class Table(Generic[E]):
    """One table. Every key attribute is a string.

    Attributes:
        name: The name; a definition has no prefix, `named` adds it.
        model: The model that an item is decoded to.
        keys: Returns the key attributes of a record, with those of the indexes.
        partition_key: The name of the partition key attribute.
        sort_key: The name of the sort key attribute.
        indexes: The secondary indexes.
        separate: Fields that are not stored as attributes of the item.
        packed: Lists and maps that are compressed where they are large.
        ttl_attribute: The attribute with the epoch seconds after which DynamoDB may delete an item.
        ttl_setting: The setting with the days until then; None there switches the deletion off.
        primary_key: The names of the table's key attributes.
        key_attributes: The names of all attributes that are a key of the table or of an index.
    """

    name: str
    model: type[E]
    keys: Callable[[E], Key]
    partition_key: str
    sort_key: str | None = None
    indexes: tuple[Index, ...] = ()
    separate: frozenset[str] = frozenset()
    packed: tuple[str, ...] = ()
    ttl_attribute: str | None = None
    ttl_setting: str = ""
    primary_key: tuple[str, ...] = field(init=False)
    key_attributes: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Derives the names of keys, which every item needs."""
        primary_key = (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)
        object.__setattr__(self, "primary_key", primary_key)
        of_indexes = (index.key_attributes for index in self.indexes)
        object.__setattr__(self, "key_attributes", frozenset(primary_key).union(*of_indexes))

    def named(self, prefix: str) -> Self:
        """Returns this table under its full name."""
        return replace(self, name=prefix + self.name)

    def expires_by(self, config: DynamoDBConfig) -> str | None:
        """Returns the attribute by which DynamoDB deletes items; None if the settings switch that off."""
        if self.ttl_attribute is None or getattr(config, self.ttl_setting) is None:
            return None
        return self.ttl_attribute

    def index(self, name: str) -> Index:
        """Returns the index of that name."""
        return next(index for index in self.indexes if index.name == name)
