"""Remembers a crawl for one process: requests that it holds, their outcomes, and writes that are left."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Literal, NamedTuple

from ragcrawl_dynamo import Claim, FrontierItem
from ragcrawl_dynamo._frontier.seen_links import SeenLinks

if TYPE_CHECKING:
    from scrapy import Request


OutcomeKind = Literal["interrupted", "failed", "invalid", "skipped"]

# Of several outcomes of one request, the first one of these counts.
_BY_WEIGHT: tuple[OutcomeKind, ...] = ("interrupted", "failed", "invalid", "skipped")


class Outcome(NamedTuple):
    """Says why a request is not completed.

    Attributes:
        kind: "interrupted" if DynamoDB did not take an item: the request is crawled again. "failed" for an
            error of the download, the spider or a pipeline. "invalid" if an item cannot be stored. "skipped"
            if a middleware refused the request.
        reason: The error, as text.
    """

    kind: OutcomeKind
    reason: str


class NewRequest(NamedTuple):
    """A request that is to be added to the frontier.

    Attributes:
        item: The request as an item.
        request: The request.
        is_repeated: Whether an earlier try may have added it.
    """

    item: FrontierItem
    request: Request
    is_repeated: bool = False


class HeldRequest(NamedTuple):
    """A claim, and the request that is crawled under it."""

    claim: Claim
    request: Request


class Settlement(NamedTuple):
    """A claim whose request has been crawled. Without an outcome the request is completed."""

    claim: Claim
    outcome: Outcome | None


class CrawlMemory:
    """Holds all that one process remembers of the requests of a crawl; the tables decide.

    A claim is identified by its token, which is in the `meta` of its request.

    Attributes:
        held: Requests that are claimed and not crawled yet, by token.
        waiting: Tokens of held requests that the engine has not taken yet, the next one first.
        to_add: Requests that are to be added to the frontier.
        to_settle: Claims that are to be settled.
        stored_keys: Unique keys of requests that are known to be in the frontier.
        kept_keys: Unique keys of requests that were kept in memory, and that are filtered.
        kept_count: How many requests were kept in memory.
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
        self.to_add: list[NewRequest] = []
        self.to_settle: list[Settlement] = []
        self.stored_keys.clear()
        self.kept_keys: set[str] = set()
        self.is_finished: bool = False
        self._outcomes: dict[str, Outcome] = {}
        self._downloaded: set[str] = set()
        # A heap: highest priority first, then oldest.
        self._kept: list[tuple[int, int, Request]] = []
        self.kept_count: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether this process has something left to crawl or to write."""
        return bool(self.held or self._kept or self.to_add or self.to_settle)

    @property
    def has_new(self) -> bool:
        """Whether this process has requests that no other process has."""
        return bool(self._kept or self.to_add)

    def keep(self, request: Request) -> None:
        """Remembers a request that cannot be stored."""
        heappush(self._kept, (-request.priority, self.kept_count, request))
        self.kept_count += 1

    def hold(self, claim: Claim, request: Request) -> None:
        """Remembers a claimed request, which the engine takes after those that wait already."""
        self.held[claim.token] = HeldRequest(claim, request)
        self.waiting.append(claim.token)

    def is_held(self, token: str | None, request: Request) -> bool:
        """Returns whether a request is that of a claim, and not another request with a copy of its meta."""
        return token in self.held and self.held[token].request is request

    def is_downloading(self, token: str | None) -> bool:
        """Returns whether the request of a claim is held, and has no response and no outcome yet."""
        return token in self.held and token not in self._downloaded and token not in self._outcomes

    def note_downloaded(self, token: str) -> None:
        """Remembers that the request of a claim has its response, so no middleware replaces it any more."""
        self._downloaded.add(token)

    def replace(self, token: str, request: Request) -> None:
        """Replaces the request of a claim, while it is downloading, by another one, which is crawled next."""
        self.held[token] = HeldRequest(self.held[token].claim, request)
        self.waiting.appendleft(token)

    def next_request(self) -> Request | None:
        """Returns the next request to crawl: first those that only this process has, as Scrapy does."""
        if self._kept:
            return heappop(self._kept)[2]
        while self.waiting:
            # A token waits twice after two replacements, and its claim may have been forgotten since.
            if (held := self.held.get(self.waiting.popleft())) is not None:
                return held.request
        return None

    def note_outcome(self, token: str, outcome: Outcome) -> None:
        """Remembers that the request of a claim is not completed."""
        known = self._outcomes.get(token)
        if known is None or _BY_WEIGHT.index(outcome.kind) <= _BY_WEIGHT.index(known.kind):
            self._outcomes[token] = outcome

    def settle(self, token: str) -> None:
        """Moves a crawled request to the claims that are to be settled."""
        self.to_settle.append(Settlement(self.held[token].claim, self._outcomes.get(token)))
        self.forget(token)

    def forget(self, token: str) -> None:
        """Forgets a claim, its request and its outcome."""
        self.held.pop(token, None)
        self._outcomes.pop(token, None)
        self._downloaded.discard(token)
        with suppress(ValueError):
            self.waiting.remove(token)

    def cancel(self) -> None:
        """Forgets the requests that only this process has, because the run is cancelled."""
        self._kept.clear()
        self.is_finished = True
