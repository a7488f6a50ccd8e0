"""Crawls with ragcrawl's CrawlJob, which stores in DuckDB or in DynamoDB."""

import asyncio
import logging

from ragcrawl.config.crawler_config import CrawlerConfig, RateLimitConfig, RobotsMode
from ragcrawl.config.storage_config import StorageConfig
from ragcrawl.core.crawl_job import CrawlJob
from ragcrawl.utils.logging import setup_logging

from benchmarks.adapters.measured import arguments, measured
from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo.adapters.ragcrawl import install


def prepare() -> None:
    """Makes ragcrawl use the adapter, and log errors only."""
    install()
    setup_logging(level=logging.ERROR)
    logging.disable(logging.WARNING)


def storage_on(config: DynamoDBConfig) -> StorageConfig:
    """Returns ragcrawl's settings for a local engine."""
    storage = StorageConfig.dynamodb(
        table_prefix=config.table_prefix.removesuffix("_"),
        endpoint_url=config.endpoint_url,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 # a local engine takes any
    )
    storage.fail_if_unavailable = True
    return storage


def main() -> None:
    """Crawls a site, and prints the measurements."""
    prepare()
    urls, config, folder = arguments()
    storage = StorageConfig.duckdb(f"{folder}/crawl.duckdb") if config is None else storage_on(config)
    job = CrawlJob(
        CrawlerConfig(
            seeds=urls,
            site_id="docs",
            allowed_domains=["localhost"],
            max_depth=100,
            robots_mode=RobotsMode.OFF,
            rate_limit=RateLimitConfig(requests_per_second=1000, per_domain_rps=1000),
            storage=storage,
        )
    )
    measured(lambda: asyncio.run(job.run()).stats.pages_new)


if __name__ == "__main__":
    main()
