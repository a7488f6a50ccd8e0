"""Notes which requests have failed or were refused, as a middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Self

from scrapy import Request
from scrapy.exceptions import IgnoreRequest

from ragcrawl_dynamo.adapters.scrapy.crawl import CLAIM_TOKEN, IS_START, Crawl
from ragcrawl_dynamo.adapters.scrapy.memory import Outcome

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response


class FrontierMiddleware:
    """A downloader middleware and a spider middleware; both must be nearest to the engine."""

    def __init__(self, crawl: Crawl, retried_statuses: set[int]) -> None:
        self._memory = crawl.memory
        self._retried_statuses = retried_statuses

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Creates it for a crawler."""
        crawl = Crawl.of(crawler)
        return cls(crawl, {int(code) for code in crawler.settings.getlist("RETRY_HTTP_CODES")})

    def process_response(self, request: Request, response: Response, spider: Any = None) -> Response:
        """Notes a failed request, if Scrapy's own retries ended with one of RETRY_HTTP_CODES."""
        if token := self._token_of(request):
            self._memory.note_downloaded(token)
            if response.status in self._retried_statuses:
                self._memory.note_outcome(token, Outcome("failed", f"HTTP {response.status}"))
        return response

    def process_exception(self, request: Request, exception: Exception, spider: Any = None) -> None:
        """Notes a failed download, or that a middleware refused the request."""
        if token := self._token_of(request):
            reason = f"{type(exception).__name__}: {exception}"
            is_refused = isinstance(exception, IgnoreRequest)
            self._memory.note_outcome(token, Outcome("skipped" if is_refused else "failed", reason))

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any], spider: Any = None
    ) -> AsyncIterator[Any]:
        """Removes the adapter's marks from new requests, whose `meta` may be a copy of the response's."""
        async for output in result:
            if isinstance(output, Request):
                output.meta.pop(CLAIM_TOKEN, None)
                output.meta.pop(IS_START, None)
            yield output

    def _token_of(self, request: Request) -> str | None:
        """Returns the token of a claimed request; None for others, such as those of media pipelines."""
        token: str | None = request.meta.get(CLAIM_TOKEN)
        return token if self._memory.is_held(token, request) else None
