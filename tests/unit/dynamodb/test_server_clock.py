"""The `Date` headers of answers prove how wrong this machine's clock is."""

from __future__ import annotations

from datetime import datetime, timedelta
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
def test_server_clock_offset_is_only_its_certain_part(sent: float, received: float, offset: float) -> None:
    clock = ServerClock()
    clock.observe(sent, received, metadata())
    assert clock.offset == pytest.approx(offset)


@pytest.mark.parametrize("headers", [{}, {"HTTPHeaders": {}}, {"HTTPHeaders": {"date": "yesterday"}}])
def test_server_clock_ignores_an_answer_without_a_date(headers: dict[str, Any]) -> None:
    clock = ServerClock()
    clock.observe(SERVER + 100, SERVER + 101, headers)
    assert clock.offset == 0.0


def test_server_clock_forgets_earlier_answers_when_the_clock_is_set() -> None:
    clock = ServerClock()
    clock.observe(SERVER + 100, SERVER + 101, metadata())
    clock.observe(SERVER + 0.1, SERVER + 0.2, metadata())
    assert clock.offset == 0.0
    clock.observe(SERVER - 5.0, SERVER - 4.5, metadata())
    assert clock.offset == pytest.approx(-4.5)


@pytest.mark.parametrize("offset", [-1.4, -0.3, 0.0, 0.6, 1.9])
def test_server_clock_offset_by_many_answers_is_as_exact_as_a_request_is_short(offset: float) -> None:
    clock, now = ServerClock(), SERVER
    for i in range(300):
        now += 0.73
        answered = START + timedelta(seconds=int(now + 0.005 - SERVER))
        clock.observe(now + offset, now + offset + 0.01, metadata(answered))
        if i >= 100:
            assert clock.offset == pytest.approx(offset, abs=0.03)


def test_server_clock_forgets_answers_after_two_minutes() -> None:
    clock = ServerClock()
    clock.observe(SERVER + 2.5, SERVER + 2.6, metadata())
    assert clock.offset == pytest.approx(1.5)
    # The first answer proves 1.5 seconds; the later ones prove 0.7 seconds only.
    for seconds, known in ((59, 1.5), (61, 1.5), (119, 1.5), (122, 0.7)):
        later = SERVER + seconds
        clock.observe(later + 1.7, later + 1.8, metadata(START + timedelta(seconds=seconds)))
        assert clock.offset == pytest.approx(known), seconds
