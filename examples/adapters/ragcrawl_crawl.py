"""Runs ragcrawl's own CrawlJob and SyncJob on DynamoDB.

    pip install 'ragcrawl-dynamo[ragcrawl,local]'
    python examples/adapters/ragcrawl_crawl.py https://docs.example.org/
    python examples/adapters/ragcrawl_crawl.py https://docs.example.org/ --endpoint-url http://127.0.0.1:8000

Without an endpoint it starts an embedded engine, whose data is lost when the program ends.
"""

import argparse
import asyncio
from urllib.parse import urlsplit

from ragcrawl.config.crawler_config import CrawlerConfig, RateLimitConfig, RobotsMode
from ragcrawl.config.storage_config import StorageConfig
from ragcrawl.config.sync_config import SyncConfig
from ragcrawl.core.crawl_job import CrawlJob
from ragcrawl.core.sync_job import SyncJob

from ragcrawl_dynamo.adapters.ragcrawl import install
from ragcrawl_dynamo.testing import run_moto

install()


async def crawl(url: str, endpoint: str, prefix: str, site_id: str, max_pages: int, *, sync: bool) -> None:
    """Crawls a site, or looks for changes of the crawled pages."""
    storage = StorageConfig.dynamodb(
        table_prefix=prefix,
        endpoint_url=endpoint,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 # a local engine takes any
    )
    # Otherwise ragcrawl uses DuckDB if DynamoDB does not answer.
    storage.fail_if_unavailable = True
    if sync:
        result = await SyncJob(SyncConfig(site_id=site_id, storage=storage)).run()
        print(f"{len(result.changed_pages)} changed, {len(result.deleted_pages)} deleted")
    else:
        config = CrawlerConfig(
            seeds=[url],
            site_id=site_id,
            # ragcrawl compares hosts without their port.
            allowed_domains=[urlsplit(url).hostname or ""],
            max_pages=max_pages,
            max_depth=100,
            robots_mode=RobotsMode.OFF,
            rate_limit=RateLimitConfig(requests_per_second=1000, per_domain_rps=1000),
            storage=storage,
        )
        crawled = await CrawlJob(config).run()
        if not crawled.success:
            raise SystemExit(crawled.error)
        print(f"{crawled.stats.pages_crawled} pages crawled, {crawled.stats.pages_new} new")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--endpoint-url", help="endpoint of DynamoDB; an embedded engine by default")
    parser.add_argument("--table-prefix", default="ragcrawl")
    parser.add_argument("--site-id", default="docs")
    parser.add_argument("--max-pages", type=int, default=1000)
    parser.add_argument("--sync", action="store_true", help="look for changes of the crawled pages")
    options = parser.parse_args()
    arguments = (options.table_prefix, options.site_id, options.max_pages)
    if options.endpoint_url:
        asyncio.run(crawl(options.url, options.endpoint_url, *arguments, sync=options.sync))
    else:
        with run_moto() as endpoint:
            asyncio.run(crawl(options.url, endpoint, *arguments, sync=options.sync))
