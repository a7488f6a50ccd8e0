"""Crawls a soak's site with ragcrawl. A process that is started again crawls all pages anew."""

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

import certifi
from ragcrawl.config.crawler_config import CrawlerConfig, RateLimitConfig, RobotsMode
from ragcrawl.core.crawl_job import CrawlJob
from ragcrawl.models.document import Document

from benchmarks.adapters.crawl_ragcrawl import prepare, storage_on
from benchmarks.adapters.soak_site import Job


def trust_one_authority(folder: Path) -> None:
    """Lets HTTP clients read one certificate instead of 140: ragcrawl makes a client for each page."""
    end = "-----END CERTIFICATE-----\n"
    path = folder / "authority.pem"
    path.write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    os.environ["SSL_CERT_FILE"] = str(path)


def main(job: Job) -> None:
    """Crawls the site once."""
    trust_one_authority(Path(job.folder))
    prepare()

    def on_page(document: Document) -> None:
        job.fail_once(document.source_url)

    hosts = [urlsplit(url).hostname or "" for url in job.urls]
    config = CrawlerConfig(
        seeds=job.urls,
        site_id="docs",
        allowed_domains=hosts,
        max_depth=1000,
        max_pages=100_000,
        max_concurrency=16,
        robots_mode=RobotsMode.OFF,
        rate_limit=RateLimitConfig(requests_per_second=1000, per_domain_rps=1000),
        storage=storage_on(job.config()),
        on_page=on_page,
    )
    result = asyncio.run(CrawlJob(config).run())
    if not result.success:
        raise SystemExit(result.error)


if __name__ == "__main__":
    main(Job.from_arguments())
