"""Runs a worker process whose handlers never end, to test how the worker ends.

    python -m tests.support.patient_worker ENDPOINT PREFIX GRACE_SECONDS

It prints a line for each handler that begins, and "closed" after its backend was.
"""

from __future__ import annotations

import asyncio
import sys

from ragcrawl_dynamo import Claim, DynamoDBBackend
from ragcrawl_dynamo.testing import local_config


async def work(endpoint: str, prefix: str, grace_seconds: float) -> None:
    try:
        async with DynamoDBBackend(local_config(endpoint, table_prefix=prefix)) as backend:

            async def handle(claim: Claim) -> None:
                print(claim.item.url, flush=True)
                await asyncio.Event().wait()

            frontier = backend.frontier("site", "run")
            async with frontier.worker(
                concurrency=3, lease_seconds=600, grace_seconds=grace_seconds
            ) as worker:
                await worker.run(handle)
    finally:
        print("closed", flush=True)


if __name__ == "__main__":
    _, endpoint, prefix, grace = sys.argv
    asyncio.run(work(endpoint, prefix, float(grace)))
