"""Gives access to the parts of Scrapy's engine that have no public interface."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

from scrapy import signals
from scrapy.dupefilters import BaseDupeFilter
from scrapy.utils.misc import build_from_crawler, load_object

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler


class Engine:
    """A crawler's engine, its stats and its duplicate filter.

    Attributes:
        dupefilter: The filter that DUPEFILTER_CLASS names: the adapter's own one, or the user's.
    """

    def __init__(self, crawler: Crawler) -> None:
        # Any: its engine and its stats are None until it crawls.
        self._crawler: Any = crawler
        self.dupefilter: BaseDupeFilter = build_from_crawler(
            load_object(crawler.settings["DUPEFILTER_CLASS"]), crawler
        )

    @property
    def filters_duplicates(self) -> bool:
        """Whether duplicates are filtered. A project turns this off by setting BaseDupeFilter itself."""
        return type(self.dupefilter) is not BaseDupeFilter

    def requests_in_progress(self) -> Container[Request] | None:
        """Returns the requests that the engine is crawling; None before it crawls.

        A request is in progress until the pipelines have processed its items, for which Scrapy has no signal.
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

    def log_duplicate(self, request: Request) -> None:
        """Logs and counts a request that is filtered, as Scrapy's own scheduler does."""
        if self.filters_duplicates:
            self.dupefilter.log(request, self._crawler.spider)
        else:
            self.count("filtered", prefix="dupefilter")

    def signal_dropped(self, request: Request) -> None:
        """Sends `request_dropped`. The engine sends it itself if the scheduler refuses a request at once."""
        self._crawler.signals.send_catch_log(
            signals.request_dropped, request=request, spider=self._crawler.spider
        )

    @property
    def _slot(self) -> Any:
        return getattr(self._crawler.engine, "_slot", None)
