"""Converts the values of items to JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Any
from uuid import UUID

from itemadapter import ItemAdapter

# Beyond these, a number is stored as text, because most readers of JSON would round it.
_LEAST_INTEGER, _LARGEST_INTEGER = -(2**63), 2**64 - 1


def json_value(value: Any) -> Any:
    """Returns a value that JSON can store.

    Dates and times become ISO 8601 text; durations seconds; Decimal, UUID and paths text; bytes their UTF-8
    text, or base64 if they are none; sets sorted lists; tuples lists; an Enum its value; infinite numbers and
    NaN null. Items within items become objects. The keys of an object become text.

    Raises:
        TypeError: The value, or one in it, is of another type.
        RecursionError: The value contains itself.
    """
    match value:
        case Enum():
            return json_value(value.value)
        case None | bool():
            return value
        case int():
            return int(value) if _LEAST_INTEGER <= value <= _LARGEST_INTEGER else str(int(value))
        case float():
            return float(value) if isfinite(value) else None
        case str():
            return _text(value)
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID() | PurePath():
            return str(value)
        case bytes() | bytearray():
            return _text_of_bytes(bytes(value))
        case Mapping():
            return {_key(key): json_value(member) for key, member in value.items()}
        case set() | frozenset():
            return sorted(map(json_value, value), key=lambda member: json.dumps(member, sort_keys=True))
        case list() | tuple():
            return [json_value(member) for member in value]
    if ItemAdapter.is_item(value):
        return {_key(key): json_value(member) for key, member in ItemAdapter(value).items()}
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored as JSON")


def _key(key: Any) -> str:
    plain = json_value(key)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _text(text: str) -> str:
    """Returns text without lone surrogates, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return str(text)


def _text_of_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
