"""Computes sizes of items by DynamoDB's rule (AWS: "DynamoDB item sizes and formats")."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

# AWS: "Constraints in Amazon DynamoDB".
MAX_ITEM_BYTES = 400 * 1024


def item_size(item: Mapping[str, AttributeValueTypeDef]) -> int:
    """Returns the bytes of an item."""
    return sum(attribute_size(name, value) for name, value in item.items())


def attribute_size(name: str, value: AttributeValueTypeDef) -> int:
    """Returns the bytes of an attribute: its name and its value."""
    return text_size(name) + value_size(value)


def value_size(value: Mapping[str, Any]) -> int:
    """Returns the bytes of an encoded value."""
    if (text := value.get("S")) is not None:
        return text_size(text)
    ((tag, raw),) = value.items()
    match tag:
        case "B":
            return len(raw)
        case "N":
            return number_size(raw)
        case "M":
            return 3 + sum(1 + attribute_size(name, member) for name, member in raw.items())
        case "L":
            return 3 + sum(1 + value_size(member) for member in raw)
        case "SS":
            return sum(map(text_size, raw))
        case _:
            return 1


@lru_cache(4096)
def number_size(text: str) -> int:
    """Returns the bytes of a number: one for two significant digits, and one or two more."""
    digits = text.lower().split("e")[0].replace(".", "").strip("-0")
    return int((len(digits) + 1) // 2 + 1 + text.startswith("-"))


def text_size(text: str) -> int:
    """Returns the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
