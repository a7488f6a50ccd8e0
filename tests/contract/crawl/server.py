"""A site in memory, and a crawl of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ragcrawl_dynamo import Store, Task

HOME = "https://docs.example/"


@dataclass
class Answer:
    """An answer of the server: status, text, links and headers."""

    status: int = 200
    text: str = ""
    links: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


class Server:
    """A site in memory, which counts the requests of each path."""

    def __init__(self, **pages: Answer) -> None:
        self.pages = {HOME + ("" if name == "home" else name): answer for name, answer in pages.items()}
        self.requests: Counter[str] = Counter()
        self.conditional: Counter[str] = Counter()

    async def handle(self, task: Task) -> None:
        """Fetches and saves a task, as a user's handler does."""
        url = task.url.partition("#")[0]
        self.requests[url] += 1
        answer = self.pages.get(url, Answer(404))
        if task.conditional_headers.get("If-None-Match") == answer.headers.get("ETag", object()):
            self.conditional[task.url] += 1
            answer = Answer(304)
        await task.save(
            answer.status,
            headers=answer.headers,
            markdown=answer.text,
            title=answer.text,
            links=answer.links,
        )


async def crawl(store: Store, server: Server, **options: Any) -> Any:
    async with store.crawl("docs", seeds=[HOME], **options) as run:
        summary = await run.work(server.handle)
    return run, summary
