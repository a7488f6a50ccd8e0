"""What an answer's `Date` header proves of this machine's clock."""

from __future__ import annotations

from datetime import datetime
from email.utils import format_datetime
from typing import Any

import pytest

from ragcrawl_dynamo._dynamodb.server_clock import ServerClock
from tests.support.factories import START

SERVER = START.timestamp()


def metadata(moment: datetime = START) -> dict[str, Any]:
    return {"HTTPHeaders": {"date": format_datetime(moment, usegmt=True)}}


@pytest.mark.parametrize(
    ("sent", "received", "offset"),
    [
        (SERVER + 0.2, SERVER + 0.4, 0.0),
        # The header was written within its second, and between request and answer.
        (SERVER - 3.0, SERVER + 4.0, 0.0),
        (SERVER + 5.0, SERVER + 5.1, 4.0),
        (SERVER - 5.0, SERVER - 4.5, -4.5),
    ],
)
def test_server_clock_offset_is_only_what_is_certain(sent: float, received: float, offset: float) -> None:
    clock = ServerClock()
    clock.observe(sent, received, metadata())
    assert clock.offset == pytest.approx(offset)


@pytest.mark.parametrize("headers", [{}, {"HTTPHeaders": {}}, {"HTTPHeaders": {"date": "yesterday"}}])
def test_server_clock_ignores_an_answer_without_a_date(headers: dict[str, Any]) -> None:
    clock = ServerClock()
    clock.observe(SERVER + 100, SERVER + 101, headers)
    assert clock.offset == 0.0


def test_server_clock_uses_the_latest_answer() -> None:
    clock = ServerClock()
    clock.observe(SERVER + 100, SERVER + 101, metadata())
    clock.observe(SERVER + 0.1, SERVER + 0.2, metadata())
    assert clock.offset == 0.0
