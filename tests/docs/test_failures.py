"""docs/failures.md agrees with the code about each error code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ragcrawl_dynamo._dynamodb.retry import (
    CONFLICT_CODES,
    CONFLICT_REASON,
    FAULT_CODES,
    THROTTLING_CODES,
    THROTTLING_REASONS,
    is_retryable,
)
from ragcrawl_dynamo._frontier import outage
from tests.support.fakes import client_error

PAGE = (Path(__file__).parents[2] / "docs" / "failures.md").read_text()
SECTION = PAGE.partition("## Retries")[2].partition("\n## ")[0]


def codes(kind: str) -> set[str]:
    """The codes in the row of the table whose second column begins with a text."""
    (row,) = re.findall(rf"^\| ([^|]+) \| {re.escape(kind)}", SECTION, re.MULTILINE)
    return set(re.findall("`([^`]+)`", row))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("throttled", THROTTLING_CODES | THROTTLING_REASONS),
        ("a conflict", CONFLICT_CODES | {CONFLICT_REASON}),
        ("a fault", FAULT_CODES),
    ],
)
def test_failures_page_names_all_codes_that_are_retried(kind: str, wanted: set[str]) -> None:
    assert codes(kind) == wanted


@pytest.mark.parametrize(
    "code",
    sorted(codes("throttled") | codes("a conflict") | codes("a fault")),
)
def test_failures_page_says_yes_for_errors_that_are_retried(code: str) -> None:
    if code in THROTTLING_REASONS | {CONFLICT_REASON}:
        reasons = [{"Code": "None"}, {"Code": code}]
        assert is_retryable(client_error("TransactionCanceledException", CancellationReasons=reasons))
    else:
        assert is_retryable(client_error(code))


@pytest.mark.parametrize(
    "code", sorted(codes("the condition did not hold") | codes("it would be refused again"))
)
def test_failures_page_says_no_for_errors_that_are_not_retried(code: str) -> None:
    assert not is_retryable(client_error(code))
    reasons = [{"Code": "ThrottlingError"}, {"Code": code}]
    assert not is_retryable(client_error("TransactionCanceledException", CancellationReasons=reasons))


def test_failures_page_names_the_errors_after_which_a_worker_tries_again() -> None:
    (sentence,) = re.findall(r"^Above the gateway, .*?\.\n", SECTION, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`(\w+Error)`", sentence))
    assert named == {kind.__name__ for kind in outage._PASSING} | {"CredentialsError"}
