"""The frontier's queue against a model in memory, in steps that hypothesis chooses, in virtual time.

Several processes, each with a view of its own, share a run of many hosts; some are killed. Nobody else gets a
leased item, stale tokens are refused, the limits of hosts hold, and nothing is lost. A claim is never empty
while something is claimable; a process that is alone gets as many items as it asked for, in exact order.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ragcrawl_dynamo.testing import drop_tables, local_config
from tests.contract.frontier.machine import QueueMachine
from tests.support.queues import QUICK, WAYS

# With QUEUE_EXAMPLES set, a failure is also shrunk, however long that takes.
EXAMPLES = os.environ.get("QUEUE_EXAMPLES")
STEPS = int(os.environ.get("QUEUE_STEPS", "30"))


@pytest.mark.long
@pytest.mark.timeout(0 if EXAMPLES else 180)
@WAYS
def test_frontier_behaves_like_the_model(
    dynamodb_endpoint: str, way: str, request: pytest.FixtureRequest
) -> None:
    # moto takes five times as long, and nobody runs a queue on it.
    is_moto = request.node.callspec.params["dynamodb_endpoint"] == "moto"
    config = local_config(dynamodb_endpoint, conditional_batches=way, **QUICK)
    with asyncio.Runner() as runner:
        try:
            run_state_machine_as_test(
                partial(  # type: ignore[arg-type] # makes a machine
                    QueueMachine, runner, config, is_moto=is_moto
                ),
                settings=settings(
                    max_examples=int(EXAMPLES or ("2" if is_moto else {"item": 4, "partiql": 6}[way])),
                    stateful_step_count=STEPS,
                    suppress_health_check=list(HealthCheck),
                    phases=[
                        Phase.explicit,
                        Phase.reuse,
                        Phase.generate,
                        *([Phase.shrink] if EXAMPLES else []),
                    ],
                ),
            )
        finally:
            runner.run(drop_tables(config))
