"""Errors in other processes: each class is found by a walk, also one that is added later."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, get_type_hints

import pytest

from ragcrawl_dynamo import Claim, errors
from ragcrawl_dynamo.errors import RagcrawlDynamoError
from tests.support.factories import START, make_item, make_page

# Every class of `errors`, the base class included.
CLASSES: list[type[RagcrawlDynamoError]] = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RagcrawlDynamoError)
]

# What constructors and attributes take, by its annotation. Add the type that a new error needs.
VALUES: dict[Any, Any] = {
    str: "text",
    str | None: "some text",
    bool: True,
    int: 7,
    int | None: 404,
    float: 1.5,
    tuple[str, str]: ("field", "7 bytes"),
    tuple[str, ...]: ("None", "ConditionalCheckFailed"),
    Sequence[str]: ["one", "two"],
    Sequence[Any]: [Claim(make_item(), "worker", START)],
    tuple[Any, ...]: (Claim(make_item(), "worker", START),),
    Sequence[tuple[Any, RagcrawlDynamoError]]: [(make_page(), errors.InvalidValueError("title", "no"))],
    tuple[tuple[Any, RagcrawlDynamoError], ...]: ((make_page(), errors.InvalidValueError("title", "no")),),
    dict[str, Any] | None: {"id": {"B": b"\x00"}},
    tuple[dict[str, Any] | None, ...]: (None, {"id": {"S": "1"}}),
}


def make(kind: type[RagcrawlDynamoError]) -> RagcrawlDynamoError:
    """An error with all arguments, all attributes and a note."""
    hints = get_type_hints(kind.__init__)
    error = kind(**{name: VALUES[hints[name]] for name in inspect.signature(kind).parameters})
    for name, hint in get_type_hints(kind).items():
        setattr(error, name, VALUES[hint])
    error.add_note("a note")
    return error


def shown(error: BaseException) -> tuple[Any, ...]:
    """All that an error has, in a form that can be compared: two errors are never equal."""
    return type(error), str(error), error.args, repr(vars(error))


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301 # of our own
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", CLASSES)
def test_errors_keep_message_and_attributes(kind: type[RagcrawlDynamoError], way: str) -> None:
    error = make(kind)
    copied = COPIES[way](error)
    assert copied is not error
    assert shown(copied) == shown(error)


def raise_error(error: RagcrawlDynamoError) -> None:
    raise error


def test_errors_cross_a_process_pool() -> None:
    """An error that cannot be unpickled breaks the pool: all calls fail, also those that follow."""
    errors_of_calls = [make(kind) for kind in CLASSES]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(raise_error, error) for error in errors_of_calls]
        raised = [future.exception(timeout=60) for future in futures]
    assert [shown(error) for error in raised if error] == [shown(error) for error in errors_of_calls]
