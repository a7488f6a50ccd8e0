"""Runs a process that initializes a backend at the same moment as others, and saves a page."""

from __future__ import annotations

import asyncio
import os
import warnings
from multiprocessing.synchronize import Barrier

from ragcrawl_dynamo import DynamoDBBackend, Page
from ragcrawl_dynamo.testing import local_config


def work(endpoint: str, prefix: str, name: str, output: str, start: Barrier) -> None:
    """Runs the process. Its output and log go into a file; a warning is an error."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    warnings.simplefilter("error")
    start.wait()
    asyncio.run(initialize(endpoint, prefix, name))


async def initialize(endpoint: str, prefix: str, name: str) -> None:
    async with DynamoDBBackend(local_config(endpoint, table_prefix=prefix)) as backend:
        await backend.save_page(Page(page_id=name, site_id="site", url="https://example.com/" + name))
