"""Holds the settings, the backend and the memory that the components of one crawler share."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from scrapy import signals

from ragcrawl_dynamo import DynamoDBBackend
from ragcrawl_dynamo.adapters._runs import open_run
from ragcrawl_dynamo.adapters.scrapy.memory import CrawlMemory
from ragcrawl_dynamo.adapters.scrapy.settings import CrawlSettings

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

# Key in the meta of a request: the token of the claim under which the request is crawled.
CLAIM_TOKEN = "ragcrawl_dynamo_claim"  # noqa: S105 # the name of a token

# Key in the meta of a request: Scrapy sets it for start requests.
IS_START = "is_start_request"

_CLIENT_LOGGERS = ("aiobotocore", "botocore", "ragcrawl_dynamo._dynamodb")


class Crawl:
    """Holds the state that the components of one crawler share.

    Attributes:
        settings: The settings of the crawl.
        memory: The requests that this process holds, and their outcomes.
        backend: The backend; `open` opens it.
    """

    # A crawl must not refer to its crawler, or this dictionary would keep the crawler in memory forever.
    _crawls: ClassVar[WeakKeyDictionary[Crawler, Crawl]] = WeakKeyDictionary()

    def __init__(self, crawler: Crawler) -> None:
        _quiet_the_client()
        self.settings: CrawlSettings = CrawlSettings.from_crawler(crawler)
        self.memory: CrawlMemory = CrawlMemory(self.settings.config.frontier_seen_cache)
        self.backend: DynamoDBBackend = DynamoDBBackend(self.settings.config)
        self._is_open = False
        self._opening = asyncio.Lock()
        crawler.signals.connect(self._on_closed, signals.spider_closed)

    @classmethod
    def of(cls, crawler: Crawler) -> Crawl:
        """Returns the crawl of a crawler, the same one for all components."""
        if crawler not in cls._crawls:
            cls._crawls[crawler] = cls(crawler)
        return cls._crawls[crawler]

    async def open(self) -> DynamoDBBackend:
        """Returns the backend. The first call opens it, and creates the run."""
        async with self._opening:
            if not self._is_open:
                await self.backend.initialize()
                await open_run(
                    self.backend, self.settings.site_id, self.settings.run_id, {"crawler": "scrapy"}
                )
                self._is_open = True
        return self.backend

    async def _on_closed(self) -> None:
        await self.backend.close()


def _quiet_the_client() -> None:
    """Disables the debug logs of the client of DynamoDB, unless the user has set their level.

    Scrapy's LOG_LEVEL is DEBUG by default. The client would log some 20 messages for each request.
    """
    for name in _CLIENT_LOGGERS:
        client_logger = logging.getLogger(name)
        if client_logger.level == logging.NOTSET:
            client_logger.setLevel(logging.INFO)
