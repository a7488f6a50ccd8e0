"""A plain Scrapy spider that several processes run together. It survives a killed process.

    pip install 'ragcrawl-dynamo[scrapy,local]'
    python examples/adapters/scrapy_crawl.py https://docs.example.org/
    python examples/adapters/scrapy_crawl.py https://docs.example.org/ --endpoint-url http://127.0.0.1:8000

Without an endpoint it starts an embedded engine, whose data is lost when the program ends.
"""

import argparse
from collections.abc import Iterator
from typing import Any

from scrapy import Spider
from scrapy.crawler import CrawlerProcess

from ragcrawl_dynamo.testing import local_config, run_moto


class Docs(Spider):
    """Follows all links of a site, and yields an item for each page."""

    name = "docs"

    def parse(self, response: Any) -> Iterator[Any]:
        """Yields the page and requests for its links."""
        yield {
            "url": response.url,
            "title": response.css("title::text").get(),
            "markdown": " ".join(response.css("body ::text").getall()),
        }
        yield from response.follow_all(css="a", callback=self.parse)


def crawl(url: str, endpoint: str, prefix: str, run_id: str, lease_seconds: float) -> None:
    """Crawls a site. A project has these settings in its settings.py."""
    process = CrawlerProcess(
        {
            "ADDONS": {"ragcrawl_dynamo.adapters.scrapy.Addon": 500},
            # What is throttled is tried again until `call_timeout`, as by default.
            "RAGCRAWL_DYNAMO_CONFIG": local_config(endpoint, table_prefix=prefix, retry_attempts=None),
            "RAGCRAWL_DYNAMO_RUN_ID": run_id,
            "RAGCRAWL_DYNAMO_LEASE_SECONDS": lease_seconds,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
            "TELNETCONSOLE_ENABLED": False,
            "LOG_LEVEL": "WARNING",
        }
    )
    crawler = process.create_crawler(Docs)
    process.crawl(crawler, start_urls=[url])
    process.start()
    completed = crawler.stats.get_value("ragcrawl_dynamo/completed", 0)
    print(f"{completed} requests completed by this process")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--endpoint-url", help="endpoint of DynamoDB; an embedded engine by default")
    parser.add_argument("--table-prefix", default="scrapy_")
    parser.add_argument("--run-id", default="monday")
    parser.add_argument("--lease-seconds", type=float, default=60.0)
    options = parser.parse_args()
    arguments = (options.table_prefix, options.run_id, options.lease_seconds)
    if options.endpoint_url:
        crawl(options.url, options.endpoint_url, *arguments)
    else:
        with run_moto() as endpoint:
            crawl(options.url, endpoint, *arguments)
