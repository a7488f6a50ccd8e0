"""Crawls with a plain Scrapy spider, which uses a queue in memory and JSON lines, or DynamoDB."""

from scrapy.crawler import CrawlerProcess

from benchmarks.adapters.measured import arguments, measured
from examples.adapters.scrapy_crawl import Docs


def crawl() -> int:
    """Crawls sites, and returns the number of pages."""
    urls, config, folder = arguments()
    settings: dict[str, object] = {
        "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
        "TELNETCONSOLE_ENABLED": False,
        "LOG_LEVEL": "ERROR",
    }
    if config is None:
        settings["FEEDS"] = {f"{folder}/items.jsonl": {"format": "jsonlines"}}
    else:
        settings["ADDONS"] = {"ragcrawl_dynamo.adapters.scrapy.Addon": 500}
        settings["RAGCRAWL_DYNAMO_CONFIG"] = config
        settings["RAGCRAWL_DYNAMO_RUN_ID"] = "monday"
    process = CrawlerProcess(settings)
    crawler = process.create_crawler(Docs)
    process.crawl(crawler, start_urls=urls)
    process.start()
    return int(crawler.stats.get_value("item_scraped_count", 0))


if __name__ == "__main__":
    measured(crawl)
