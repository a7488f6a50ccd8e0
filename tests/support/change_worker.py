"""Runs a process that commits pages of one site, some of them shared with others, until it is killed.

Its transactions wait at random before they are sent and after they were applied, and some lose their answer.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import ConflictError, DynamoDBBackend, ServerFaultError
from ragcrawl_dynamo.testing import local_config
from tests.support.factories import make_page, make_version
from tests.support.fakes import intercepting

SHARED_PAGES = 10
TASKS = 8


def settings(endpoint: str, prefix: str) -> Any:
    return local_config(endpoint, table_prefix=prefix, retry_base_delay=0.01)


async def commit_forever(backend: DynamoDBBackend, chance: random.Random) -> None:
    while True:
        # Most pages are committed only once, so that a change that the reader misses stays missing.
        is_new = chance.random() < 0.7
        page_id = f"{chance.getrandbits(64):x}" if is_new else f"p{chance.randrange(SHARED_PAGES)}"
        try:
            if chance.random() < 0.1:
                await backend.tombstone_pages("site", [page_id], allow_mass_deletion=True)
                continue
            content = f"{chance.getrandbits(64):x}"
            version = make_version(content, page_id, markdown=content, content_hash=content)
            await backend.commit_page(make_page(page_id, status_code=200), version)
        except (ConflictError, ServerFaultError):
            # On a simulated AWS transactions meet, on a busy machine until the retries are used up.
            continue


def work(endpoint: str, prefix: str, seed: int) -> None:
    asyncio.run(commit_as(endpoint, prefix, seed))


async def commit_as(endpoint: str, prefix: str, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 # reproducible on purpose

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation != "transact_write_items":
            return await call(**request)
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.2)
        answer = await call(**request)
        if chance.random() < 0.1:
            await asyncio.sleep(chance.random() * 0.1)
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    config = settings(endpoint, prefix)
    async with DynamoDBBackend(config, client_factory=intercepting(around)) as backend:
        await asyncio.gather(*(commit_forever(backend, chance) for _ in range(TASKS)))
