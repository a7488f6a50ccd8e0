"""Checks arguments before anything is sent. Errors name the argument."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from types import NoneType
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pydantic import ValidationError

# The length of a worker's name, which is stored with each of its items.
MAX_NAME_CHARACTERS = 256

# The longest delay of any kind: a year.
MAX_DELAY_SECONDS = 366 * 86_400


def first_of(error: ValidationError, *, with_value: bool = True) -> tuple[str, str]:
    """Returns the first field that pydantic refuses, "" for the whole model, and the reason.

    The reason has the value, unless `with_value` is False: settings can be secrets, and fields content.
    """
    first = error.errors(include_url=False)[0]
    # Of a field that is missing, and of the whole model, the value is all that was given.
    has_value = with_value and first["type"] != "missing" and bool(first["loc"])
    value = f" (got {first['input']!r:.100})" if has_value else ""
    return ".".join(map(str, first["loc"])), first["msg"] + value


def check_count(name: str, value: Any, most: int) -> int:
    """Returns a whole number from 1 to `most`.

    Raises:
        InvalidArgumentError: The value is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidArgumentError(name, f"must be a whole number from 1 to {most:,}, not {value!r}")
    return value


def check_kind(name: str, value: Any, *kinds: type) -> None:
    """Checks that a value has one of the given types. NoneType allows None.

    Raises:
        InvalidArgumentError: The value has another type.
    """
    if not isinstance(value, kinds):
        wanted = " or ".join("None" if kind is NoneType else f"a {kind.__name__}" for kind in kinds)
        raise InvalidArgumentError(name, f"must be {wanted}, not {type(value).__name__}")


def check_callable(name: str, value: Any) -> None:
    """Checks that a value can be called, or is None.

    Raises:
        InvalidArgumentError: It cannot, or it is an async function, whose result would not be awaited.
    """
    if value is not None and not callable(value):
        raise InvalidArgumentError(name, f"must be a function or None, not {type(value).__name__}")
    if iscoroutinefunction(value) or iscoroutinefunction(getattr(value, "__call__", None)):  # noqa: B004
        raise InvalidArgumentError(
            name, "must be a plain function, not an async one, because its result is not awaited"
        )


def check_several(name: str, values: Any, *kinds: type) -> list[Any]:
    """Returns a list of values that each have one of the given types.

    Raises:
        InvalidArgumentError: The argument is not a collection, or a value has another type.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidArgumentError(
            name, f"must be a collection, not a {type(values).__name__}: put a single value into a list"
        )
    checked = list(values)
    for value in checked:
        check_kind(name, value, *kinds)
    return checked


def check_amount(name: str, value: Any) -> None:
    """Checks that a value is a number of at least 0, or None.

    Raises:
        InvalidArgumentError: The value is neither.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and value >= 0):
        raise InvalidArgumentError(name, f"must be a number that is at least 0, or None, not {value!r}")


def check_seconds(name: str, value: Any, most: float, *, least: float = 0) -> float:
    """Returns a number of seconds from `least` to `most`.

    Raises:
        InvalidArgumentError: The value is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidArgumentError(
            name, f"must be a number of seconds from {least} to {most:,}, not {value!r}"
        )
    return float(value)


def check_name(name: str, value: Any) -> str:
    """Returns a short text; "" for None.

    Raises:
        InvalidArgumentError: The value is not text or too long, or UTF-8 cannot encode it.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARACTERS:
        actual = f"{len(value):,} characters" if isinstance(value, str) else type(value).__name__
        raise InvalidArgumentError(
            name, f"must be text of at most {MAX_NAME_CHARACTERS} characters, not {actual}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(
            name, "holds a lone surrogate, which UTF-8 cannot encode: replace it"
        ) from None
    return value


def check_moment(name: str, value: Any) -> datetime:
    """Returns a moment as an aware UTC datetime. A naive datetime is read as UTC.

    Raises:
        InvalidArgumentError: The value is not a datetime, or it lies outside of years 1 to 9999 in UTC.
    """
    if not isinstance(value, datetime):
        raise InvalidArgumentError(name, f"must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidArgumentError(name, "must lie within years 1 to 9999 once converted to UTC") from None
