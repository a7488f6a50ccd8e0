"""The add-on: it installs all components of the adapter in a project's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragcrawl_dynamo.adapters.scrapy.dupefilter import FrontierDupeFilter
from ragcrawl_dynamo.adapters.scrapy.middleware import FrontierMiddleware
from ragcrawl_dynamo.adapters.scrapy.pipeline import PagePipeline
from ragcrawl_dynamo.adapters.scrapy.scheduler import FrontierScheduler

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

# Nearest to the engine: there a middleware sees what all others made of a request and of its output.
_NEAREST_TO_ENGINE = 1

# After the pipelines of most projects: they may change or drop an item before it is committed.
_LATE_PIPELINE = 900


class Addon:
    """Installs the components: `ADDONS = {"ragcrawl_dynamo.adapters.scrapy.Addon": 500}`."""

    def update_settings(self, settings: BaseSettings) -> None:
        """Sets the scheduler and the duplicate filter, and adds the middlewares and the pipeline."""
        settings.set("SCHEDULER", FrontierScheduler, "addon")
        settings.set("DUPEFILTER_CLASS", FrontierDupeFilter, "addon")
        for name, component, priority in (
            ("DOWNLOADER_MIDDLEWARES", FrontierMiddleware, _NEAREST_TO_ENGINE),
            ("SPIDER_MIDDLEWARES", FrontierMiddleware, _NEAREST_TO_ENGINE),
            ("ITEM_PIPELINES", PagePipeline, _LATE_PIPELINE),
        ):
            if component not in settings[name]:
                settings[name][component] = priority
