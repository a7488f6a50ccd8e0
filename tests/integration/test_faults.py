"""Faults between backend and engine: damaged answers, and a short soak of all methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.cancel import cancel
from benchmarks.soak import soak
from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, RunState
from tests.support import faults as faults_module
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page
from tests.support.faults import Faults, faulty

if TYPE_CHECKING:
    from aiohttp import web


class Once(Faults):
    """Hits the first request of an operation with one fault."""

    def __init__(self, endpoint: str, operation: str, fault: str) -> None:
        super().__init__(endpoint, 0.0, 1)
        self.operation = operation
        self.fault = fault
        self.is_done = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if operation != self.operation or self.is_done:
            return await super().handle(request)
        self.is_done = True
        fault: Any = getattr(self, f"_{self.fault}")
        answer: web.StreamResponse = await fault(request, operation, await request.read())
        return answer


EVERYWHERE = [
    "dropped_before",
    "lost_answer",
    "reset_in_body",
    "truncated",
    "corrupted",
    "error_before",
    "error_after",
    "throttled",
    "hanging",
]


@pytest.fixture
def short_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults_module, "HANG", 1.0)


def settings_for(fault: str) -> dict[str, float]:
    """Only a request that hangs is given up; the others may take their time on a busy machine."""
    return {"retry_base_delay": 0.0, "read_timeout": 0.5 if fault == "hanging" else 30.0}


@on_dynamodb_local
@pytest.mark.usefixtures("short_hang")
@pytest.mark.parametrize("fault", EVERYWHERE)
async def test_faults_damaged_answer_of_get_item_is_retried(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, fault: str
) -> None:
    """A damaged answer never makes a stored item seem absent."""
    await backend.save_page(make_page(depth=7))
    once = Once(str(dynamodb_config.endpoint_url), "GetItem", fault)
    async with faulty(once) as proxy:
        config = dynamodb_config.model_copy(update={"endpoint_url": proxy, **settings_for(fault)})
        async with DynamoDBBackend(config) as other:
            page = await other.get_page("site", "page")
            assert page is not None
            assert page.depth == 7
            retries = sum(
                counters.retries for (name, _), counters in other.metrics().items() if name == "GetItem"
            )
            assert (once.is_done, retries) == (True, 1)


@on_dynamodb_local
@pytest.mark.usefixtures("short_hang")
@pytest.mark.parametrize("fault", [*EVERYWHERE, "conflict"])
async def test_faults_damaged_refusal_of_update_item_is_retried(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, fault: str
) -> None:
    """A run without a control refuses the first pause, and the answer that says so is damaged."""
    once = Once(str(dynamodb_config.endpoint_url), "UpdateItem", fault)
    async with faulty(once) as proxy:
        config = dynamodb_config.model_copy(update={"endpoint_url": proxy, **settings_for(fault)})
        async with DynamoDBBackend(config) as other:
            await other.frontier("site", "run").pause()
            assert once.is_done
    assert await backend.frontier("site", "run").state() is RunState.PAUSED


@pytest.mark.long
async def test_faults_soak_loses_doubles_and_misreports_nothing(dynamodb_local_endpoint: str) -> None:
    report, faults = await soak(dynamodb_local_endpoint, 1200, 24, 0.2, seed=1)
    assert report.lost == []
    assert report.doubled == []
    assert report.misreported == []
    assert report.operations.total() == 1200
    # Many were hit, in every way, and some operations failed.
    assert faults.injected.total() > 0.15 * faults.requests.total()
    assert len(faults.injected) >= 12
    assert report.failures.total() > 0


@pytest.mark.long
async def test_cancellation_at_random_awaits_loses_nothing(
    dynamodb_local_endpoint: str,
) -> None:
    report, noted = await cancel(dynamodb_local_endpoint, 100, 16, seed=1)
    assert report.lost == []
    assert report.doubled == []
    assert report.misreported == []
    assert noted.by_method.total() >= 100
    # They hit many different awaits: some 20, by the machine's speed.
    assert sum(map(len, noted.awaits.values())) > 12
