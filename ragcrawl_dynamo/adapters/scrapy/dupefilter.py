"""The duplicate filter: it filters nothing, because the frontier filters duplicates of all processes."""

from __future__ import annotations

from scrapy.dupefilters import BaseDupeFilter


class FrontierDupeFilter(BaseDupeFilter):
    """A duplicate filter that lets all requests pass: the frontier knows the requests of all processes."""
