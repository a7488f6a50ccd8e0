"""Turns off Scrapy's own duplicate filter, because the frontier filters duplicates of all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from scrapy.dupefilters import RFPDupeFilter
from typing_extensions import override

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler


class FrontierDupeFilter(RFPDupeFilter):
    """Lets all requests pass, and logs those that the frontier filters, as Scrapy's own filter does."""

    @classmethod
    @override
    def from_crawler(cls, crawler: Crawler) -> Self:
        # Without JOBDIR: fingerprints of an earlier run must not be read.
        return cls(debug=crawler.settings.getbool("DUPEFILTER_DEBUG"))

    @override
    def request_seen(self, request: Request) -> bool:
        return False
