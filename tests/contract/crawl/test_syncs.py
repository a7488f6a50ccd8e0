"""Tests which URLs a sync fetches: known pages, and those to which they link, on both engines."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import (
    CommitOutcome,
    InvalidArgumentError,
    PageVersion,
    RunStatus,
    Store,
    Task,
    page_id,
)
from tests.contract.crawl.server import HOME, Answer, Server, crawl

ELSEWHERE = "https://elsewhere.example/"


def unchanged_site(**pages: Answer) -> Server:
    """A site whose home page links to "a", and stays as it is."""
    home = Answer(text="home", links=["a", ELSEWHERE], headers={"ETag": "home"})
    return Server(home=home, **pages)


@pytest.mark.parametrize(
    "before",
    [
        Answer(500),
        Answer(403),
        Answer(404),
        Answer(301, headers={"Location": "/b"}),
        Answer(302, headers={"Location": "/b"}),
    ],
    ids=lambda answer: str(answer.status),
)
async def test_sync_fetches_what_an_unchanged_page_links_to(store: Store, before: Answer) -> None:
    server = unchanged_site(a=before, b=Answer(text="b"))
    await crawl(store, server)
    assert await store.get_current_version("docs", page_id(HOME + "a")) is None
    server.pages[HOME + "a"] = Answer(text="a", links=["c"])
    server.pages[HOME + "c"] = Answer(text="c")
    run, _ = await crawl(store, server)
    assert server.conditional == {HOME: 1}
    assert run.run.status is RunStatus.COMPLETED
    for name in ("a", "c"):
        version = await store.get_current_version("docs", page_id(HOME + name))
        assert version is not None
        assert version.markdown == name


async def test_sync_follows_links_of_unchanged_pages_that_wider_settings_allow(store: Store) -> None:
    server = unchanged_site(a=Answer(text="a", links=["b"], headers={"ETag": "a"}), b=Answer(text="b"))
    server.pages[ELSEWHERE] = Answer(text="elsewhere")
    await crawl(store, server, max_depth=1)
    assert set(server.requests) == {HOME, HOME + "a"}
    await crawl(store, server, max_depth=2)
    assert server.conditional == {HOME: 1, HOME + "a": 1}
    assert set(server.requests) == {HOME, HOME + "a", HOME + "b"}
    await crawl(store, server, allowed_domains=["docs.example", "elsewhere.example"])
    page = await store.get_page_by_url("docs", ELSEWHERE)
    assert page is not None
    assert (page.depth, page.referrer_url) == (1, HOME)


async def test_save_after_304_follows_the_links_that_it_is_given_instead(store: Store) -> None:
    server = unchanged_site(new=Answer(text="new"))
    await crawl(store, server, max_depth=0)

    async def handle(task: Task) -> None:
        if task.url == HOME:
            result = await task.save(304, links=["new", "mailto:a@docs.example", "\ud800", ELSEWHERE])
            assert result.outcome is CommitOutcome.UNCHANGED
        else:
            await server.handle(task)

    async with store.crawl("docs", seeds=[HOME]) as run:
        await run.work(handle)
    assert {page.url async for page in store.iter_pages("docs")} == {HOME, HOME + "new"}
    # The links of the stored version stay.
    version = await store.get_current_version("docs", page_id(HOME))
    assert version is not None
    assert version.outlinks == [HOME + "a", ELSEWHERE]


async def test_save_after_304_does_without_links_if_the_version_was_pruned(store: Store) -> None:
    server = unchanged_site(a=Answer(404))
    await crawl(store, server)
    (version,) = await store.list_versions("docs", page_id(HOME))
    await store._rooms.versions.delete(  # pruning keeps current versions
        {"page_id": {"S": version.page_id}, "version_key": {"S": f"{version.version_id}#docs#"}}
    )
    assert await store.get_current_version("docs", page_id(HOME)) is None
    run, summary = await crawl(store, server)
    assert (summary.completed, run.run.status) == (1, RunStatus.COMPLETED)


async def test_save_refuses_304_for_a_page_without_content(store: Store) -> None:
    server = unchanged_site(a=Answer(404))
    await crawl(store, server)

    async def handle(task: Task) -> None:
        with pytest.raises(InvalidArgumentError, match="no stored content"):
            await task.save(304, links=["b"])
        await task.save(404)

    async with store.crawl("docs", seeds=[HOME + "a", HOME + "new"], follow=lambda url: url != HOME) as run:
        await run.work(handle)
    # The links of a refused answer are not added.
    assert run.run.stats.pages_discovered == 2


async def test_save_after_304_revives_a_tombstone_and_follows_its_links(store: Store) -> None:
    server = unchanged_site(a=Answer(404))
    await crawl(store, server, max_depth=0)
    await store.tombstone_pages("docs", [page_id(HOME)], allow_mass_deletion=True)

    async def handle(task: Task) -> None:
        server.requests[task.url] += 1
        assert task.conditional_headers == {}
        await task.save(304 if task.url == HOME else 404)

    async with store.crawl("docs", seeds=[HOME]) as run:
        await run.work(handle)
    assert server.requests == {HOME: 2, HOME + "a": 1}
    assert run.run.stats.pages_changed == 1


async def test_save_after_304_whose_commit_fails_has_added_the_links(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = unchanged_site(a=Answer(404))
    await crawl(store, server, max_depth=0)
    pages = store._rooms.pages  # the write after the links
    rewrite, calls = pages.rewrite, 0

    async def fail_once(*args: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return await rewrite(*args)

    monkeypatch.setattr(pages, "rewrite", fail_once)
    run, summary = await crawl(store, server)
    assert server.requests == {HOME: 3, HOME + "a": 1}
    assert (summary.retried, summary.completed, run.run.status) == (1, 2, RunStatus.COMPLETED)


async def test_save_after_304_at_the_depth_of_the_crawl_reads_no_links(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = unchanged_site()
    await crawl(store, server, max_depth=0)

    read: list[str] = []
    get_version = store.get_version

    async def note(site_id: str, of_page: str, version_id: str) -> PageVersion | None:
        read.append(of_page)
        return await get_version(site_id, of_page, version_id)

    monkeypatch.setattr(store, "get_version", note)
    await crawl(store, server, max_depth=0)
    assert read == []
    await crawl(store, server, max_depth=1)
    assert read == [page_id(HOME)]


@pytest.mark.parametrize(
    "options", [{"max_depth": 0}, {"follow": lambda url: url == HOME}, {"host_max_items": 1}]
)
async def test_sync_has_not_seen_the_pages_that_its_settings_leave_out(
    store: Store, options: dict[str, Any]
) -> None:
    server = unchanged_site(a=Answer(text="a"))
    await crawl(store, server)
    run, _ = await crawl(store, server, **options)
    assert [page.url for page in run.unseen] == [HOME + "a"]
    assert server.requests == {HOME: 2, HOME + "a": 1}


async def test_sync_has_not_seen_a_page_whose_item_is_completed_without_save(store: Store) -> None:
    server = unchanged_site(a=Answer(text="a"))
    await crawl(store, server)

    async def handle(task: Task) -> None:
        if task.url == HOME:
            await server.handle(task)
        else:
            await run.frontier.complete(task.claim)

    async with store.crawl("docs", seeds=[HOME]) as run:
        await run.work(handle)
    assert [page.url for page in run.unseen] == [HOME + "a"]
