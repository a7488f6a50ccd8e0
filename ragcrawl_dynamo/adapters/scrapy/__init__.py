"""Scrapy on this storage."""

from ragcrawl_dynamo.adapters.scrapy.scheduler import (
    Addon,
    FrontierDupeFilter,
    FrontierMiddleware,
    FrontierScheduler,
    PagePipeline,
)

__all__ = ["Addon", "FrontierDupeFilter", "FrontierMiddleware", "FrontierScheduler", "PagePipeline"]
