"""Model <-> item: what DynamoDB can store, how, and the refusal of what it can not.

The fields come from the model; there is no second list of them. A field that is None, and whose default is
None, takes no attribute; nor does an empty set, which DynamoDB does not have. An attribute that is a key
holds the escaped id (see `_keys`).

| Python | DynamoDB |
|---|---|
| str, enum | S |
| datetime | S, "2026-01-31T23:59:59.000000Z": fixed width, so that it sorts by time |
| int, float | N |
| bool, None | BOOL, NULL |
| list, dict, model | L, M, M |
| set of str | SS |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache, lru_cache
from math import isfinite
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ragcrawl_dynamo._schema.keys import MOMENT_LENGTH, moment_text, unescape
from ragcrawl_dynamo._schema.tables import E, Table
from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.errors import (
    CorruptItemError,
    InvalidValueError,
    ItemTooLargeError,
)

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

Item: TypeAlias = "dict[str, AttributeValueTypeDef]"

# AWS: "Constraints in Amazon DynamoDB".
MAX_ITEM_BYTES = 400 * 1024
MAX_DEPTH = 32
MAX_DIGITS = 38
MIN_MAGNITUDE = 1e-130
MAGNITUDE_BOUND = 1e126

# Epoch seconds after which DynamoDB may delete an item, in tables that have time to live.
EXPIRES_AT = "expires_at"


# What is smaller needs no look at the local indexes: their keys take less than the difference.
_SURELY_FITS = 384 * 1024

# An int of whose digits nothing has to be checked.
_SMALL = 10**18

_SETS = frozenset({set, frozenset})


class _RefusedError(Exception):
    """A value can not be stored; containers add where it is as the error passes them."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []


def to_item(table: Table[E], record: E, extra: Mapping[str, AttributeValueTypeDef] | None = None) -> Item:
    """The item of a record, checked against DynamoDB's limits; see `to_sized_item`."""
    return to_sized_item(table, record, extra)[0]


def to_sized_item(
    table: Table[E], record: E, extra: Mapping[str, AttributeValueTypeDef] | None = None
) -> tuple[Item, int]:
    """The item of a record, checked against DynamoDB's limits, and its size in bytes.

    Args:
        table: Where it will be stored.
        record: The model.
        extra: Attributes that are no fields of the model, such as a time to live.

    Raises:
        InvalidKeyError: An id is empty or too long.
        InvalidValueError: A field can not be stored.
        ItemTooLargeError: The item is over 400 KB.
    """
    check_kind(table.model.__name__.lower(), record, table.model)
    own = table.keys(record)
    if extra:
        own = {**own, **extra}
    item, size = _encode_named(record, type(record).__name__, table.separate, tuple(own))
    for name, (outer, inner) in table.lifted.items():
        if (value := item[outer]["M"].pop(inner, None)) is not None:  # type: ignore[attr-defined] # our own dict
            item[name] = value
    item.update(own)
    size = item_size(item) if table.lifted else size + item_size(own)
    if size > _SURELY_FITS:
        _check_size(table, record, item)
    return item, size


def from_item(
    table: Table[E], item: Mapping[str, AttributeValueTypeDef], separate: Mapping[str, Any] | None = None
) -> E:
    """The record of an item.

    Args:
        table: Where it is stored.
        item: Its attributes.
        separate: Values of the fields that are stored elsewhere; their defaults where not given.

    Raises:
        CorruptItemError: The item does not fit the model.
    """
    kinds = _kinds(table.model, table.key_attributes)
    try:
        try:
            data = _decode_fields(kinds, item)
        except (KeyError, ValueError):
            # Of another type than its field's; whether that will do, pydantic says.
            data = {
                name: _decode_id(value) if name in kinds.ids else decode_value(value)
                for name, value in item.items()
                if name in table.model.model_fields
            }
        for name, (outer, inner) in table.lifted.items():
            if name in item:
                data[outer][inner] = decode_value(item[name])
        data.update(separate or {})
        record: E = table.model.__pydantic_validator__.validate_python(data)
        return record
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        key = {name: next(iter(item.get(name, {}).values()), None) for name in table.primary_key}
        raise CorruptItemError(
            f"item {key} of table {table.name} is no {table.model.__name__}: {_reason(error)}"
        ) from error


def encode_fields(record: BaseModel, model: str, *, without: frozenset[str] = frozenset()) -> Item:
    """The attributes of a record's fields, all but some.

    Raises:
        InvalidValueError: A field can not be stored; it names `model` and the field.
    """
    return _encode_named(record, model, without, ())[0]


def encode_value(value: Any, *, model: str, field: str) -> AttributeValueTypeDef:
    """One value, as it stands in an item.

    Raises:
        InvalidValueError: It can not be stored; it names `model` and `field`.
    """
    try:
        return _encode(value, 1)
    except _RefusedError as refused:
        raise InvalidValueError(".".join([field, *refused.path]), refused.reason, model=model) from None


def decode_value(value: Mapping[str, Any]) -> Any:
    """One value out of an item."""
    if (text := value.get("S")) is not None:
        return text
    if (digits := value.get("N")) is not None:
        return _decode_number(digits)
    if (flag := value.get("BOOL")) is not None:
        return flag
    ((tag, raw),) = value.items()
    return _DECODERS[tag](raw)


def expiry(days: int | None, moment: datetime) -> Item:
    """When DynamoDB may delete an item, so many days after a moment, if ever."""
    if days is None:
        return {}
    return {EXPIRES_AT: {"N": str(int((moment + timedelta(days=days)).timestamp()))}}


def item_size(item: Mapping[str, AttributeValueTypeDef]) -> int:
    """Bytes of an item by DynamoDB's rule (AWS: "DynamoDB item sizes and formats")."""
    return sum(_attribute_size(name, value) for name, value in item.items())


def _encode_named(
    record: BaseModel, model: str, without: frozenset[str], own: tuple[str, ...]
) -> tuple[Item, int]:
    try:
        return _encode_model(record, 0, _fields(type(record), without, own))
    except _RefusedError as refused:
        raise InvalidValueError(".".join(refused.path), refused.reason, model=model) from None


def _encode_model(
    record: BaseModel, depth: int, fields: tuple[tuple[str, int, bool], ...]
) -> tuple[Item, int]:
    """The attributes of a model's fields, and what they take together."""
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
            size += name_size + _number_size(digits)
        elif kind in _SETS and not value:
            continue
        else:
            try:
                item[name] = encoded = _encode(value, depth + 1)
            except _RefusedError as refused:
                refused.path.insert(0, name)
                raise
            size += name_size + _value_size(encoded)
    return item, size


@cache
def _fields(
    model: type[BaseModel], without: frozenset[str] = frozenset(), also_without: tuple[str, ...] = ()
) -> tuple[tuple[str, int, bool], ...]:
    """Of each field but some its name, what that takes in an item, and whether None stays out."""
    return tuple(
        (name, _text_size(name), field.default is None)
        for name, field in model.model_fields.items()
        if name not in without and name not in also_without
    )


def _encode(value: Any, depth: int) -> AttributeValueTypeDef:
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = next((each for kind, each in _ENCODERS.items() if isinstance(value, kind)), _refuse_type)
    return encoder(value, depth)


def _refuse_type(value: Any, depth: int) -> AttributeValueTypeDef:
    raise _RefusedError(
        f"a {type(value).__name__} can not be stored: use text, numbers, booleans, lists and maps"
    )


def _encode_text(value: str, depth: int) -> AttributeValueTypeDef:
    return {"S": _checked_text(str(value))}


def _encode_enum(value: Enum, depth: int) -> AttributeValueTypeDef:
    return _encode(value.value, depth)


def _encode_datetime(value: datetime, depth: int) -> AttributeValueTypeDef:
    return {"S": moment_text(value)}


def _encode_int(value: int, depth: int) -> AttributeValueTypeDef:
    if abs(value) >= 10**MAX_DIGITS:
        raise _RefusedError(f"a number may have {MAX_DIGITS} digits: store it as text")
    return {"N": str(value)}


def _encode_float(value: float, depth: int) -> AttributeValueTypeDef:
    if not isfinite(value):
        raise _RefusedError(f"DynamoDB has no {value}: use None, or text")
    if value and not MIN_MAGNITUDE <= abs(value) < MAGNITUDE_BOUND:
        raise _RefusedError("a number's magnitude may be 1E-130 to 9.99E+125: store it as text")
    if value.is_integer() and abs(value) < 10**MAX_DIGITS:
        # DynamoDB drops the exponent, so that it comes back as an int: let it be the very same number.
        return {"N": str(int(value))}
    return {"N": repr(value)}


def _encode_list(value: Sequence[Any], depth: int) -> AttributeValueTypeDef:
    return {"L": [_encode_member(str(i), each, depth) for i, each in enumerate(value)]}


def _encode_dict(value: Mapping[Any, Any], depth: int) -> AttributeValueTypeDef:
    return {"M": {(name := _map_key(key)): _encode_member(name, each, depth) for key, each in value.items()}}


def _encode_nested(value: BaseModel, depth: int) -> AttributeValueTypeDef:
    return {"M": _encode_model(value, depth, _fields(type(value)))[0]}


def _encode_set(value: set[Any] | frozenset[Any], depth: int) -> AttributeValueTypeDef:
    members = sorted(value)
    if not members or not all(isinstance(each, str) for each in members):
        raise _RefusedError("a set may hold text only, and is left out when empty")
    return {"SS": [_checked_text(each) for each in members]}


def _encode_member(name: str, value: Any, depth: int) -> AttributeValueTypeDef:
    try:
        if depth >= MAX_DEPTH:
            raise _RefusedError(f"lies deeper than the {MAX_DEPTH} levels of nesting that an item may have")
        return _encode(value, depth + 1)
    except _RefusedError as refused:
        refused.path.insert(0, name)
        raise


def _map_key(key: Any) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise _RefusedError(f"a map's key must be text or an int, not {type(key).__name__}")
    if key == "":
        raise _RefusedError("a map's key must not be empty")
    return _checked_text(str(key))


def _checked_text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _RefusedError("holds a lone surrogate, which UTF-8 can not encode: replace it") from None
    return text


# The order matters to subclasses: bool before int, Enum before str.
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


def _reason(error: Exception) -> str:
    """What is wrong, without the values, which can be large and are not ours to show."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return f"{type(error).__name__}: {error}"


class _Kinds(NamedTuple):
    """A model's fields by the type that their attributes have."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    moments: tuple[str, ...]
    ints: tuple[str, ...]
    flags: tuple[str, ...]
    others: tuple[str, ...]


@cache
def _kinds(model: type[BaseModel], keys: frozenset[str]) -> _Kinds:
    def kind(name: str, annotation: Any) -> str:
        if name in keys and not _is_all(annotation, datetime):
            return "ids"
        known = {str: "texts", datetime: "moments", int: "ints", bool: "flags"}
        return next((each for type_, each in known.items() if _is_all(annotation, type_)), "others")

    kinds = {name: kind(name, field.annotation) for name, field in model.model_fields.items()}
    return _Kinds(*(tuple(name for name in kinds if kinds[name] == each) for each in _Kinds._fields))


def _is_all(annotation: Any, kind: type) -> bool:
    """Whether a type is another, or that or None."""
    if get_origin(annotation) is Annotated:
        return _is_all(get_args(annotation)[0], kind)
    if get_origin(annotation) in (Union, UnionType):
        return all(each is NoneType or _is_all(each, kind) for each in get_args(annotation))
    return annotation is kind


def _decode_fields(kinds: _Kinds, item: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a model's fields; a loop for each type takes half as long as one that asks for it.

    Raises:
        KeyError: An attribute is of another type than its field.
        ValueError: Likewise.
    """
    get = item.get
    data = {name: value["S"] for name in kinds.texts if (value := get(name)) is not None}
    for name in kinds.ids:
        if (value := get(name)) is not None:
            data[name] = _decode_id(value)
    for name in kinds.moments:
        if (value := get(name)) is not None:
            data[name] = datetime.fromisoformat(value["S"])
    for name in kinds.ints:
        if (value := get(name)) is not None:
            data[name] = int(value["N"])
    for name in kinds.flags:
        if (value := get(name)) is not None:
            data[name] = value["BOOL"]
    for name in kinds.others:
        if (value := get(name)) is not None:
            data[name] = decode_value(value)
    return data


def _decode_id(value: Mapping[str, Any]) -> Any:
    text = decode_value(value)
    return unescape(text) if "~" in text else text


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
    "L": lambda raw: [decode_value(each) for each in raw],
    "M": lambda raw: {name: decode_value(each) for name, each in raw.items()},
    "SS": set,
}


def _check_size(table: Table[E], record: E, item: Item) -> None:
    # A local index's entries count towards the limit of their item (AWS: "Local secondary indexes").
    entries = sum(
        _attribute_size(name, item[name])
        for index in table.indexes
        if not index.is_global
        for name in {*table.primary_key, *index.key_attributes}
    )
    limit = MAX_ITEM_BYTES - entries
    if (size := item_size(item)) > limit:
        largest = max(item, key=lambda name: _attribute_size(name, item[name]))
        raise ItemTooLargeError(
            largest,
            model=type(record).__name__,
            record=" ".join(f"{name} {item[name]['S'][:200]!r}" for name in table.primary_key),
            size=size,
            field_size=_attribute_size(largest, item[largest]),
            limit=limit,
        )


def _attribute_size(name: str, value: AttributeValueTypeDef) -> int:
    return _text_size(name) + _value_size(value)


def _value_size(value: Mapping[str, Any]) -> int:
    if (text := value.get("S")) is not None:
        return _text_size(text)
    ((tag, raw),) = value.items()
    match tag:
        case "B":
            return len(raw)
        case "N":
            return _number_size(raw)
        case "M":
            return 3 + sum(1 + _attribute_size(name, each) for name, each in raw.items())
        case "L":
            return 3 + sum(1 + _value_size(each) for each in raw)
        case "SS":
            return sum(map(_text_size, raw))
        case _:
            return 1


@lru_cache(4096)
def _number_size(text: str) -> int:
    digits = text.lower().split("e")[0].replace(".", "").strip("-0")
    return int((len(digits) + 1) // 2 + 1 + text.startswith("-"))


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
