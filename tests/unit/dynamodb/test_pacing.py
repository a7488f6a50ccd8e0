"""When a batch that is not full may go."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo._dynamodb.pacing import BURST, SECONDS_PER_BATCH, Pacer


def test_a_burst_goes_at_once_and_then_one_batch_in_each_interval() -> None:
    pacer = Pacer()
    assert [pacer.pause(100.0) for _ in range(int(BURST))] == [0.0] * int(BURST)
    assert pacer.pause(100.0) == pytest.approx(SECONDS_PER_BATCH)
    assert pacer.pause(100.0 + SECONDS_PER_BATCH / 4) == pytest.approx(SECONDS_PER_BATCH * 3 / 4)
    assert pacer.pause(100.0 + SECONDS_PER_BATCH * 1.01) == 0.0
    assert pacer.pause(100.0 + SECONDS_PER_BATCH * 1.01) > 0.0


def test_a_pause_takes_no_token() -> None:
    pacer = Pacer()
    while not pacer.pause(100.0):
        pass
    for _ in range(10):
        assert pacer.pause(100.0) == pytest.approx(SECONDS_PER_BATCH)


def test_a_quiet_time_allows_one_burst_and_no_more() -> None:
    pacer = Pacer()
    while not pacer.pause(100.0):
        pass
    assert [pacer.pause(9000.0) for _ in range(int(BURST))] == [0.0] * int(BURST)
    assert pacer.pause(9000.0) > 0.0
