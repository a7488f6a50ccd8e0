"""Crawls a soak's site with Scrapy. Its processes share the crawl."""

from collections.abc import Iterator
from typing import Any

from scrapy import Spider
from scrapy.crawler import CrawlerProcess

from benchmarks.adapters.soak_site import Job

JOB = Job.from_arguments()


class Docs(Spider):
    """Yields an item for each page, and follows its links."""

    name = "docs"

    def parse(self, response: Any) -> Iterator[Any]:
        """Yields the page and requests for its links."""
        JOB.fail_once(response.url)
        yield {"url": response.url, "markdown": " ".join(response.css("body ::text").getall())}
        yield from response.follow_all(css="a", callback=self.parse)


def main() -> None:
    """Crawls until the crawl of all processes is finished."""
    process = CrawlerProcess(
        {
            "ADDONS": {"ragcrawl_dynamo.adapters.scrapy.Addon": 500},
            "RAGCRAWL_DYNAMO_CONFIG": JOB.config(),
            "RAGCRAWL_DYNAMO_RUN_ID": "monday",
            "RAGCRAWL_DYNAMO_LEASE_SECONDS": JOB.lease_seconds,
            "RAGCRAWL_DYNAMO_ERROR_ATTEMPTS": 3,
            "DOWNLOAD_DELAY": JOB.host_delay,
            "RANDOMIZE_DOWNLOAD_DELAY": False,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
            "ROBOTSTXT_OBEY": False,
            "TELNETCONSOLE_ENABLED": False,
            # The handlers that raise are not worth a line.
            "LOG_LEVEL": "CRITICAL",
        }
    )
    process.crawl(Docs, start_urls=JOB.urls)
    process.start()


if __name__ == "__main__":
    main()
