"""Encodes models as items and decodes items as models; refuses what DynamoDB cannot store.

The fields come from the model: there is no second list of them. A field that is None, and whose default is
None, takes no attribute; nor does an empty set, which DynamoDB does not have. An attribute that is a key
holds the escaped id (see `values.escape`). Large lists and maps are compressed where the table says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ragcrawl_dynamo._dynamodb.packed_values import PACKED_ABOVE, pack
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES, attribute_size, item_size, value_size
from ragcrawl_dynamo._dynamodb.table import E, Table
from ragcrawl_dynamo._dynamodb.values import (
    Item,
    RefusedError,
    Value,
    decode_value,
    encode_model,
    model_fields,
    unescape,
)
from ragcrawl_dynamo.errors import CorruptItemError, InvalidValueError, ItemTooLargeError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import AttributeValueTypeDef

# A smaller item fits with any local indexes: their keys take less than the difference.
_SURELY_FITS = 384 * 1024


def to_item(table: Table[E], record: E, extra: Mapping[str, AttributeValueTypeDef] | None = None) -> Item:
    """Encodes a record; see `to_sized_item`."""
    return to_sized_item(table, record, extra)[0]


def to_sized_item(
    table: Table[E], record: E, extra: Mapping[str, AttributeValueTypeDef] | None = None
) -> tuple[Item, int]:
    """Encodes a record, checks it against DynamoDB's limits, and returns the item with its bytes.

    Args:
        table: The table of the item.
        record: The model.
        extra: Attributes that are not fields of the model, such as a time to live.

    Raises:
        InvalidKeyError: An id is empty or too long.
        InvalidValueError: A field cannot be stored.
        ItemTooLargeError: The item is over 400 KB.
    """
    added = table.keys(record)
    if extra:
        added = {**added, **extra}
    item, size = _encode_named(record, type(record).__name__, table.separate, tuple(added))
    size -= _pack_large(item, table.packed)
    item.update(added)
    size += item_size(added)
    if size > _SURELY_FITS:
        _check_size(table, record, item)
    return item, size


def from_item(
    table: Table[E], item: Mapping[str, AttributeValueTypeDef], separate: Mapping[str, Any] | None = None
) -> E:
    """Decodes a record.

    Args:
        table: The table of the item.
        item: The item.
        separate: Values of the fields that are stored elsewhere; a field that is not given gets its default.

    Raises:
        CorruptItemError: The item does not fit the model.
    """
    kinds = _kinds(table.model, table.key_attributes)
    try:
        try:
            data = _decode_fields(kinds, item)
        except (KeyError, ValueError):
            # An attribute has another type than its field; pydantic decides whether the value fits.
            data = {
                name: _decode_id(value) if name in kinds.ids else decode_value(value)
                for name, value in item.items()
                if name in table.model.model_fields
            }
        data.update(separate or {})
        record: E = table.model.__pydantic_validator__.validate_python(data)
        return record
    except ValidationError as error:
        # The text of pydantic's error has the values, which can be large or secret.
        reasons = (f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise _corrupt(table, item, "; ".join(reasons)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(table, item, f"{type(error).__name__}: {error}") from error


def encode_fields(record: BaseModel, model: str, *, without: frozenset[str] = frozenset()) -> Item:
    """Encodes the fields of a record, all but some.

    Raises:
        InvalidValueError: A field cannot be stored; the error names `model` and the field.
    """
    return _encode_named(record, model, without, ())[0]


def _encode_named(
    record: BaseModel, model: str, without: frozenset[str], also_without: tuple[str, ...]
) -> tuple[Item, int]:
    try:
        return encode_model(record, 0, model_fields(type(record), without, also_without))
    except RefusedError as refused:
        raise InvalidValueError(".".join(refused.path), refused.reason, model=model) from None


def _pack_large(item: Item, names: tuple[str, ...]) -> int:
    """Packs those of the named attributes that are large; returns how many bytes that saves."""
    saved = 0
    for name in names:
        value = item.get(name)
        if value is None or (size := value_size(value)) <= PACKED_ABOVE:
            continue
        # The encoded value: it was checked, and JSON has all of its types.
        packed = pack(decode_value(value))
        if packed is not None and len(packed) < size:
            item[name] = {"B": packed}
            saved += size - len(packed)
    return saved


def _corrupt(table: Table[Any], item: Mapping[str, Any], reason: str) -> CorruptItemError:
    key = {name: next(iter(item.get(name, {}).values()), None) for name in table.primary_key}
    return CorruptItemError(
        f"item {key} of table {table.name} is not a valid {table.model.__name__}: {reason}"
    )


class _Kinds(NamedTuple):
    """The names of a model's fields, by the type of their attributes."""

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
        return next((kind for type_, kind in known.items() if _is_all(annotation, type_)), "others")

    kinds = {name: kind(name, field.annotation) for name, field in model.model_fields.items()}
    return _Kinds(*(tuple(name for name in kinds if kinds[name] == kind) for kind in _Kinds._fields))


def _is_all(annotation: Any, kind: type) -> bool:
    """Returns whether an annotation is a type, or that type or None."""
    if get_origin(annotation) is Annotated:
        return _is_all(get_args(annotation)[0], kind)
    if get_origin(annotation) in (Union, UnionType):
        return all(part is NoneType or _is_all(part, kind) for part in get_args(annotation))
    return annotation is kind


def _decode_fields(kinds: _Kinds, item: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes the values of a model's fields: a loop for each type takes half as long as one loop for all.

    Raises:
        KeyError: An attribute has another type than its field.
        ValueError: An attribute has another type than its field.
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
    # The text before a "#" is not part of the id.
    text = decode_value(value).rpartition("#")[2]
    return unescape(text) if "~" in text else text


def _check_size(table: Table[E], record: E, item: Item) -> None:
    # A local index's entries count towards the limit of their item (AWS: "Local secondary indexes").
    entries = sum(
        attribute_size(name, item[name])
        for index in table.indexes
        if not index.is_global
        for name in {*table.primary_key, *index.key_attributes}
    )
    limit = MAX_ITEM_BYTES - entries
    if (size := item_size(item)) > limit:
        largest = max(item, key=lambda name: attribute_size(name, item[name]))
        raise ItemTooLargeError(
            (largest, _size_text(largest, item[largest])),
            model=type(record).__name__,
            record=" ".join(f"{name} {item[name]['S'][:200]!r}" for name in table.primary_key),
            size=size,
            limit=limit,
        )


def _size_text(name: str, value: Value) -> str:
    return f"{attribute_size(name, value):,} bytes{' after compression' if 'B' in value else ''}"
