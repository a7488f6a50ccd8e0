"""Installs all components of the adapter in a project's settings, as an add-on of Scrapy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from scrapy.settings import SETTINGS_PRIORITIES
from scrapy.utils.misc import load_object

from ragcrawl_dynamo.adapters.scrapy.dupefilter import FrontierDupeFilter
from ragcrawl_dynamo.adapters.scrapy.middleware import FrontierMiddleware
from ragcrawl_dynamo.adapters.scrapy.pipeline import PagePipeline
from ragcrawl_dynamo.adapters.scrapy.scheduler import FrontierScheduler
from ragcrawl_dynamo.adapters.scrapy.settings import keeps_host_delay

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings

logger: logging.Logger = logging.getLogger(__name__)

# Nearest to the engine, where a middleware sees requests and their output after all other middlewares.
_NEAREST_TO_ENGINE = 1

# After the pipelines of most projects: they may change or drop an item before it is committed.
_LATE_PIPELINE = 900


class Addon:
    """Installs the components: `ADDONS = {"ragcrawl_dynamo.adapters.scrapy.Addon": 500}`.

    Settings of the project or the spider stay: another scheduler or duplicate filter, and another order, or
    None, for the middlewares and the pipeline. The commands `scrapy shell`, `fetch`, `parse`, `check` and
    `bench` run without the components: they look at single pages, and must not crawl the run.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Creates it for a crawler."""
        return cls(crawler)

    def update_settings(self, settings: BaseSettings) -> None:
        """Sets the scheduler and the duplicate filter, and adds the middlewares and the pipeline."""
        if self._is_command_on_single_pages(settings):
            return
        settings.set("SCHEDULER", FrontierScheduler, "addon")
        settings.set("DUPEFILTER_CLASS", FrontierDupeFilter, "addon")
        # Not issubclass: it is true for each class that has the methods of a scheduler.
        if FrontierScheduler not in load_object(settings["SCHEDULER"]).__mro__:
            logger.warning(
                "SCHEDULER is %s, so that DynamoDB gets only the items. Remove this setting, and it gets the "
                "requests too.",
                settings["SCHEDULER"],
            )
        elif keeps_host_delay(settings):
            # Otherwise the downloader would add random delays to requests that the frontier spaces already.
            jitter = (
                "DOWNLOAD_DELAY_JITTER" if "DOWNLOAD_DELAY_JITTER" in settings else "RANDOMIZE_DOWNLOAD_DELAY"
            )
            settings.set(jitter, 0, "addon")
        for name, component, order in (
            ("DOWNLOADER_MIDDLEWARES", FrontierMiddleware, _NEAREST_TO_ENGINE),
            ("SPIDER_MIDDLEWARES", FrontierMiddleware, _NEAREST_TO_ENGINE),
            ("ITEM_PIPELINES", PagePipeline, _LATE_PIPELINE),
        ):
            settings.setdefault_in_component_priority_dict(name, component, order)

    def _is_command_on_single_pages(self, settings: BaseSettings) -> bool:
        """Returns whether a command of Scrapy uses the spider for requests of its own."""
        # The shell has no start of its own, but it is the one command that sets a duplicate filter.
        if settings.getpriority("DUPEFILTER_CLASS") == SETTINGS_PRIORITIES["command"]:
            return True
        start = getattr(self._crawler.spidercls, "start", None)
        return getattr(start, "__module__", "").startswith("scrapy.commands.")
