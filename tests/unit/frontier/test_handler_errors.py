"""Tests which errors of handlers are logged with a traceback."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._frontier.handler_errors import HandlerErrors
from ragcrawl_dynamo.models import FrontierStatus

if TYPE_CHECKING:
    import pytest


def refuse(kind: type[Exception]) -> Exception:
    try:
        raise kind("refused")
    except Exception as error:
        return error


def claim(settled_as: FrontierStatus | None) -> Any:
    item = SimpleNamespace(url="https://example.com/", attempt=2)
    return SimpleNamespace(item=item, settled_as=settled_as)


RETRIED, DEAD = claim(FrontierStatus.PENDING), claim(FrontierStatus.FAILED)


def test_handler_errors_log_one_traceback_for_each_type(caplog: pytest.LogCaptureFixture) -> None:
    errors = HandlerErrors()
    for kind in (OSError, OSError, LookupError, OSError, LookupError):
        errors.log(RETRIED, refuse(kind))
    assert [record.exc_info is not None for record in caplog.records] == [True, False, True, False, False]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert caplog.messages[1] == (
        "the handler of https://example.com/ has failed in attempt 2, it will be tried again: "
        "OSError('refused')"
    )


def test_handler_errors_log_one_traceback_for_each_line(caplog: pytest.LogCaptureFixture) -> None:
    errors = HandlerErrors()
    for _ in range(2):
        errors.log(RETRIED, refuse(OSError))
        try:
            raise OSError("elsewhere")
        except OSError as error:
            errors.log(RETRIED, error)
    assert [record.exc_info is not None for record in caplog.records] == [True, True, False, False]


def test_handler_errors_log_the_traceback_of_each_dead_letter(caplog: pytest.LogCaptureFixture) -> None:
    errors = HandlerErrors()
    for settled in (RETRIED, DEAD, DEAD, RETRIED):
        errors.log(settled, refuse(OSError))
    assert [record.exc_info is not None for record in caplog.records] == [True, True, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "ERROR", "WARNING"]


def test_handler_errors_are_known_to_one_worker_only(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        HandlerErrors().log(RETRIED, refuse(OSError))
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_handler_errors_log_an_error_that_was_never_raised(caplog: pytest.LogCaptureFixture) -> None:
    HandlerErrors().log(claim(None), OSError("made"))
    assert "when its lease has ended: OSError('made')" in caplog.text
