"""Spiders of the tests. Each runs in a process of its own, because a reactor starts only once.

    python -m tests.adapters.scrapy.spiders Plain '{"start_urls": [...]}' '{"RAGCRAWL_DYNAMO_RUN_ID": ...}'

Prints the crawler's stats as JSON, with what the spider noted as `seen`.
"""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from scrapy import FormRequest, Request, Spider, signals
from scrapy.crawler import CrawlerProcess
from scrapy.dupefilters import RFPDupeFilter
from scrapy.exceptions import DropItem
from scrapy.utils.request import RequestFingerprinter

from ragcrawl_dynamo import EndpointUnreachableError


class Plain(Spider):
    """Follows all links."""

    name = "plain"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[Any] = []

    def parse(self, response: Any) -> Iterator[Any]:
        self.seen.append(response.url)
        yield {"url": response.url, "markdown": " ".join(response.css("p::text").getall()), "rank": [1, None]}
        # Marks of the adapter in the copied meta must not count for the new request.
        yield from response.follow_all(css="a", callback=self.parse, meta=dict(response.meta))


class Failing(Plain):
    """Fails once for every page whose number is odd."""

    name = "failing"

    def parse(self, response: Any) -> Iterator[Any]:
        again = response.url in self.seen
        yield from super().parse(response)
        if response.url[-1] in "13579" and not again:
            raise ValueError(f"fails for {response.url}")


class Unusual(Plain):
    """Yields items of unusual types, and one that cannot be stored."""

    name = "unusual"

    def parse(self, response: Any) -> Iterator[Any]:
        yield from response.follow_all(css="a", callback=self.parse)
        item = {"url": response.url, "title": response.css("title::text, h1::text").getall()}
        item |= {"price": Decimal("1.10"), "tags": {"a"}, "at": datetime(2026, 7, 1)}  # any
        if response.url.endswith("/0"):
            item["selector"] = response.css("p")[0]
        yield item
        yield {"no": "url"}
        yield {"url": None}


class Unstorable(Plain):
    """Requests that cannot be stored, each twice."""

    name = "unstorable"

    def parse(self, response: Any) -> Iterator[Any]:
        for _ in range(2):
            yield Request(f"{response.url}?large", self.note, meta={"large": "x" * 500_000})
            yield Request(f"{response.url}?partial", partial(self.note))
            yield Request("data:,text", self.note, priority=1)

    def note(self, response: Any) -> None:
        self.seen.append(response.url)


class Fingerprinter(RequestFingerprinter):
    """Fails for some requests."""

    def fingerprint(self, request: Request) -> bytes:
        if request.url.endswith("?bad"):
            raise ValueError("no fingerprint")
        return super().fingerprint(request)


class Bad(Plain):
    """Yields requests without a fingerprint. Scrapy does not ask for one if it must not filter a request."""

    name = "bad"

    def parse(self, response: Any) -> Iterator[Any]:
        self.seen.append(response.url)
        if "?" not in response.url:
            yield Request(f"{response.url}?bad", dont_filter=True)
            yield Request(f"{response.url}?bad")


class Dropped(Plain):
    """Follows all links, and notes which requests were dropped."""

    name = "dropped"

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **options: Any) -> Any:
        spider = super().from_crawler(crawler, *args, **options)
        crawler.signals.connect(spider.note_dropped, signals.request_dropped)
        return spider

    async def start(self) -> Any:
        # Scrapy would not filter it by default, and crawl it again.
        yield Request(self.start_urls[0])

    def parse(self, response: Any) -> Iterator[Any]:
        self.seen.append(response.url)
        yield from response.follow_all(css="a", callback=self.parse)

    def note_dropped(self, request: Request) -> None:
        self.seen.append(["dropped", request.url])


class WithoutTwo(RFPDupeFilter):
    """Filters one page more."""

    def request_seen(self, request: Request) -> bool:
        return request.url.endswith("/2") or super().request_seen(request)


class Odd(Plain):
    """Requests of all kinds."""

    name = "odd"

    async def start(self) -> Any:
        url = self.start_urls[0]
        moment = datetime(2026, 7, 1, 12)  # any
        rich = {"a": (1, b"\x00\xff", {2, 3}), 4: {"$x": moment}, "$bytes": "no bytes"}
        yield Request(f"{url}?rich", self.note, cb_kwargs={"rich": rich}, meta={"rich": rich}, priority=5)
        yield Request(f"{url}?lambda", partial(self.note), dont_filter=True)
        yield Request(f"{url}?object", self.note, meta={"object": object()}, cookies={"c": "1"})
        for number in (1, 2, 2):
            yield FormRequest(url, formdata={"a": str(number)}, callback=self.note, headers={"X-A": "b"})
        yield Request(f"{url}?again", self.note, flags=["f"])
        for _ in range(2):
            yield Request(f"{url}?again", self.note, dont_filter=True, meta={"is_start_request": False})
        yield Request("http://localhost:9/refused", self.note, errback=self.refused)

    def note(self, response: Any, rich: Any = None) -> Iterator[Any]:
        request = response.request
        assert request is not None
        assert rich == request.meta.get("rich")
        name = request.url.rpartition("/")[2]
        self.seen.append([name, type(request).__name__, request.method, request.body.decode(), repr(rich)])
        yield {"no": "url"}
        if name == "0?rich":
            for _ in range(2):
                yield Request(
                    f"{self.start_urls[0]}?copied",
                    self.note,
                    meta={"is_start_request": True},
                    dont_filter=True,
                )

    def refused(self, failure: Any) -> Iterator[Any]:
        self.seen.append(["refused"])
        yield Request(f"{self.start_urls[0]}?after", self.note, meta=dict(failure.request.meta))


class Dropping:
    """A pipeline that drops one page and fails once for another."""

    def __init__(self) -> None:
        self.failed = False

    def process_item(self, item: Any, spider: Any = None) -> Any:
        if item["url"].endswith("/2"):
            raise DropItem("two")
        if item["url"].endswith("/3") and not self.failed:
            self.failed = True
            raise ValueError("three")
        return item


class OutOfReach(Dropping):
    """A pipeline that fails once because DynamoDB cannot be reached."""

    def process_item(self, item: Any, spider: Any = None) -> Any:
        if not self.failed:
            self.failed = True
            raise EndpointUnreachableError(
                "no answer", code="ReadTimeout", operation="TransactWriteItems", table=None
            )
        return item


def run(name: str, options: dict[str, Any], settings: dict[str, Any]) -> None:
    process = CrawlerProcess(
        {
            "ADDONS": {"ragcrawl_dynamo.adapters.scrapy.Addon": 500},
            "TELNETCONSOLE_ENABLED": False,
            "LOG_LEVEL": "INFO",
            "RETRY_TIMES": 1,
            **settings,
        }
    )
    crawler = process.create_crawler(globals()[name])
    process.crawl(crawler, **options)
    process.start()
    stats = dict(crawler.stats.get_stats())
    seen = getattr(crawler.spider, "seen", [])
    print(json.dumps({**stats, "seen": seen}, default=str))


if __name__ == "__main__":
    run(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
