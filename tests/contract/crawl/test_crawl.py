"""A crawl by `store.crawl`, on both engines, with handlers that save what they fetch."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest

from ragcrawl_dynamo import (
    BackendStateError,
    CommitOutcome,
    CrawlRun,
    DynamoDBConfig,
    InvalidArgumentError,
    LeaseLostError,
    MassDeletionError,
    RunStatus,
    Skip,
    StorageConfig,
    Store,
    Task,
    connect,
    page_id,
)
from ragcrawl_dynamo._crawl.headers import retry_after
from tests.contract.crawl.server import HOME, Answer, Server, crawl


async def changes(store: Store) -> dict[str, str]:
    return {change.page.url: change.kind async for change in store.iter_changes("docs", "index")}


def site() -> Server:
    return Server(
        home=Answer(text="home", links=["a", "b", "https://elsewhere.example/"], headers={"ETag": "1"}),
        a=Answer(text="a", links=["/", "c#top"], headers={"ETag": "a1", "Last-Modified": "yesterday"}),
        b=Answer(text="b", headers={"etag": "b1"}),
        c=Answer(text="c  c", headers={"ETag": "c1"}),
    )


async def test_crawl_stores_pages_completes_its_run_and_follows_the_links_of_the_site(store: Store) -> None:
    server = site()
    run, summary = await crawl(store, server)
    assert server.requests == {HOME + path: 1 for path in ("", "a", "b", "c")}
    assert (summary.completed, summary.failed, summary.retried) == (4, 0, 0)
    assert run.run.status is RunStatus.COMPLETED
    assert (run.run.stats.pages_new, run.run.stats.status_codes) == (4, {200: 4})
    assert run.run.is_sync is False
    page = await store.get_page_by_url("docs", HOME + "a")
    assert page is not None
    assert (page.page_id, page.etag, page.last_modified, page.depth) == (
        *(page_id(HOME + "a"), "a1", "yesterday"),
        1,
    )
    version = await store.get_current_version("docs", page_id(HOME + "c"))
    assert version is not None
    assert (version.markdown, version.title, version.word_count, version.char_count) == ("c  c", "c  c", 2, 4)
    assert version.fetch_latency_ms is not None
    stored = await store.get_site("docs")
    assert stored is not None
    assert (stored.total_pages, stored.total_runs, stored.allowed_domains) == (4, 1, ["docs.example"])
    assert await changes(store) == {HOME + path: "created" for path in ("", "a", "b", "c")}


async def test_second_crawl_is_a_sync_that_fetches_known_pages_conditionally(store: Store) -> None:
    server = site()
    first, _ = await crawl(store, server)
    await changes(store)
    created_at = first.site.created_at
    server.pages[HOME + "c"] = Answer(text="new", headers={"ETag": "c2"})
    server.pages[HOME + "b"] = Answer(410)
    second, summary = await crawl(store, server)
    assert second.run.run_id != first.run.run_id
    assert (second.run.is_sync, second.run.parent_run_id) == (True, first.run.run_id)
    assert server.conditional == {HOME: 1, HOME + "a": 1}
    assert summary.completed == 4
    stats = second.run.stats
    assert (stats.pages_unchanged, stats.pages_changed, stats.pages_deleted) == (2, 1, 1)
    assert await changes(store) == {HOME + "c": "changed", HOME + "b": "deleted"}
    # The site keeps its creation time and its counts.
    assert (second.site.created_at, second.site.total_pages) == (created_at, 4)
    # White space does not count as a change.
    server.pages[HOME + "c"] = Answer(text=" new\n", headers={"ETag": "c3"})
    third, _ = await crawl(store, server)
    assert third.run.stats.pages_unchanged == 3
    assert await changes(store) == {}


async def test_crawl_that_is_stopped_is_resumed_and_fetches_nothing_twice(store: Store) -> None:
    server = site()
    async with store.crawl("docs", seeds=[HOME]) as run:

        async def handle(task: Task) -> None:
            await server.handle(task)
            run.stop()

        await run.work(handle, concurrency=1)
    assert sum(server.requests.values()) == 1
    assert run.run.status is RunStatus.RUNNING
    with pytest.raises(ZeroDivisionError):
        async with store.crawl("docs", seeds=[HOME]) as run:
            raise ZeroDivisionError
    resumed, summary = await crawl(store, server)
    assert resumed.run.run_id == run.run.run_id
    assert resumed.run.status is RunStatus.COMPLETED
    assert (summary.completed, max(server.requests.values())) == (3, 1)


async def test_processes_that_begin_a_crawl_at_the_same_time_share_one_run(config: DynamoDBConfig) -> None:
    server = site()

    async def process() -> Any:
        async with connect(config) as store:
            return await crawl(store, server)

    results = await asyncio.gather(*(process() for _ in range(3)))
    assert len({run.run.run_id for run, _ in results}) == 1
    assert {run.run.status for run, _ in results} == {RunStatus.COMPLETED}
    assert sum(summary.completed for _, summary in results) == 4
    assert max(server.requests.values()) == 1


async def test_sync_lists_the_pages_that_it_has_not_seen_but_no_failed_ones(store: Store) -> None:
    server = site()
    await crawl(store, server)
    server.pages[HOME] = Answer(text="home", links=["a"], headers={"ETag": "2"})
    server.pages[HOME + "a"] = Answer(500)
    server.pages[HOME + "b"] = Answer(403)

    async def handle(task: Task) -> None:
        if task.url == HOME + "c":
            raise Skip("not today")
        await server.handle(task)

    async with store.crawl("docs", seeds=[HOME]) as run:
        await run.work(handle)
    assert run.run.status is RunStatus.PARTIAL
    assert run.unseen == []
    stats = run.run.stats
    assert (stats.pages_failed, stats.pages_skipped) == (1, 2)
    assert server.requests[HOME + "a"] == 1 + store.config.frontier_max_attempts


async def test_crawl_deletes_unseen_pages_on_request_behind_the_guard(store: Store) -> None:
    server = site()
    await crawl(store, server)
    # Known pages that are out of scope are not fetched again, so they are unseen.
    with pytest.raises(MassDeletionError, match=r"run\.unseen has them.* call tombstone_pages\(site_id, "):
        await crawl(store, server, delete_unseen=True, follow=lambda url: url == HOME)
    run, _ = await crawl(store, server, delete_unseen=True, follow=lambda url: not url.endswith("/b"))
    assert [page.url for page in run.unseen] == [HOME + "b"]
    assert await store.count_pages("docs") == 3


async def test_redirects_are_aliases_and_their_targets_are_fetched_once(store: Store) -> None:
    server = Server(
        home=Answer(text="home", links=["old", "new", "login", "away"]),
        old=Answer(301, headers={"Location": "/new"}),
        new=Answer(text="new"),
        login=Answer(302, headers={"location": "new"}),
        away=Answer(308, headers={"Location": "https://elsewhere.example/x"}),
    )
    run, _ = await crawl(store, server)
    assert server.requests == {HOME + path: 1 for path in ("", "old", "new", "login", "away")}
    aliases = {page.url: page.redirect_url async for page in store.iter_aliases("docs")}
    assert aliases == {
        HOME + "old": HOME + "new",
        HOME + "login": HOME + "new",
        HOME + "away": "https://elsewhere.example/x",
    }
    assert await changes(store) == {HOME: "created", HOME + "new": "created"}
    assert await store.count_pages("docs") == 2
    assert run.run.stats.status_codes == {200: 2, 301: 1, 302: 1, 308: 1}


async def test_page_that_moves_for_good_is_deleted_and_one_that_moves_for_now_stays(store: Store) -> None:
    server = Server(home=Answer(text="home", links=["a", "b"]), a=Answer(text="a"), b=Answer(text="b"))
    await crawl(store, server)
    await changes(store)
    server.pages[HOME + "a"] = Answer(301, headers={"Location": "/c"})
    server.pages[HOME + "b"] = Answer(307, headers={"Location": "/c"})
    server.pages[HOME + "c"] = Answer(text="c")
    await crawl(store, server)
    assert await changes(store) == {HOME + "a": "deleted", HOME + "c": "created"}
    kept = await store.get_current_version("docs", page_id(HOME + "b"))
    assert kept is not None
    assert kept.markdown == "b"


@pytest.mark.parametrize("redirects", [[301, 308], [301, 302], []])
async def test_redirect_that_the_client_followed_is_stored_under_its_target(
    store: Store, redirects: list[int]
) -> None:
    async with store.crawl("docs", seeds=[HOME]) as run:

        async def handle(task: Task) -> None:
            await task.save(200, url=HOME + "start", redirects=redirects, html="<p>", links=[HOME, "#top"])

        summary = await run.work(handle)
    assert summary.completed == 1
    target = await store.get_page_by_url("docs", HOME + "start")
    assert target is not None
    assert target.page_id == page_id(HOME + "start")
    aliases = [page async for page in store.iter_aliases("docs")]
    assert [(page.url, page.redirect_url) for page in aliases] == [(HOME, HOME + "start")]
    assert aliases[0].status_code == (301 if redirects == [301, 308] else 302)
    assert run.run.stats.pages_discovered == 2


async def test_retry_after_blocks_the_host_and_the_fetch_is_repeated(store: Store) -> None:
    server = Server(home=Answer(429, headers={"Retry-After": "1"}))
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def handle(task: Task) -> None:
        times.append(loop.time())
        if len(times) == 2:
            server.pages[HOME] = Answer(text="home")
        await server.handle(task)

    async with store.crawl("docs", seeds=[HOME]) as run:
        summary = await run.work(handle)
    assert (summary.retried, summary.completed) == (1, 1)
    assert times[1] - times[0] >= 0.9
    page = await store.get_page("docs", page_id(HOME))
    assert page is not None
    assert (page.error_count, page.last_error) == (0, None)


async def test_save_refuses_arguments_that_contradict_each_other(store: Store) -> None:
    errors: list[str] = []

    async def handle(task: Task) -> None:
        for status in (418, 200, 301, 304):
            with pytest.raises(InvalidArgumentError) as refused:
                await task.save(status)
            errors.append(f"{refused.value}")
        for wrong in ({"lang": "en"}, {"title": 7}, {"content_hash": 7}, {"html": ["CONTENT"]}):
            with pytest.raises(InvalidArgumentError, match=next(iter(wrong))) as refused:
                await task.save(200, text="x", **wrong)
            # Errors of handlers are logged, and logs hold no content.
            assert "CONTENT" not in str(refused.value)
        result = await task.save(200, text="x")
        assert result.outcome is CommitOutcome.CREATED

    async with store.crawl("docs", seeds=[HOME]) as run:
        await run.work(handle)
    assert [error.partition(":")[0] for error in errors] == ["status_code", "html", "headers", "page"]
    with pytest.raises(InvalidArgumentError, match="seeds"):
        store.crawl("docs", seeds=[])
    with pytest.raises(InvalidArgumentError, match="absolute"):
        store.crawl("docs", seeds=["docs.example"])


async def test_max_depth_ends_the_crawl_at_a_number_of_links(store: Store) -> None:
    server = Server(
        home=Answer(text="0", links=["a"]), a=Answer(text="1", links=["b"]), b=Answer(text="2", links=["c"])
    )
    await crawl(store, server, max_depth=1)
    assert set(server.requests) == {HOME, HOME + "a"}


async def test_handler_that_saves_nothing_skips_the_item_and_its_page_is_not_deleted(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    server = site()
    await crawl(store, server)

    async def handle(task: Task) -> None:
        if task.url != HOME + "c":
            await server.handle(task)

    async with store.crawl("docs", seeds=[HOME], delete_unseen=True) as run:
        summary = await run.work(handle)
    assert (summary.completed, summary.skipped, run.unseen) == (3, 1, [])
    assert await store.count_pages("docs") == 4
    assert f"{HOME}c returned without calling task.save()" in caplog.text


async def test_save_refuses_a_task_that_is_saved_already(store: Store) -> None:
    errors: list[Exception] = []

    async def handle(task: Task) -> None:
        await task.save(200, markdown="first")
        await task.save(200, markdown="second")

    async with store.crawl("docs", seeds=[HOME]) as run:
        summary = await run.work(handle, on_error=lambda _, error: errors.append(error))
    assert summary.completed == 1
    assert [type(error) for error in errors] == [InvalidArgumentError]
    assert "call save" in str(errors[0])


async def test_save_after_the_lease_was_lost_writes_no_alias(store: Store) -> None:
    async def handle(task: Task) -> None:
        task.claim.ended = task.claim.lost = True
        with pytest.raises(LeaseLostError):
            await task.save(200, url=HOME + "target", redirects=[301], markdown="old")
        run.stop()

    async with store.crawl("docs", seeds=[HOME]) as run:
        await run.work(handle)
    assert [page async for page in store.iter_aliases("docs")] == []


async def test_crawl_begins_a_run_although_the_clock_of_an_earlier_one_was_ahead(store: Store) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await store.save_run(
        CrawlRun(run_id="ahead", site_id="docs", status=RunStatus.COMPLETED, created_at=ahead)
    )
    server = site()
    runs = [(await crawl(store, server))[0].run for _ in range(3)]
    assert len({run.run_id for run in runs}) == 3
    assert [run.parent_run_id for run in runs] == ["ahead", runs[0].run_id, runs[1].run_id]
    assert server.requests[HOME] == 3


async def test_pages_that_a_sync_has_fetched_are_seen_by_any_clock(store: Store) -> None:
    server = site()
    await crawl(store, server)
    # Another machine, whose clock is ahead, has begun the sync.
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await store.save_run(CrawlRun(run_id="sync", site_id="docs", is_sync=True, started_at=ahead))
    run, summary = await crawl(store, server, run_id="sync", delete_unseen=True)
    assert (summary.completed, run.unseen) == (4, [])
    assert run.run.started_at == ahead
    assert await store.count_pages("docs") == 4


@pytest.mark.parametrize(
    "domain", ["DOCS.example", "docs.example.", "https://docs.example/x", "docs.example:443"]
)
async def test_allowed_domains_may_have_any_spelling(store: Store, domain: str) -> None:
    server = site()
    await crawl(store, server, allowed_domains=[domain])
    assert sum(server.requests.values()) == 4


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("seeds", ["docs.example"]),
        ("allowed_domains", ["no host/"]),
        ("follow", "docs"),
        ("follow", asyncio.sleep),
        ("kind_of", 404),
        ("priority", 7),
        ("max_depth", -1),
        ("name", 7),
        ("config", [1]),
    ],
)
async def test_crawl_names_the_argument_that_it_refuses(store: Store, argument: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{argument}: "):
        store.crawl("docs", **{"seeds": [HOME], argument: value})


async def test_links_that_are_no_urls_do_not_keep_a_page_from_being_stored(store: Store) -> None:
    server = site()
    server.pages[HOME].links += ["\ud800", "mailto:a@docs.example", "http://[", "https://docs.example:99999/"]
    _, summary = await crawl(store, server)
    assert (summary.completed, summary.retried) == (4, 0)


async def test_save_refuses_links_that_are_one_text(store: Store) -> None:
    async def handle(task: Task) -> None:
        with pytest.raises(InvalidArgumentError, match="links"):
            await task.save(200, markdown="x", links="abc")
        await task.save(200, markdown="x")

    async with store.crawl("docs", seeds=[HOME]) as run:
        summary = await run.work(handle)
    assert summary.completed == 1


async def test_urls_of_a_sitemap_that_are_refused_are_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    server = site()
    await crawl(store, server, sitemap=["/relative", HOME + "a"])
    assert sum(server.requests.values()) == 4
    assert "/relative cannot be crawled: " in caplog.text


async def test_crawl_deletes_nothing_if_it_does_not_know_how_much_is_unseen(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = site()
    await crawl(store, server)
    monkeypatch.setattr("ragcrawl_dynamo._crawl.crawl._MOST_UNSEEN", 1)
    await crawl(store, server, delete_unseen=True, follow=lambda url: url == HOME)
    assert await store.count_pages("docs") == 4
    assert "none is marked as gone" in caplog.text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("9" * 400, 86_400),
        ("Fri, 27 Nov 2026 08:01:00 GMT", 60),
        ("Fri, 27 Nov 2026 07:00:00 GMT", 0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(value: str, seconds: float | None) -> None:
    assert retry_after({"RETRY-AFTER": value}, datetime(2026, 11, 27, 8, tzinfo=UTC)) == seconds


async def test_seed_that_redirects_out_of_scope_is_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(home=Answer(301, headers={"Location": "https://www.elsewhere.example/"}))
    run, _ = await crawl(store, server)
    assert run.run.stats.pages_discovered == 1
    (warning,) = [record for record in caplog.records if record.name == "ragcrawl_dynamo._crawl.task"]
    assert warning.levelname == "WARNING"
    assert warning.getMessage().startswith(
        f"{HOME} redirects to https://www.elsewhere.example/, which is not"
    )


@pytest.mark.parametrize(
    ("status", "content"),
    [(200, {"html": ""}), (200, {"text": ""}), (200, {"markdown": ""}), (204, {}), (204, {"html": ""})],
)
async def test_save_of_an_empty_answer_stores_an_empty_version(
    store: Store, status: int, content: dict[str, Any]
) -> None:
    await crawl(store, Server(home=Answer(text="home")))
    await changes(store)

    async def handle(task: Task) -> None:
        await task.save(status, **content)

    async with store.crawl("docs", seeds=[HOME]) as run:
        summary = await run.work(handle)
    assert (summary.completed, run.run.status) == (1, RunStatus.COMPLETED)
    assert await changes(store) == {HOME: "changed"}
    version = await store.get_current_version("docs", page_id(HOME))
    assert version is not None
    assert (version.markdown, version.html, version.plain_text) == (
        *("", content.get("html")),
        content.get("text"),
    )
    assert (version.word_count, version.char_count, version.status_code) == (0, 0, status)
    # An empty page that stays empty is unchanged.
    async with store.crawl("docs", seeds=[HOME]) as run:
        await run.work(handle)
    assert run.run.stats.pages_unchanged == 1


async def test_stats_count_as_deleted_only_pages_that_were_there(store: Store) -> None:
    server = Server(home=Answer(text="home", links=["a", "gone"]), a=Answer(text="a"))
    first, _ = await crawl(store, server)
    server.pages[HOME + "a"] = Answer(404)
    second, _ = await crawl(store, server)
    third, _ = await crawl(store, server)
    stats = [run.run.stats for run in (first, second, third)]
    assert [(counts.pages_deleted, counts.pages_unchanged) for counts in stats] == [(0, 0), (1, 1), (0, 1)]
    assert [counts.status_codes for counts in stats] == [{200: 2, 404: 1}, {200: 1, 404: 2}, {200: 1, 404: 2}]


@pytest.mark.parametrize("status", ["200", 200.0, True, [200]])
async def test_save_refuses_a_status_that_is_no_number_at_once(store: Store, status: Any) -> None:
    async def handle(task: Task) -> None:
        with pytest.raises(InvalidArgumentError, match=r"^status: "):
            await task.save(status, text="x")
        await task.save(HTTPStatus.OK, text="x")

    async with store.crawl("docs", seeds=[HOME]) as run:
        summary = await run.work(handle)
    assert summary.completed == 1


@pytest.mark.parametrize("handler", [None, "handle", lambda task: None, lambda task: "text"])
async def test_work_refuses_a_handler_that_is_not_async_and_leaves_the_items(
    store: Store, handler: Any
) -> None:
    server = site()
    async with store.crawl("docs", seeds=[HOME]) as run:
        with pytest.raises(InvalidArgumentError, match=r"^handler: must be an async function"):
            await run.work(handler)
        item = await run.frontier.get(HOME)
        assert item is not None
        assert (item.status, item.retry_count) == ("pending", 0)
        # A function that returns what can be awaited is a handler.
        await run.work(lambda task: server.handle(task))
    assert run.run.stats.pages_new == 4


async def test_crawl_that_has_not_begun_says_what_to_do(store: Store) -> None:
    crawl = store.crawl("docs", seeds=[HOME])
    with pytest.raises(BackendStateError, match="async with"):
        await crawl.work(site().handle)
    for name in ("run", "frontier"):
        with pytest.raises(BackendStateError, match="async with"):
            getattr(crawl, name)


@pytest.mark.parametrize("config", ["docs_", StorageConfig()])
def test_connect_refuses_other_settings(config: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^config: .*{type(config).__name__}"):
        connect(config)
