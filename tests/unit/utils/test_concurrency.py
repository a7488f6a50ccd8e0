"""Work on many values: in order, at most so many at once, and with other tasks in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ragcrawl_dynamo._utils.concurrency import (
    PER_TURN,
    gather_bounded,
    in_turns,
    map_in_turns,
    run_until,
)
from tests.support.turns import counting_turns


async def test_gather_bounded_returns_results_in_order_and_runs_at_most_so_many_at_once() -> None:
    running: set[int] = set()
    most = 0

    async def call(value: int) -> int:
        nonlocal most
        running.add(value)
        most = max(most, len(running))
        # Later ones end earlier.
        await asyncio.sleep(0.001 * (7 - value % 7))
        running.remove(value)
        return value * 10

    assert await gather_bounded(call, range(20), 3) == [value * 10 for value in range(20)]
    assert most == 3
    assert await gather_bounded(call, [], 3) == []


async def test_gather_bounded_takes_a_value_only_when_its_call_can_begin() -> None:
    taken: list[int] = []
    gate = asyncio.Event()

    def values() -> Iterator[int]:
        for value in range(10):
            taken.append(value)
            yield value

    async def call(value: int) -> None:
        if value != 1:
            await gate.wait()

    calls = asyncio.create_task(gather_bounded(call, values(), 3))
    await asyncio.sleep(0.01)
    # The second call has ended.
    assert taken == [0, 1, 2, 3]
    gate.set()
    await calls
    assert taken == list(range(10))


async def test_gather_bounded_cancels_the_others_if_one_fails() -> None:
    begun: list[int] = []
    cancelled: list[int] = []

    async def call(value: int) -> None:
        begun.append(value)
        if value == 1:
            raise ValueError("one")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(value)
            raise

    with pytest.raises(ValueError, match="one"):
        await gather_bounded(call, range(10), 3)
    assert (begun, cancelled) == ([0, 1, 2], [0, 2])


async def test_in_turns_lets_other_tasks_run_between_parts() -> None:
    async with counting_turns() as turns:
        seen = [(value, turns.count) async for part in in_turns(range(3 * PER_TURN)) for value in part]
    assert [value for value, _ in seen] == list(range(3 * PER_TURN))
    begun = seen[0][1]
    assert [turn - begun for _, turn in seen] == [value // PER_TURN for value in range(3 * PER_TURN)]


async def test_in_turns_of_few_values_awaits_nothing() -> None:
    async with counting_turns() as turns:
        assert await map_in_turns(str, range(PER_TURN)) == [str(value) for value in range(PER_TURN)]
        assert turns.count == 0
        assert await map_in_turns(str, range(PER_TURN + 1)) == [str(value) for value in range(PER_TURN + 1)]
        assert turns.count == 1


async def test_run_until_returns_the_result_of_work_unless_the_event_is_set_before() -> None:
    event = asyncio.Event()
    assert await run_until(event, asyncio.sleep(0, "done")) == "done"
    cancelled = asyncio.Event()

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    running = asyncio.create_task(run_until(event, work()))
    await asyncio.sleep(0.01)
    assert not running.done()
    event.set()
    assert await running is None
    assert cancelled.is_set()


async def test_run_until_raises_the_error_of_work() -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await run_until(asyncio.Event(), work())
