"""Iterates over the changes of a site for a consumer: saves its cursor, and waits for more changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

from ragcrawl_dynamo._changes.change import FeedCursor, PageChange
from ragcrawl_dynamo._changes.feed import ChangeFeed
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.concurrency import wait_for_event
from ragcrawl_dynamo._utils.validation import check_seconds
from ragcrawl_dynamo.errors import InvalidArgumentError

# How old a consumer's cursor may grow while nothing changes.
_SAVE_HOURS = 6.0

# Seconds of the first pause after a change. It doubles with each read that finds no change.
_FIRST_PAUSE = 1.0

# The limits of `poll_seconds`. A read without a change takes two read units or more.
_LEAST_POLL_SECONDS = 0.1
_MOST_POLL_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Following:
    """How an iteration continues after the last change.

    Attributes:
        waits: Whether it waits for more changes.
        longest_pause: The longest pause between two reads, in seconds.
        stop: Ends the iteration once it is set.
    """

    waits: bool
    longest_pause: float
    stop: asyncio.Event

    @classmethod
    def checked(cls, follow: bool, poll_seconds: float, stop: asyncio.Event | None) -> Self:
        """Checks the arguments.

        Raises:
            InvalidArgumentError: An argument is not valid.
        """
        if stop is not None and not isinstance(stop, asyncio.Event):
            # Not that of `threading`, say, whose wait would block the event loop.
            kind = f"{type(stop).__module__}.{type(stop).__qualname__}"
            raise InvalidArgumentError("stop", f"must be an asyncio.Event or None, not {kind}")
        longest = check_seconds("poll_seconds", poll_seconds, _MOST_POLL_SECONDS, least=_LEAST_POLL_SECONDS)
        return cls(follow, longest, stop or asyncio.Event())


class ChangeConsumers:
    """Reads the change feed for consumers."""

    def __init__(self, feed: ChangeFeed, clock: Clock) -> None:
        self._feed = feed
        self._clock = clock

    async def iterate(
        self, site_id: str, consumer: str, limit: int, include_content: bool, following: Following
    ) -> AsyncGenerator[PageChange, None]:
        """Yields the changes that a consumer has not handled yet; see StorageBackend.iter_changes."""
        stop, pause = following.stop, _FIRST_PAUSE
        saved = cursor = await self._feed.saved_position(site_id, consumer)
        while not stop.is_set():
            part = await self._feed.read(site_id, limit, cursor)
            handled = 0
            async with aclosing(self._changes(part.changes, include_content)) as changes:
                async for change in changes:
                    if stop.is_set():
                        break
                    yield change
                    # The consumer asks for the next one.
                    handled += 1
            cursor = part.cursor_after(handled)
            # Before the pause: a consumer that is killed in it gets nothing twice.
            if is_worth_saving(saved, cursor):
                await self._feed.save_cursor(site_id, consumer, self._feed.encode(site_id, cursor))
                saved = cursor
            if part.is_end and not following.waits:
                return
            if part.is_end:
                pause = min(_FIRST_PAUSE if part.changes else pause, following.longest_pause)
                await wait_for_event(stop, self._clock, pause)
                pause *= 2

    async def _changes(
        self, changes: Sequence[PageChange], include_content: bool
    ) -> AsyncGenerator[PageChange, None]:
        if not include_content:
            for change in changes:
                yield change
            return
        async with aclosing(self._feed.contents.loaded(changes)) as loaded:
            async for change in loaded:
                yield change


def is_worth_saving(saved: FeedCursor | None, cursor: FeedCursor) -> bool:
    """Whether a consumer should save its cursor: it is further than the saved one, or that one grows old."""
    if saved is None or cursor != replace(saved, taken_at=cursor.taken_at):
        return True
    return cursor.taken_at - saved.taken_at > timedelta(hours=_SAVE_HOURS)
