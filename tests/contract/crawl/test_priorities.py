"""The order in which a crawl fetches its URLs, on both engines."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import InvalidArgumentError, Store, Task
from tests.contract.crawl.server import HOME, Answer, Server

PRIORITIES = {HOME + "news": 2.0, HOME + "late": -1.0, HOME + "target": 3.0, HOME + "sitemap": 1.0}


def priority(url: str) -> float:
    return PRIORITIES.get(url, 0.0)


async def order(store: Store, server: Server, **options: Any) -> list[str]:
    """Returns the paths of a crawl in the order in which they are fetched."""
    paths: list[str] = []
    async with store.crawl("docs", seeds=[HOME], **options) as run:

        async def handle(task: Task) -> None:
            paths.append(task.url.removeprefix(HOME))
            await server.handle(task)

        await run.work(handle, concurrency=1)
    return paths


async def test_crawl_fetches_urls_of_a_higher_priority_sooner(store: Store) -> None:
    links = ["late", "a", "old", "news"]
    server = Server(
        home=Answer(text="home", links=links, headers={"ETag": "home"}),
        old=Answer(301, headers={"Location": "/target"}),
        **{name: Answer(text=name) for name in ("late", "a", "news", "target", "sitemap")},
    )
    options: dict[str, Any] = {"sitemap": [HOME + "sitemap"], "priority": priority}
    first = await order(store, server, **options)
    assert first == ["sitemap", "", "news", "a", "old", "target", "late"]
    # The known pages of a sync have their priorities too.
    second = await order(store, server, priority=priority)
    assert second[:3] == ["target", "news", "sitemap"]
    assert second[-1] == "late"


async def test_crawl_gives_items_the_priority_depth_and_referrer_of_their_links(store: Store) -> None:
    server = Server(home=Answer(text="home", links=["a"]), a=Answer(text="a"))
    async with store.crawl("docs", seeds=[HOME], priority=lambda url: 0.5 * url.count("a")) as run:
        await run.work(server.handle)
    (item,) = [item for item in await store.get_frontier_items(run.run.run_id) if item.url == HOME + "a"]
    assert (item.priority, item.depth, item.referrer_url) == (1.0, 1, HOME)


@pytest.mark.parametrize("wrong", [None, "high", float("nan"), float("inf")])
async def test_crawl_refuses_a_priority_that_is_no_number(store: Store, wrong: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^priority: .*{wrong!r} for {HOME}"):
        await order(store, Server(), priority=lambda url: wrong)
