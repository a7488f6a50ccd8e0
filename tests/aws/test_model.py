"""The queue's model where the index is late, in virtual time. Hypothesis chooses the steps and the lags."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ragcrawl_dynamo import Claim, DynamoDBConfig
from ragcrawl_dynamo.testing import drop_tables, local_config
from tests.contract.frontier.machine import GONE_SECONDS, Crawler, QueueMachine
from tests.support.aws import Lag, Settings, simulated_aws
from tests.support.queue_model import Entry
from tests.support.queues import QUICK

pytestmark = pytest.mark.aws

# As those of tests/contract/frontier/test_model.py.
EXAMPLES = os.environ.get("QUEUE_EXAMPLES")
STEPS = int(os.environ.get("QUEUE_STEPS", "20"))

LAG = Lag(0.1, 10.0)

# Seconds between two claims of a process that found nothing.
WAIT = 2.0

# After so many seconds without a claim, a link is lost: no index is that late, and no process waits so long.
MOST_WAITED = GONE_SECONDS + 2 * LAG.most


class LateTime:
    """The virtual time of all examples, one after the other."""

    def __init__(self) -> None:
        self.machine: LateMachine | None = None
        self.before = 0.0

    def __call__(self) -> float:
        return self.before + (self.machine.clock.monotonic() if self.machine else 0.0)

    def begin(self, machine: LateMachine) -> None:
        self.before = self()
        self.machine = machine


class LateMachine(QueueMachine):
    """One run of the queue. A claim may find nothing, but not forever."""

    sees_all = False

    def __init__(self, runner: asyncio.Runner, config: DynamoDBConfig, time: LateTime) -> None:
        super().__init__(runner, config, is_moto=False)
        time.begin(self)
        self.waited = 0.0

    def take(self, crawler: Crawler, claims: list[Claim], limit: int, seconds: float) -> None:
        super().take(crawler, claims, limit, seconds)
        if claims:
            self.waited = 0.0

    def find_nothing(self, dead: list[Entry]) -> None:
        self.clock.advance(WAIT)
        self.waited += WAIT
        if self.waited >= MOST_WAITED and self.kills:
            # The counts of a killed process are lost, so a host may have left the list although an item was
            # added just before. The proof finds it, which workers ask for when they find nothing.
            assert not self.do(self.frontier(0).is_finished())
            self.kills = 0
            self.waited = 0.0
        assert self.waited < MOST_WAITED, "what is claimable is not found"


@pytest.mark.long
@pytest.mark.timeout(0 if EXAMPLES else 180)
def test_frontier_behaves_like_the_model_where_the_index_is_late(engine: str) -> None:
    time = LateTime()
    simulation = Settings(seed=5, index_lag=LAG, torn_moves=True, conflicts=0.02, errors_after=0.01)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        aws = runner.run(stack.enter_async_context(simulated_aws(engine, simulation, time)))
        config = local_config(aws.url, conditional_batches="partiql", retry_base_delay=0.001, **QUICK)
        try:
            run_state_machine_as_test(
                partial(LateMachine, runner, config, time),  # type: ignore[arg-type] # makes a machine
                settings=settings(
                    max_examples=int(EXAMPLES or 3),
                    stateful_step_count=STEPS,
                    suppress_health_check=list(HealthCheck),
                    phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
                ),
            )
        finally:
            runner.run(drop_tables(config))
            runner.run(stack.aclose())
