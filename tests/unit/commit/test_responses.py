"""The response kind of each HTTP status."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import InvalidArgumentError, ResponseKind

# The table of the documentation, written out.
TABLE = {
    ResponseKind.CONTENT: set(range(200, 300)),
    ResponseKind.NOT_MODIFIED: {304},
    ResponseKind.MOVED: {301, 308},
    ResponseKind.REDIRECTED: {302, 303, 307},
    ResponseKind.GONE: {404, 410},
    ResponseKind.DENIED: {401, 403, 451},
    ResponseKind.FAILED: {408, 425, 429, *range(500, 600)},
}
STORABLE = set[int]().union(*TABLE.values())


def test_response_kind_of_every_status_is_that_of_the_table() -> None:
    assert set(TABLE) == set(ResponseKind)
    assert sum(map(len, TABLE.values())) == len(STORABLE)
    assert {status: ResponseKind.of(status) for status in STORABLE} == {
        status: kind for kind, statuses in TABLE.items() for status in statuses
    }


@pytest.mark.parametrize("status", [status for status in range(100, 600) if status not in STORABLE])
def test_response_kind_of_any_other_status_is_refused(status: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"status_code: {status} has no meaning .* pass `kind`"):
        ResponseKind.of(status)


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 999])
def test_response_kind_of_an_invalid_status_is_refused(status: int) -> None:
    with pytest.raises(InvalidArgumentError, match="status_code"):
        ResponseKind.of(status)


def test_response_kind_of_no_answer_is_failed() -> None:
    assert ResponseKind.of(None) is ResponseKind.FAILED
