"""Encodes and decodes attribute values, and refuses what DynamoDB cannot store.

| Python | DynamoDB |
|---|---|
| str, enum | S |
| datetime | S, "2026-01-31T23:59:59.000000Z": fixed width, so that it sorts by time |
| int, float | N |
| bool, None | BOOL, NULL |
| list, dict, model | L, M, M |
| set of str | SS |
| a large list or dict, if the table packs it | B, see `packed_values` |

Moments and escaped ids have a fixed form, because both are parts of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cache, lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from pydantic import BaseModel

from ragcrawl_dynamo._dynamodb.packed_values import unpack
from ragcrawl_dynamo._dynamodb.sizes import number_size, text_size, value_size
from ragcrawl_dynamo.errors import InvalidValueError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

Value: TypeAlias = "AttributeValueTypeDef"
# All attributes of an item, and those that are its key.
Item: TypeAlias = "dict[str, AttributeValueTypeDef]"
Key: TypeAlias = "dict[str, AttributeValueTypeDef]"

# AWS: "Constraints in Amazon DynamoDB".
MAX_DEPTH = 32
MAX_DIGITS = 38
MIN_MAGNITUDE = 1e-130
MAGNITUDE_BOUND = 1e126

MOMENT_LENGTH = len("2026-01-31T23:59:59.000000Z")

# The digits of a smaller int need no check.
_SMALL = 10**18

_SETS = frozenset({set, frozenset})


class RefusedError(Exception):
    """A value cannot be stored; each container that the error passes adds where the value is."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []


def encode_value(value: Any, *, model: str, field: str) -> AttributeValueTypeDef:
    """Encodes one value.

    Raises:
        InvalidValueError: The value cannot be stored; the error names `model` and `field`.
    """
    try:
        return _encode(value, 1)
    except RefusedError as refused:
        raise InvalidValueError(".".join([field, *refused.path]), refused.reason, model=model) from None


def decode_value(value: Mapping[str, Any]) -> Any:
    """Decodes one value."""
    if (text := value.get("S")) is not None:
        return text
    if (digits := value.get("N")) is not None:
        return _decode_number(digits)
    if (flag := value.get("BOOL")) is not None:
        return flag
    ((tag, raw),) = value.items()
    return _DECODERS[tag](raw)


def escape(text: str) -> str:
    """Escapes an id for use in a key: without "#"."""
    return text.replace("~", "~0").replace("#", "~1")


def unescape(text: str) -> str:
    """Returns the id that `escape` made `text` of."""
    return text.replace("~1", "#").replace("~0", "~")


def moment_text(moment: datetime) -> str:
    """Formats a moment as `2026-01-31T23:59:59.000000Z`: fixed width, so that it sorts by time."""
    if moment.tzinfo is not UTC:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return _utc_text(moment)


# The moments of a record, and of the records of a crawl, are often the same.
@lru_cache(1024)
def _utc_text(moment: datetime) -> str:
    # Four times as fast as isoformat; it leaves out the microseconds where there are none.
    text = orjson.dumps(moment, option=orjson.OPT_UTC_Z).decode()
    return text[1:-1] if moment.microsecond else f"{text[1:-2]}.000000Z"


def encode_model(
    record: BaseModel, depth: int, fields: tuple[tuple[str, int, bool], ...]
) -> tuple[Item, int]:
    """Encodes the fields of a model; returns the attributes and their bytes."""
    item: Item = {}
    size = 0
    values = record.__dict__
    for name, name_size, omits_none in fields:
        value = values[name]
        kind = type(value)
        # The commonest kinds first, since this is done for each field of each record.
        if kind is str and value.isascii():
            item[name] = {"S": value}
            size += name_size + len(value)
        elif value is None and omits_none:
            continue
        elif kind is datetime:
            item[name] = {"S": moment_text(value)}
            size += name_size + MOMENT_LENGTH
        elif kind is int and -_SMALL < value < _SMALL:
            item[name] = {"N": (digits := str(value))}
            size += name_size + number_size(digits)
        elif kind in _SETS and not value:
            continue
        else:
            try:
                item[name] = encoded = _encode(value, depth + 1)
            except RefusedError as refused:
                refused.path.insert(0, name)
                raise
            size += name_size + value_size(encoded)
    return item, size


@cache
def model_fields(
    model: type[BaseModel], without: frozenset[str] = frozenset(), also_without: tuple[str, ...] = ()
) -> tuple[tuple[str, int, bool], ...]:
    """Returns for each field but some: its name, the bytes of the name, and whether None is left out."""
    return tuple(
        (name, text_size(name), field.default is None)
        for name, field in model.model_fields.items()
        if name not in without and name not in also_without
    )


def _encode(value: Any, depth: int) -> AttributeValueTypeDef:
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        kind = next((kind for kind in _ENCODERS if isinstance(value, kind)), None)
        encoder = _ENCODERS[kind] if kind is not None else _refuse_type
    return encoder(value, depth)


def _refuse_type(value: Any, depth: int) -> AttributeValueTypeDef:
    raise RefusedError(
        f"a value of type {type(value).__name__} cannot be stored: use text, numbers, booleans, lists and "
        f"maps"
    )


def _encode_text(value: str, depth: int) -> AttributeValueTypeDef:
    return {"S": _checked_text(str(value))}


def _encode_enum(value: Enum, depth: int) -> AttributeValueTypeDef:
    return _encode(value.value, depth)


def _encode_datetime(value: datetime, depth: int) -> AttributeValueTypeDef:
    return {"S": moment_text(value)}


def _encode_int(value: int, depth: int) -> AttributeValueTypeDef:
    if abs(value) >= 10**MAX_DIGITS:
        raise RefusedError(
            f"a number has more than {MAX_DIGITS} digits, the most that DynamoDB stores: store it as text"
        )
    return {"N": str(value)}


def _encode_float(value: float, depth: int) -> AttributeValueTypeDef:
    if not isfinite(value):
        raise RefusedError(f"DynamoDB cannot store the number {value}: use None, or text")
    if value and not MIN_MAGNITUDE <= abs(value) < MAGNITUDE_BOUND:
        raise RefusedError(
            "a number must be 0, or have a magnitude from 1E-130 to 9.99E+125: store it as text"
        )
    if value.is_integer() and abs(value) < 10**MAX_DIGITS:
        # DynamoDB drops the exponent, so the number comes back as an int. It must be equal to this float.
        return {"N": str(int(value))}
    return {"N": repr(value)}


def _encode_list(value: Sequence[Any], depth: int) -> AttributeValueTypeDef:
    return {"L": [_encode_member(str(i), member, depth) for i, member in enumerate(value)]}


def _encode_dict(value: Mapping[Any, Any], depth: int) -> AttributeValueTypeDef:
    return {
        "M": {(name := _map_key(key)): _encode_member(name, member, depth) for key, member in value.items()}
    }


def _encode_nested(value: BaseModel, depth: int) -> AttributeValueTypeDef:
    return {"M": encode_model(value, depth, model_fields(type(value)))[0]}


def _encode_set(value: set[Any] | frozenset[Any], depth: int) -> AttributeValueTypeDef:
    members = sorted(value)
    if not members or not all(isinstance(member, str) for member in members):
        raise RefusedError(
            "a set that is empty, or has other members than text, cannot be stored: use a list, or None"
        )
    return {"SS": [_checked_text(member) for member in members]}


def _encode_member(name: str, value: Any, depth: int) -> AttributeValueTypeDef:
    try:
        if depth >= MAX_DEPTH:
            raise RefusedError(
                f"is nested deeper than the {MAX_DEPTH} levels that an item can have: flatten it"
            )
        return _encode(value, depth + 1)
    except RefusedError as refused:
        refused.path.insert(0, name)
        raise


def _map_key(key: Any) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise RefusedError(f"a map's key must be text or an int, not {type(key).__name__}")
    if key == "":
        raise RefusedError("a map's key must not be empty")
    return _checked_text(str(key))


def _checked_text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RefusedError("holds a lone surrogate, which UTF-8 cannot encode: replace it") from None
    return text


# The order matters for subclasses: bool before int, Enum before str.
_ENCODERS: dict[type, Callable[[Any, int], AttributeValueTypeDef]] = {
    bool: lambda value, depth: {"BOOL": value},
    Enum: _encode_enum,
    str: _encode_text,
    int: _encode_int,
    float: _encode_float,
    datetime: _encode_datetime,
    type(None): lambda value, depth: {"NULL": True},
    list: _encode_list,
    tuple: _encode_list,
    dict: _encode_dict,
    BaseModel: _encode_nested,
    set: _encode_set,
    frozenset: _encode_set,
}


def _decode_number(text: str) -> int | float:
    if text.isdecimal() and len(text) <= MAX_DIGITS:
        return int(text)
    if "E" in text or "e" in text:
        text = format(Decimal(text), "f")
    # An int has at most 38 digits, so that a longer integer was a float.
    return float(text) if "." in text or len(text.lstrip("-")) > MAX_DIGITS else int(text)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "S": str,
    "N": _decode_number,
    "BOOL": bool,
    "NULL": lambda raw: None,
    "L": lambda raw: [decode_value(member) for member in raw],
    "M": lambda raw: {name: decode_value(member) for name, member in raw.items()},
    "SS": set,
    "B": lambda raw: unpack(bytes(raw)),
}
