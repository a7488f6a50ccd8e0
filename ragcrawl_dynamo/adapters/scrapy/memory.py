"""What a process remembers of a crawl: the requests that it holds, their outcomes, and what it must write."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from ragcrawl_dynamo import Claim, FrontierItem
from ragcrawl_dynamo._frontier.seen_links import SeenLinks

if TYPE_CHECKING:
    from scrapy import Request


class Outcome(NamedTuple):
    """Why a request is not completed."""

    kind: Literal["failed", "skipped"]
    reason: str


class HeldRequest(NamedTuple):
    """A claim, and the request that is crawled under it."""

    claim: Claim
    request: Request


class Settlement(NamedTuple):
    """A claim whose request has been crawled. Without an outcome the request is completed."""

    claim: Claim
    outcome: Outcome | None


class CrawlMemory:
    """Everything that one process remembers of the requests of a crawl. DynamoDB has the truth.

    A claim is known by its token, which stands in the `meta` of its request.

    Attributes:
        held: Requests that are claimed and not crawled yet, by token.
        waiting: Tokens of held requests that the engine has not taken yet, the next one first.
        in_memory: Requests that cannot be stored.
        to_add: Items that are to be added to the frontier.
        to_settle: Claims that are to be settled.
        stored_keys: Unique keys of requests that are known to be in the frontier.
        is_finished: Whether no process has anything left to crawl.
    """

    def __init__(self, stored_keys: int = 0) -> None:
        """`stored_keys` is how many unique keys are remembered."""
        self.stored_keys: SeenLinks = SeenLinks(stored_keys)
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.held: dict[str, HeldRequest] = {}
        self.waiting: deque[str] = deque()
        self.in_memory: deque[Request] = deque()
        self.to_add: list[FrontierItem] = []
        self.to_settle: list[Settlement] = []
        self.stored_keys.clear()
        self.is_finished: bool = False
        self._outcomes: dict[str, Outcome] = {}

    @property
    def is_busy(self) -> bool:
        """Whether this process has something left to crawl or to write."""
        return bool(self.held or self.in_memory or self.to_add or self.to_settle)

    def hold(self, claim: Claim, request: Request) -> None:
        """Remembers a claimed request, which the engine takes after those that wait already."""
        self.held[claim.token] = HeldRequest(claim, request)
        self.waiting.append(claim.token)

    def is_in_progress(self, token: str) -> bool:
        """Returns whether the request of a claim is held, and has no outcome yet."""
        return token in self.held and token not in self._outcomes

    def replace(self, token: str, request: Request) -> None:
        """Replaces a request in progress by another one under the same claim, which is crawled next."""
        self.held[token] = HeldRequest(self.held[token].claim, request)
        self.waiting.appendleft(token)

    def next_request(self) -> Request | None:
        """Returns the next request to crawl."""
        while self.waiting:
            # A token waits twice after two replacements, and its claim may have been forgotten since.
            if (held := self.held.get(self.waiting.popleft())) is not None:
                return held.request
        return self.in_memory.popleft() if self.in_memory else None

    def note_outcome(self, token: str, outcome: Outcome) -> None:
        """Remembers that the request of a claim is not completed."""
        self._outcomes[token] = outcome

    def settle(self, token: str) -> None:
        """Moves a crawled request to the claims that are to be settled."""
        self.to_settle.append(Settlement(self.held[token].claim, self._outcomes.get(token)))
        self.forget(token)

    def forget(self, token: str) -> None:
        """Forgets a claim, its request and its outcome."""
        self.held.pop(token, None)
        self._outcomes.pop(token, None)
        with suppress(ValueError):
            self.waiting.remove(token)

    def cancel(self) -> None:
        """Forgets the requests that only this process has, because the run is cancelled."""
        self.in_memory.clear()
        self.is_finished = True
