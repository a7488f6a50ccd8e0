"""Checks of arguments: what does not fit is refused by name, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from types import NoneType
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pydantic import ValidationError

# It is stored with each item.
MAX_NAME_CHARACTERS = 256

# For delays of any kind.
MAX_DELAY_SECONDS = 366 * 86_400


def first_of(error: ValidationError) -> tuple[str, str]:
    """The field that pydantic refuses first, "" if it is none, and why."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def check_count(name: str, value: Any, most: int) -> int:
    """A whole number from 1 on.

    Raises:
        InvalidArgumentError: It is none, or more than `most`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidArgumentError(name, f"must be a whole number from 1 to {most:,}, not {value!r}")
    return value


def check_kind(name: str, value: Any, *kinds: type) -> None:
    """Of one of some classes; None is one if NoneType is.

    Raises:
        InvalidArgumentError: It is of another one.
    """
    if not isinstance(value, kinds):
        wanted = " or ".join("None" if each is NoneType else f"a {each.__name__}" for each in kinds)
        raise InvalidArgumentError(name, f"must be {wanted}, not {type(value).__name__}")


def check_several(name: str, values: Any, *kinds: type) -> list[Any]:
    """Any number of values of some classes, as a list.

    Raises:
        InvalidArgumentError: They are none, or one is of another class.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidArgumentError(
            name, f"must be several, not a {type(values).__name__}: put a single one into a list"
        )
    found = list(values)
    for each in found:
        check_kind(name, each, *kinds)
    return found


def check_amount(name: str, value: Any) -> None:
    """A number that is at least 0, or None.

    Raises:
        InvalidArgumentError: It is another one, or none.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and value >= 0):
        raise InvalidArgumentError(name, f"must be a number that is at least 0, or None, not {value!r}")


def check_seconds(name: str, value: Any, most: float) -> float:
    """A number of seconds from 0 on.

    Raises:
        InvalidArgumentError: It is none, or more than `most`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise InvalidArgumentError(name, f"must be a number of seconds from 0 to {most:,}, not {value!r}")
    return float(value)


def check_name(name: str, value: Any) -> str:
    """A short text, "" for None.

    Raises:
        InvalidArgumentError: It is no text, too long, or no UTF-8.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARACTERS:
        raise InvalidArgumentError(name, f"must be text of at most {MAX_NAME_CHARACTERS} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(name, "holds a lone surrogate, which UTF-8 can not encode") from None
    return value


def check_moment(name: str, value: Any) -> datetime:
    """A moment as an aware UTC datetime.

    Raises:
        InvalidArgumentError: It is no datetime, or none that UTC has.
    """
    if not isinstance(value, datetime):
        raise InvalidArgumentError(name, f"must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidArgumentError(name, "must lie within years 1 to 9999 once converted to UTC") from None
