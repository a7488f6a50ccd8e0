"""Settles the claims of handled requests in the background, so that no handler waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias

from ragcrawl_dynamo import Claim, LeaseLostError, RagcrawlDynamoError

logger: logging.Logger = logging.getLogger(__name__)

# Seconds until a settlement that has failed is tried again.
_RETRY_SECONDS = 1.0

# Claims that are being settled. Further handlers wait until one of these is settled.
_MAX_SETTLING = 200

Settle: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


class Settler:
    """Settles claims in the background, and repeats failed settlements until the lease is lost or `close`.

    If the process is killed before, the leases end, and other processes handle the requests again.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._is_closing = asyncio.Event()

    async def start(self, claim: Claim, settle: Settle) -> None:
        """Starts to settle a claim.

        Args:
            claim: The claim.
            settle: Settles it; it is called again if it fails.
        """
        while len(self._running) >= _MAX_SETTLING:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._settle(claim, settle))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def join(self, seconds: float | None = None) -> bool:
        """Waits some seconds until all claims are settled; returns whether they are."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        return all(task.done() for task in self._running)

    async def close(self) -> None:
        """Waits until each claim is settled, or its settlement has failed once more."""
        self._is_closing.set()
        await self.join()

    async def _settle(self, claim: Claim, settle: Settle) -> None:
        while not claim.ended:
            try:
                await settle()
            except LeaseLostError as error:
                logger.warning("%s", error)
                return
            except RagcrawlDynamoError as error:
                if self._is_closing.is_set():
                    logger.error(
                        "request %s could not be settled, so it will be handled again: %s",
                        claim.item.url,
                        error,
                    )
                    return
                logger.error(
                    "request %s could not be settled; this is tried again: %s", claim.item.url, error
                )
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_SECONDS):
                        await self._is_closing.wait()
            else:
                return
