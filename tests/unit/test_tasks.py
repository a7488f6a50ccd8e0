"""Work that outlives its caller."""

import asyncio

from ragcrawl_dynamo._utils.tasks import Tasks


async def test_tasks_join_returns_when_a_task_is_done_and_its_callback_has_not_run_yet() -> None:
    tasks = Tasks()
    gate = asyncio.Event()
    task = tasks.spawn(gate.wait())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.sleep(0)
    assert task.done()
    # From Python 3.12 on this would never return if `join` did not yield to the loop.
    await tasks.join()
