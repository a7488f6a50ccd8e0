"""Remembers a request queue for one process: its claims, handled requests, and the queue's last answers."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from ragcrawl_dynamo import Claim
from ragcrawl_dynamo._frontier.seen_links import SeenLinks

if TYPE_CHECKING:
    from crawlee import Request

# Seconds for which the answer is reused that a queue is not finished, unless this process changes the queue:
# Crawlee asks many times a second.
_ANSWER_SECONDS = 0.5


class ClaimedRequest(NamedTuple):
    """A claim, and the request in its payload."""

    claim: Claim
    request: Request


class QueueMemory:
    """Holds all that one process remembers of a request queue. It may be out of date; the tables decide.

    Attributes:
        claims: Claims of the requests in progress, by unique key.
        ready: Requests that are claimed and not in progress yet, the next one first.
        in_front: How many requests this process put into the front of the queue since its last claim. They go
            before those in `ready`.
        stored_keys: Unique keys of requests that are known to be in the queue.
        changes: How often this process has changed the queue.
        has_fetched: Whether this process has ever asked for a request.
    """

    def __init__(self, handled_limit: int) -> None:
        """`handled_limit` is how many handled requests are remembered, and how many stored ones."""
        self._handled_limit = handled_limit
        self.stored_keys: SeenLinks = SeenLinks(handled_limit)
        self.changes: int = 0
        self.has_fetched: bool = False
        self._handled: OrderedDict[str, None] = OrderedDict()
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.claims: dict[str, Claim] = {}
        self.ready: list[ClaimedRequest] = []
        self.in_front = 0
        self.stored_keys.clear()
        self._handled.clear()
        self.forget_answers()

    def forget_claim(self, claim: Claim) -> None:
        """Forgets a claim whose lease was lost."""
        self.claims = {key: kept for key, kept in self.claims.items() if kept is not claim}
        self.ready = [claimed for claimed in self.ready if claimed.claim is not claim]

    def forget_answers(self) -> None:
        """Forgets that the queue was empty or unfinished, because it has changed."""
        self.changes += 1
        self._empty_until = self._unfinished_until = 0.0

    def note_handled(self, unique_key: str) -> None:
        """Remembers that a request is handled, and forgets the least recently used one."""
        self._handled[unique_key] = None
        self._handled.move_to_end(unique_key)
        if len(self._handled) > self._handled_limit:
            self._handled.popitem(last=False)
        # It may have been the last one.
        self._unfinished_until = 0.0

    def is_handled(self, unique_key: str) -> bool:
        """Returns whether this process has handled a request, as far as it remembers."""
        if unique_key not in self._handled:
            return False
        self._handled.move_to_end(unique_key)
        return True

    def note_empty(self, seconds: float) -> None:
        """Remembers for some seconds that nothing could be claimed."""
        self._empty_until = time.monotonic() + seconds

    def forget_empty(self) -> None:
        """Forgets that nothing could be claimed."""
        self._empty_until = 0.0

    def is_empty(self) -> bool:
        """Returns whether the last claim, a moment ago, got nothing."""
        return time.monotonic() < self._empty_until

    def note_unfinished(self) -> None:
        """Remembers that some requests are not handled."""
        self._unfinished_until = time.monotonic() + _ANSWER_SECONDS

    def is_unfinished(self) -> bool:
        """Returns whether some requests are not handled, as of a moment ago."""
        return bool(self.claims or self.ready) or time.monotonic() < self._unfinished_until
