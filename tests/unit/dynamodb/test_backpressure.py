"""How many operations are under way on a table that throttles."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from ragcrawl_dynamo import BackendClosedError, DeadlineExceededError, DynamoDBConfig, ThrottledError
from ragcrawl_dynamo._dynamodb.backpressure import PermitWindow
from tests.support.fakes import FAST, client_error, open_gateway
from tests.support.tracebacks import assert_ends_at_our_error

GET: Any = {"TableName": "t", "Key": {"id": {"S": "1"}}}
THROTTLED = client_error("ProvisionedThroughputExceededException")


async def acquired(window: PermitWindow, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(window.acquire()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def throttled(window: PermitWindow) -> None:
    """Notes that most of the latest requests were throttled. They were sent before any cut."""
    for _ in range(100):
        window.note_throttled(sent=-1.0, now=0.0)


async def test_backpressure_halves_the_window_when_most_requests_are_throttled() -> None:
    window = PermitWindow(45)
    await acquired(window, 40)
    throttled(window)
    assert (window.size, window.is_full, window.is_cut) == (45, False, False)
    window.note_throttled(sent=1.0, now=2.0)
    assert (window.size, window.is_full, window.is_cut) == (20, True, True)


async def test_backpressure_keeps_the_window_when_fewer_requests_are_throttled_than_served() -> None:
    # One partition is hot; the others accept all requests.
    window = PermitWindow(45)
    await acquired(window, 40)
    for i in range(1000):
        window.note_throttled(sent=i, now=i)
        window.note_served()
        window.note_served()
    assert not window.is_cut


async def test_backpressure_ignores_throttling_of_requests_sent_before_the_last_cut() -> None:
    window = PermitWindow(40)
    await acquired(window, 40)
    throttled(window)
    for sent in (1.0, 1.1, 1.2):
        window.note_throttled(sent, now=2.0)
    assert window.size == 20
    window.note_throttled(sent=2.0, now=3.0)
    assert window.size == 10


async def test_backpressure_window_never_closes_and_grows_with_success() -> None:
    window = PermitWindow(10)
    await acquired(window, 1)
    throttled(window)
    for moment in range(5):
        window.note_throttled(sent=moment, now=moment)
    assert window.size == 1
    served = 0
    while window.is_cut:
        window.note_served()
        served += 1
    # One more for each window's worth: 1 + 2 + ... + 9, and roundings.
    assert 40 <= served <= 60


async def test_backpressure_permits_are_given_in_turn_and_passed_on_by_cancelled_tasks() -> None:
    window = PermitWindow(2)
    await acquired(window, 2)
    waiting = await acquired(window, 3)
    assert [task.done() for task in waiting] == [False] * 3
    waiting[0].cancel()
    window.release()
    window.release()
    # Given to the second and the third, one of which is cancelled in the same moment.
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [True, True, False]
    assert not window.is_full
    await acquired(window, 1)
    assert window.is_full


class Provisioned:
    """A table that serves so many requests in each hundredth of a second, and throttles the others."""

    def __init__(self, per_tick: int) -> None:
        self.per_tick = per_tick
        self.answers: Counter[str] = Counter()
        self._left = per_tick
        self._until = 0.0

    async def __call__(self, operation: str, request: Any) -> Any:
        await asyncio.sleep(0.001)
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._until, self._left = now + 0.01, self.per_tick
        if not self._left:
            self.answers["throttled"] += 1
            raise THROTTLED
        self._left -= 1
        self.answers["served"] += 1
        return {"Item": {}}


PATIENT = DynamoDBConfig(retry_base_delay=0.005, retry_max_delay=0.2, retry_attempts=20)


async def test_backpressure_limits_a_thousand_tasks_on_a_throttled_table() -> None:
    table = Provisioned(per_tick=5)
    async with open_gateway(table, PATIENT) as (gateway, client):
        await asyncio.gather(*(gateway.call("GetItem", GET) for _ in range(1000)))
        counters = gateway.metrics.snapshot()["GetItem", "t"]
    assert table.answers["served"] == 1000
    # Some 900; without a window some 9,000, and several of the thousand fail.
    assert table.answers["throttled"] < 3000
    assert len(client.requests) == counters.requests == 1000 + table.answers["throttled"]
    assert counters.throttled == counters.retries == table.answers["throttled"]


async def test_backpressure_of_one_table_does_not_limit_another() -> None:
    inside = most = 0

    async def engine(operation: str, request: Any) -> Any:
        nonlocal inside, most
        if request["TableName"] == "busy":
            raise THROTTLED
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return {"Item": {}}

    async with open_gateway(engine, FAST.model_copy(update={"max_connections": 50})) as (gateway, _):
        busy: Any = {**GET, "TableName": "busy"}
        refused = await asyncio.gather(
            *(gateway.call("GetItem", busy) for _ in range(50)), return_exceptions=True
        )
        assert {type(error) for error in refused} == {ThrottledError}
        await asyncio.gather(*(gateway.call("GetItem", GET) for _ in range(100)))
    assert most == 45


async def test_backpressure_of_one_partition_does_not_take_the_permits_of_its_table() -> None:
    hot: Any = {**GET, "Key": {"id": {"S": "hot"}}}

    async def engine(operation: str, request: Any) -> Any:
        if request == hot | {"ReturnConsumedCapacity": "TOTAL"}:
            raise THROTTLED
        return {"Item": {}}

    # The next attempts are days away, and there is time for them.
    slow = FAST.model_copy(update={"retry_base_delay": 1e6, "retry_max_delay": 1e6, "call_timeout": 1e7})
    async with open_gateway(engine, slow) as (gateway, client):
        waiting = [asyncio.create_task(gateway.call("GetItem", hot)) for _ in range(20)]
        await asyncio.gather(*(gateway.call("GetItem", GET) for _ in range(100)))
        # Each of them was sent once, and pauses without a permit.
        assert len(client.requests) == 120
        assert not gateway._window("t").is_cut
        for task in waiting:
            task.cancel()


async def stuck(operation: str, request: Any) -> Any:
    raise THROTTLED


async def test_backpressure_call_without_a_permit_in_time_raises_an_error_that_says_so() -> None:
    slow = FAST.model_copy(update={"retry_base_delay": 1e6, "retry_max_delay": 1e6, "call_timeout": 0.05})
    async with open_gateway(stuck, slow) as (gateway, client), gateway.permit("BatchGetItem", "t") as budget:
        budget.deadline += 1e6
        throttled(gateway._window("t"))
        request: Any = {"RequestItems": {"t": {}}}
        first = asyncio.create_task(gateway.call("BatchGetItem", request, budget=budget))
        await asyncio.sleep(0.01)
        assert gateway._window("t").is_cut
        with pytest.raises(
            DeadlineExceededError, match=r"1 operations on it .* DynamoDB throttles it; nothing"
        ) as caught:
            await gateway.call("GetItem", GET)
        assert_ends_at_our_error(caught.value)
        first.cancel()
        assert len(client.requests) == 1


async def test_backpressure_close_refuses_calls_that_wait_for_a_permit() -> None:
    # So many attempts that no call uses them up before the gateway is closed, however late that is.
    slow = FAST.model_copy(
        update={"retry_base_delay": 0.05, "retry_max_delay": 0.05, "retry_attempts": 10_000}
    )
    async with open_gateway(stuck, slow) as (gateway, client):
        calls = [asyncio.create_task(gateway.call("GetItem", GET)) for _ in range(30)]
        await asyncio.sleep(0.01)
        sent = len(client.requests)
        await gateway.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {BackendClosedError}
        assert len(client.requests) == sent
