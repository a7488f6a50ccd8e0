"""Runs a process that adds a link and kills itself, while another one proves that the run is finished."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from ragcrawl_dynamo import DynamoDBConfig
from tests.support.frontiers import opened


def add(config: DynamoDBConfig, url: str) -> None:
    """Adds a link. The run is proven to be finished before the link is stored; then the process dies."""
    asyncio.run(_add(config, url))


async def _add(config: DynamoDBConfig, url: str) -> None:
    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation != "batch_execute_statement":
            return await call(**request)
        async with opened(config) as prover:
            assert await prover.is_finished()
        answer = await call(**request)
        os.kill(os.getpid(), signal.SIGKILL)
        return answer

    async with opened(config, around) as frontier:
        await frontier.add([url])
