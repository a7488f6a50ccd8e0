"""ragcrawl_dynamo without coalescing: each save and get a request of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import peer_ours
from peer_ours import Peer, versions

__all__ = ["open_peer", "versions"]


@asynccontextmanager
async def open_peer(endpoint: str, table: str) -> AsyncIterator[Peer]:
    """A backend on tables that are there already."""
    async with peer_ours.open_peer(endpoint, table, coalescing=False) as peer:
        yield peer
