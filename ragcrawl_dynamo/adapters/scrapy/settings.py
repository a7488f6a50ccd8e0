"""Settings of a crawl, read from Scrapy's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ragcrawl_dynamo import DynamoDBConfig, InvalidArgumentError, StorageConfig
from ragcrawl_dynamo.adapters._runs import run_name

if TYPE_CHECKING:
    from scrapy.crawler import Crawler


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlSettings:
    """The settings whose names begin with `RAGCRAWL_DYNAMO_`.

    Attributes:
        config: Settings of the backend.
        site_id: The site that is crawled.
        run_id: The run, as `{site}/{run}`.
        lease_seconds: Seconds after which others get the requests of a killed process.
        host_delay: Seconds between requests to a host, by all processes together.
        host_max_in_flight: Requests to a host at a time, by all processes together; None for no limit.
        prefetch: Requests that are claimed ahead.
    """

    config: DynamoDBConfig
    site_id: str
    run_id: str
    lease_seconds: float
    host_delay: float
    host_max_in_flight: int | None
    prefetch: int

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Reads the settings of a crawler.

        Raises:
            InvalidArgumentError: The run id is missing.
        """
        settings = crawler.settings
        config = settings.get("RAGCRAWL_DYNAMO_CONFIG")
        if isinstance(config, dict):
            config = DynamoDBConfig.model_validate(config)
        run_id = settings.get("RAGCRAWL_DYNAMO_RUN_ID")
        if not run_id:
            raise InvalidArgumentError(
                "RAGCRAWL_DYNAMO_RUN_ID", "must be set: processes with the same run id share one crawl"
            )
        spider_name = crawler.spider.name if crawler.spider else crawler.spidercls.name
        site_id = settings.get("RAGCRAWL_DYNAMO_SITE_ID") or spider_name
        host_delay = settings.getfloat("RAGCRAWL_DYNAMO_HOST_DELAY", settings.getfloat("DOWNLOAD_DELAY"))
        max_in_flight = settings.get("RAGCRAWL_DYNAMO_HOST_MAX_IN_FLIGHT")
        prefetch = settings.getint("RAGCRAWL_DYNAMO_PREFETCH") or 2 * settings.getint("CONCURRENT_REQUESTS")
        return cls(
            config=config or StorageConfig.from_env().backend,
            site_id=site_id,
            run_id=run_name(site_id, run_id),
            lease_seconds=settings.getfloat("RAGCRAWL_DYNAMO_LEASE_SECONDS", 60.0),
            host_delay=host_delay,
            host_max_in_flight=None if max_in_flight is None else int(max_in_flight),
            prefetch=prefetch,
        )
