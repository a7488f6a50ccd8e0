"""Scenarios of crawlers, which pass with Crawlee's own storage client and with this package's."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from crawlee import ConcurrencySettings, Request
from crawlee.crawlers import (
    BasicCrawler,
    BasicCrawlingContext,
    BeautifulSoupCrawler,
    BeautifulSoupCrawlingContext,
)
from crawlee.errors import SessionError, UserDefinedErrorHandlerError
from crawlee.request_loaders import RequestList
from crawlee.storages import Dataset, KeyValueStore, RequestQueue

from tests.adapters.crawlee.requests import url

if TYPE_CHECKING:
    from pathlib import Path

    from crawlee.storage_clients import StorageClient

    from tests.adapters.site import Site

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def options(client: StorageClient, concurrency: int = 4) -> Any:
    """Options of every crawler here."""
    return {
        "storage_client": client,
        "configure_logging": False,
        "concurrency_settings": ConcurrencySettings(
            desired_concurrency=concurrency, max_concurrency=concurrency
        ),
    }


class Visits:
    """A handler that counts its calls, and raises the errors of a test."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors
        self.names: list[str] = []

    async def __call__(self, context: BasicCrawlingContext) -> None:
        name = context.request.url.removeprefix(url(""))
        self.names.append(name)
        if name in self.errors:
            raise self.errors[name]


async def test_crawlee_crawler_handles_each_request_once(either_client: StorageClient) -> None:
    visits = Visits()
    crawler = BasicCrawler(**options(either_client), request_handler=visits)
    statistics = await crawler.run([url(number) for number in range(20)] + [url(3)])
    assert sorted(visits.names, key=int) == [str(number) for number in range(20)]
    assert (statistics.requests_finished, statistics.requests_failed, statistics.requests_total) == (
        20,
        0,
        20,
    )
    assert statistics.retry_histogram == [20]


@pytest.mark.parametrize("retries", [0, 2])
async def test_crawlee_crawler_retries_and_calls_the_handlers_of_errors(
    either_client: StorageClient, retries: int
) -> None:
    visits = Visits(bad=ValueError("bad"))
    crawler = BasicCrawler(**options(either_client), request_handler=visits, max_request_retries=retries)
    errors: list[tuple[str, int]] = []
    failed: list[tuple[str, int, str]] = []

    @crawler.error_handler
    async def note_error(context: BasicCrawlingContext, error: Exception) -> None:
        errors.append((context.request.url, context.request.retry_count))

    @crawler.failed_request_handler
    async def note_failed(context: BasicCrawlingContext, error: Exception) -> None:
        failed.append((context.request.url, context.request.retry_count, str(error)))

    statistics = await crawler.run([url("bad"), url("good")])
    assert Counter(visits.names) == {"bad": retries + 1, "good": 1}
    assert errors == [(url("bad"), number) for number in range(1, retries + 1)]
    assert failed == [(url("bad"), retries, "bad")]
    assert (statistics.requests_finished, statistics.requests_failed) == (1, 1)
    queue = await RequestQueue.open(storage_client=either_client)
    request = await queue.get_request(Request.from_url(url("bad")).unique_key)
    assert request is not None
    assert (request.retry_count, request.was_already_handled) == (retries, True)
    assert (await queue.get_handled_count(), await queue.is_finished()) == (2, True)


async def test_crawlee_crawler_keeps_the_limits_of_a_request(either_client: StorageClient) -> None:
    visits = Visits(never=ValueError(), once=ValueError(), many=ValueError())
    crawler = BasicCrawler(**options(either_client), request_handler=visits, max_request_retries=2)
    await crawler.run(
        [
            Request.from_url(url("never"), no_retry=True),
            Request.from_url(url("once"), max_retries=1),
            Request.from_url(url("many"), max_retries=4),
        ]
    )
    assert Counter(visits.names) == {"never": 1, "once": 2, "many": 5}


async def test_crawlee_crawler_replaces_a_request_in_its_error_handler(either_client: StorageClient) -> None:
    visits = Visits(old=ValueError())
    crawler = BasicCrawler(**options(either_client), request_handler=visits)

    @crawler.error_handler
    async def replace(context: BasicCrawlingContext, error: Exception) -> Request:
        return Request.from_url(url("new"))

    await crawler.run([url("old")])
    assert visits.names == ["old", "new"]
    assert await (await RequestQueue.open(storage_client=either_client)).get_handled_count() == 2


@pytest.mark.parametrize("kind", ["error_handler", "failed_request_handler"])
async def test_crawlee_crawler_ends_with_an_error_of_a_handler_of_errors(
    either_client: StorageClient, kind: str
) -> None:
    visits = Visits(bad=ValueError())
    crawler = BasicCrawler(**options(either_client), request_handler=visits, max_request_retries=1)

    async def raise_error(context: BasicCrawlingContext, error: Exception) -> None:
        raise RuntimeError("broken handler")

    getattr(crawler, kind)(raise_error)
    with pytest.raises(UserDefinedErrorHandlerError):
        await crawler.run([url("bad")])


async def test_crawlee_crawler_rotates_sessions_and_gives_up(either_client: StorageClient) -> None:
    visits = Visits(blocked=SessionError("blocked"))
    crawler = BasicCrawler(
        **options(either_client), request_handler=visits, max_session_rotations=4, max_request_retries=1
    )
    rotations: list[int | None] = []

    @crawler.failed_request_handler
    async def note(context: BasicCrawlingContext, error: Exception) -> None:
        rotations.append(context.request.session_rotation_count)

    statistics = await crawler.run([url("blocked"), url("good")])
    assert Counter(visits.names) == {"blocked": 4, "good": 1}
    assert rotations == [3]
    assert statistics.requests_failed == 1


async def test_crawlee_crawler_keeps_the_changes_of_a_handler_to_a_request_that_is_retried(
    either_client: StorageClient,
) -> None:
    crawler = BasicCrawler(**options(either_client), max_request_retries=3)
    seen: list[Any] = []

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        seen.append(context.request.user_data.get("attempts"))
        context.request.user_data["attempts"] = context.request.retry_count + 1
        if context.request.retry_count < 2:
            raise ValueError("again")

    await crawler.run([url("page")])
    assert seen == [None, 1, 2]


async def test_crawlee_crawler_routes_by_labels_and_knows_the_depth(either_client: StorageClient) -> None:
    crawler = BasicCrawler(**options(either_client), max_crawl_depth=2)
    seen: list[tuple[str | None, int, Any]] = []

    @crawler.router.handler("NEXT")
    async def handle_next(context: BasicCrawlingContext) -> None:
        await handle(context)

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        request = context.request
        seen.append((request.label, request.crawl_depth, request.user_data.get("from")))
        name = f"depth-{request.crawl_depth + 1}"
        await context.add_requests(
            [Request.from_url(url(name), label="NEXT", user_data={"from": request.url})]
        )

    await crawler.run([url("start")])
    assert seen == [(None, 0, None), ("NEXT", 1, url("start")), ("NEXT", 2, url("depth-1"))]


async def test_crawlee_crawler_stops_after_so_many_requests_and_the_next_run_continues(
    either_client: StorageClient,
) -> None:
    visits = Visits()
    limited = BasicCrawler(
        **options(either_client, concurrency=1), request_handler=visits, max_requests_per_crawl=3
    )
    statistics = await limited.run([url(number) for number in range(10)])
    assert statistics.requests_finished == 3
    queue = await RequestQueue.open(storage_client=either_client)
    assert (await queue.get_handled_count(), await queue.is_finished()) == (3, False)
    other = BasicCrawler(**options(either_client), request_handler=visits)
    assert (await other.run()).requests_finished == 7
    assert sorted(visits.names) == [str(number) for number in range(10)]
    assert await queue.is_finished()


async def test_crawlee_crawler_stops_when_its_handler_says_so(either_client: StorageClient) -> None:
    crawler = BasicCrawler(**options(either_client, concurrency=1))

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        if context.request.url == url(2):
            crawler.stop()

    statistics = await crawler.run([url(number) for number in range(8)])
    assert statistics.requests_finished == 3


async def test_crawlee_crawler_is_kept_alive_until_it_is_stopped(either_client: StorageClient) -> None:
    visits = Visits()
    crawler = BasicCrawler(**options(either_client), request_handler=visits, keep_alive=True)
    running = asyncio.create_task(crawler.run())
    for name in ("one", "two"):
        await asyncio.sleep(0.2)
        assert not running.done()
        await crawler.add_requests([url(name)])
        async with asyncio.timeout(20):
            while name not in visits.names:  # noqa: ASYNC110 # no event tells
                await asyncio.sleep(0.02)
    crawler.stop()
    async with asyncio.timeout(20):
        assert (await running).requests_finished == 2


async def test_crawlee_crawler_aborts_on_an_error(either_client: StorageClient) -> None:
    visits = Visits(**{"2": ValueError("abort")})
    crawler = BasicCrawler(
        **options(either_client, concurrency=1),
        request_handler=visits,
        abort_on_error=True,
        max_request_retries=0,
    )
    statistics = await crawler.run([url(number) for number in range(8)])
    assert visits.names == ["0", "1", "2"]
    assert (statistics.requests_finished, statistics.requests_failed) == (2, 1)


async def test_crawlee_crawler_gives_up_a_handler_that_takes_too_long(either_client: StorageClient) -> None:
    crawler = BasicCrawler(
        **options(either_client), request_handler_timeout=timedelta(seconds=0.1), max_request_retries=1
    )
    calls = 0

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(5)

    assert (await crawler.run([url("slow")])).requests_failed == 1
    assert calls == 2


@pytest.mark.parametrize("purge", [True, False])
async def test_crawlee_crawler_runs_twice(either_client: StorageClient, purge: bool) -> None:
    visits = Visits()
    crawler = BasicCrawler(**options(either_client), request_handler=visits)
    await crawler.run([url("a"), url("b")])
    statistics = await crawler.run([url("b"), url("c")], purge_request_queue=purge)
    assert sorted(visits.names) == (["a", "b", "b", "c"] if purge else ["a", "b", "c"])
    assert statistics.requests_finished == (2 if purge else 1)


async def test_crawlee_crawler_does_not_purge_a_named_queue(either_client: StorageClient) -> None:
    visits = Visits()
    queue = await RequestQueue.open(name="a-queue", storage_client=either_client)
    crawler = BasicCrawler(**options(either_client), request_handler=visits, request_manager=queue)
    await crawler.run([url("a")])
    await crawler.run([url("a"), url("b")])
    assert visits.names == ["a", "b"]
    await queue.drop()


async def test_crawlee_crawler_shares_its_state_between_handlers_and_keeps_it(
    either_client: StorageClient,
) -> None:
    crawler = BasicCrawler(**options(either_client), id=7)

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        state: Any = await context.use_state({"count": 0, "urls": []})
        state["count"] += 1
        state["urls"].append(context.request.url)

    await crawler.run([url(number) for number in range(5)])
    store = await KeyValueStore.open(storage_client=either_client)
    stored = await store.get_value("CRAWLEE_STATE_7")
    assert (stored["count"], len(stored["urls"])) == (5, 5)
    other: Any = await BasicCrawler(**options(either_client), id=7).use_state()
    assert other["count"] == 5
    other_state: Any = await BasicCrawler(**options(either_client), id=8).use_state({"count": 1})
    assert other_state == {"count": 1}


async def test_crawlee_crawler_keeps_its_statistics(either_client: StorageClient) -> None:
    visits = Visits(bad=ValueError())
    crawler = BasicCrawler(**options(either_client), request_handler=visits, max_request_retries=0)
    await crawler.run([url("a"), url("bad")])
    store = await KeyValueStore.open(storage_client=either_client)
    (key,) = [key async for key in store if key.startswith("__CRAWLER_STATISTICS_")]
    stored = await store.get_value(key)
    assert (stored["requestsFinished"], stored["requestsFailed"]) == (1, 1)
    await crawler.run([url("b")])
    assert (await store.get_value(key))["requestsFinished"] == 1


async def test_crawlee_crawler_stores_the_data_and_values_of_its_handlers(
    either_client: StorageClient, tmp_path: Path
) -> None:
    crawler = BasicCrawler(**options(either_client, concurrency=1), max_request_retries=1)
    attempts: Counter[str] = Counter()

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        name = context.request.url.removeprefix(url(""))
        attempts[name] += 1
        await context.push_data({"name": name})
        await context.push_data([{"other": name}], dataset_name="a-dataset")
        store = await context.get_key_value_store(alias="own")
        await store.set_value(name, {"attempt": attempts[name]})
        if name == "bad" and attempts[name] == 1:
            # Data that a failed handler has pushed are not stored.
            raise ValueError("again")

    await crawler.run([url("a"), url("bad")])
    assert (await crawler.get_data()).items == [{"name": "a"}, {"name": "bad"}]
    named = await Dataset.open(name="a-dataset", storage_client=either_client)
    assert (await named.get_data()).items == [{"other": "a"}, {"other": "bad"}]
    store = await crawler.get_key_value_store(alias="own")
    assert [entry async for entry in store.iterate_entries()] == [
        ("a", {"attempt": 1}),
        ("bad", {"attempt": 2}),
    ]
    await crawler.export_data(tmp_path / "out.json")
    await crawler.export_data(tmp_path / "out.csv")
    assert json.loads((tmp_path / "out.json").read_text()) == [{"name": "a"}, {"name": "bad"}]
    assert (tmp_path / "out.csv").read_text().split() == ["name", "a", "bad"]
    await named.drop()


async def test_crawlee_crawler_adds_requests_to_other_queues(either_client: StorageClient) -> None:
    crawler = BasicCrawler(**options(either_client))

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        await context.add_requests([url("elsewhere")], rq_alias="other")

    assert (await crawler.run([url("a")])).requests_finished == 1
    other = await RequestQueue.open(alias="other", storage_client=either_client)
    request = await other.fetch_next_request()
    assert request is not None
    assert request.url == url("elsewhere")


async def test_crawlee_crawler_takes_the_requests_of_a_list(either_client: StorageClient) -> None:
    visits = Visits(bad=ValueError())
    queue = await RequestQueue.open(storage_client=either_client)
    await queue.add_request(url("queued"))
    tandem = await RequestList([url("a"), url("bad")]).to_tandem(queue)
    crawler = BasicCrawler(
        **options(either_client), request_handler=visits, request_manager=tandem, max_request_retries=1
    )
    statistics = await crawler.run([url("b")])
    assert Counter(visits.names) == {"a": 1, "bad": 2, "b": 1, "queued": 1}
    assert (statistics.requests_finished, statistics.requests_failed) == (3, 1)


@pytest.mark.parametrize("wait", [True, False])
async def test_crawlee_crawler_adds_many_requests_in_batches(
    either_client: StorageClient, wait: bool
) -> None:
    visits = Visits()
    crawler = BasicCrawler(**options(either_client, concurrency=16), request_handler=visits)
    await crawler.add_requests(
        [url(number) for number in range(60)], batch_size=25, wait_for_all_requests_to_be_added=wait
    )
    assert (await crawler.run()).requests_finished == 60
    assert len(set(visits.names)) == 60


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("same-origin", {"", "1"}),
        ("same-hostname", {"", "1", "plain"}),
        ("same-domain", {"", "1", "plain", "sub"}),
        ("all", {"", "1", "plain", "sub", "other"}),
    ],
)
async def test_crawlee_crawler_enqueues_links_by_a_strategy(
    either_client: StorageClient, strategy: Any, expected: set[str]
) -> None:
    crawler = BasicCrawler(**options(either_client))
    seen: set[str] = set()

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        seen.add(context.request.url.rpartition("/")[2])
        links = ["/1", "http://a.example.com/plain", "https://b.a.example.com/sub", "https://other.org/other"]
        if context.request.crawl_depth == 0:
            await context.add_requests([*links], strategy=strategy)

    await crawler.run(["https://a.example.com/"])
    assert seen == expected


async def test_crawlee_crawler_enqueues_links_of_a_site(either_client: StorageClient, site: Site) -> None:
    site.pages = 15
    crawler = BeautifulSoupCrawler(**options(either_client))

    @crawler.router.default_handler
    async def handle(context: BeautifulSoupCrawlingContext) -> None:
        assert context.soup.title is not None
        await context.push_data({"url": context.request.url, "title": context.soup.title.string})
        await context.enqueue_links(exclude=[])

    statistics = await crawler.run([site.url])
    assert (statistics.requests_finished, statistics.requests_failed) == (15, 0)
    assert sorted(site.hits.values()) == [1] * 15
    assert {item["url"] for item in (await crawler.get_data()).items} == site.urls


async def test_crawlee_crawler_gives_up_pages_that_fail(either_client: StorageClient, site: Site) -> None:
    site.pages, site.gone, site.failing = 7, {2}, {3}
    crawler = BeautifulSoupCrawler(**options(either_client), max_request_retries=2)

    @crawler.router.default_handler
    async def handle(context: BeautifulSoupCrawlingContext) -> None:
        await context.enqueue_links()

    statistics = await crawler.run([site.url])
    # Page 2 links to 5 and 6, which are therefore not found.
    assert (statistics.requests_finished, statistics.requests_failed) == (3, 2)
    assert site.hits == {"/p/0": 1, "/p/1": 1, "/p/2": 1, "/p/3": 3, "/p/4": 1}


async def test_crawlee_crawler_respects_robots_txt(either_client: StorageClient, site: Site) -> None:
    site.pages, site.robots = 7, "User-agent: *\nDisallow: /p/1\n"
    crawler = BeautifulSoupCrawler(**options(either_client), respect_robots_txt_file=True)
    skipped: list[str] = []

    @crawler.on_skipped_request
    async def note(url: str, reason: str) -> None:
        skipped.append(f"{url.rpartition('/')[2]} {reason}")

    @crawler.router.default_handler
    async def handle(context: BeautifulSoupCrawlingContext) -> None:
        await context.enqueue_links()

    await crawler.run([site.url])
    assert {path for path in site.hits if path != "/robots.txt"} == {"/p/0", "/p/2", "/p/5", "/p/6"}
    assert "1 robots_txt" in skipped
