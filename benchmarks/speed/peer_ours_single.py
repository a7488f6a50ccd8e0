"""Measures ragcrawl_dynamo without coalescing: each save and get is a request of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import peer_ours
from peer_ours import Peer, versions

__all__ = ["open_peer", "versions"]


@asynccontextmanager
async def open_peer(endpoint: str, table: str) -> AsyncIterator[Peer]:
    """Opens a backend on tables that exist already."""
    async with peer_ours.open_peer(endpoint, table, coalescing=False) as peer:
        yield peer
