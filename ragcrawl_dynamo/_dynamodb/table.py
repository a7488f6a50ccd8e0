"""The definition of a table: its name, its keys, its indexes, and the model that its items hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        """Names of the index's own key attributes."""
        return (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)


@dataclass(frozen=True, slots=True)
class Table(Generic[E]):
    """One table. Every key attribute is a string.

    Attributes:
        name: The name: without prefix in this module's definitions, in full after `named`.
        model: What an item is decoded to.
        keys: The key attributes of a model, those of the indexes included.
        partition_key: Name of the partition key attribute.
        sort_key: Name of the sort key attribute.
        indexes: Secondary indexes.
        separate: Fields that an item does not hold as attributes.
        lifted: Attribute name -> (outer, inner) for fields of a nested model that are stored beside it.
        ttl_attribute: Number of epoch seconds after which DynamoDB may delete an item.
        ttl_setting: Name of the setting that says after how many days; None there switches it off.
        primary_key: Names of the table's own key attributes.
        key_attributes: Names of all attributes that are a key of the table or of an index.
    """

    name: str
    model: type[E]
    keys: Callable[[E], Key]
    partition_key: str
    sort_key: str | None = None
    indexes: tuple[Index, ...] = ()
    separate: frozenset[str] = frozenset()
    lifted: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    ttl_attribute: str | None = None
    ttl_setting: str = ""
    primary_key: tuple[str, ...] = field(init=False)
    key_attributes: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Derives what is asked for with each item."""
        own = (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)
        object.__setattr__(self, "primary_key", own)
        of_indexes = (index.key_attributes for index in self.indexes)
        object.__setattr__(self, "key_attributes", frozenset(own).union(*of_indexes))

    def named(self, prefix: str) -> Self:
        """This table under its full name."""
        return replace(self, name=prefix + self.name)

    def expires_by(self, config: DynamoDBConfig) -> str | None:
        """The attribute by which DynamoDB deletes items, if it does with these settings."""
        if self.ttl_attribute is None or getattr(config, self.ttl_setting) is None:
            return None
        return self.ttl_attribute

    def index(self, name: str) -> Index:
        """The index of that name."""
        return next(index for index in self.indexes if index.name == name)
