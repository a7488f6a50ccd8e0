"""Repeats changes of a table that is busy with another change."""

import asyncio
from collections.abc import Awaitable, Callable

from ragcrawl_dynamo.errors import RequestRejectedError

# Seconds between two tries.
_PAUSE = 1.0


async def until_free(change: Callable[[], Awaitable[object]], *busy: str) -> None:
    """Makes a change, again and again while it is refused with one of the codes `busy`.

    The caller limits the time.
    """
    while True:
        try:
            await change()
        except RequestRejectedError as error:
            if error.code not in busy:
                raise
        else:
            return
        await asyncio.sleep(_PAUSE)
