"""Recognizes a write whose answer was lost, by a value that no other write stores."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ragcrawl_dynamo._dynamodb.expressions import AnyOf, Compare, Condition, Missing, Path, names_of
from ragcrawl_dynamo._dynamodb.values import Item, Value

# A token is compared with the latest one of its item only, so that 48 bits are plenty.
_BYTES = 6


@dataclass(frozen=True, slots=True)
class WriteToken:
    """A value that one write stores in its item, and no other write does.

    A request that is sent again after its answer was lost can be refused because its first attempt was
    applied. The item that comes with the refusal then holds the token.

    Attributes:
        path: The attribute that holds it, or the path of a map's member.
        value: The value.
    """

    path: Path
    value: Value

    @classmethod
    def new(cls, path: Path, *, length: int = _BYTES) -> Self:
        """A random token of `length` bytes, in hexadecimal digits."""
        return cls(path, {"S": secrets.token_hex(length)})

    @property
    def attributes(self) -> Item:
        """The token as an attribute of an item that is put."""
        assert isinstance(self.path, str)  # noqa: S101 # an item is put with top-level attributes
        return {self.path: self.value}

    @property
    def assignment(self) -> dict[Path, Value]:
        """The token as part of `Update.put`."""
        return {self.path: self.value}

    @property
    def is_absent(self) -> Condition:
        """The condition that the write was not applied yet."""
        return AnyOf((Missing(self.path), Compare(self.path, "<>", self.value)))

    @property
    def is_present(self) -> Condition:
        """The condition that the item holds the token."""
        return Compare(self.path, "=", self.value)

    def is_in(self, item: Mapping[str, Any] | None) -> bool:
        """Whether this write was the latest one that stored its token in an item."""
        outer, *inner = names_of(self.path)
        stored = (item or {}).get(outer)
        for name in inner:
            stored = (stored or {}).get("M", {}).get(name)
        return bool(stored == self.value)
