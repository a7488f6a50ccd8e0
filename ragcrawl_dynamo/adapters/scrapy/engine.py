"""The parts of Scrapy's engine that the adapter needs and that have no public interface."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler


class Engine:
    """A crawler's engine and its stats."""

    def __init__(self, crawler: Crawler) -> None:
        # Any: its engine and its stats are None until it crawls.
        self._crawler: Any = crawler

    def requests_in_progress(self) -> Container[Request] | None:
        """Returns the requests that the engine is crawling; None before it crawls.

        A request is in progress until the pipelines have processed its items. No signal tells when this is.
        """
        requests: Container[Request] | None = getattr(self._slot, "inprogress", None)
        return requests

    def wake(self) -> None:
        """Lets the engine ask for requests now. Otherwise it asks every five seconds."""
        if self._slot is not None:
            self._slot.nextcall.schedule()

    def count(self, name: str, count: int = 1, *, prefix: str = "ragcrawl_dynamo") -> None:
        """Adds to a stat."""
        if count:
            self._crawler.stats.inc_value(f"{prefix}/{name}", count)

    @property
    def _slot(self) -> Any:
        return getattr(self._crawler.engine, "_slot", None)
