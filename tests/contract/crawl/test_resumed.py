"""Tests crawls that resume a run which `crawl` did not begin, on both engines."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import ConflictError, CrawlRun, DynamoDBConfig, RunStatus, Store, Task, connect, page_id
from tests.contract.crawl.server import HOME, Answer, Server, crawl

NAMES = [str(number) for number in range(9)]


def site_without_links() -> Server:
    """A site whose home page has linked to nine pages, and links to none of them any more."""
    pages = {name: Answer(text=name, headers={"ETag": name}) for name in NAMES}
    return Server(home=Answer(text="home", links=NAMES, headers={"ETag": "home"}), **pages)


async def crawled(store: Store) -> Server:
    """Crawls a site, which then loses its links; returns its server, with no requests noted."""
    server = site_without_links()
    await crawl(store, server)
    server.pages[HOME] = Answer(text="no links", headers={"ETag": "no links"})
    server.requests.clear()
    server.conditional.clear()
    return server


async def queue_one(store: Store, run: CrawlRun, *, is_started: bool = True) -> None:
    """Begins a run as a service does that wants one page to be fetched again."""
    if is_started:
        await store.start_run(run)
    else:
        await store.save_run(run)
    await store.frontier("docs", run.run_id).add([HOME + "3"], priority=9)


@pytest.mark.parametrize("is_started", [True, False])
async def test_crawl_adds_seeds_and_known_pages_to_a_run_that_it_did_not_begin(
    store: Store, is_started: bool
) -> None:
    server = await crawled(store)
    run = CrawlRun(run_id="service", site_id="docs", is_sync=True, seeds=[HOME])
    await queue_one(store, run, is_started=is_started)
    resumed, _ = await crawl(store, server, delete_unseen=True)
    assert (resumed.run.run_id, resumed.run.status) == ("service", RunStatus.COMPLETED)
    assert resumed.run.has_first_links
    assert server.requests == {HOME: 1, **{HOME + name: 1 for name in NAMES}}
    # The run has no parent, and is a sync all the same.
    assert server.conditional == {HOME + name: 1 for name in NAMES}
    assert resumed.unseen == []
    assert await store.count_pages("docs") == 10


async def test_crawl_adds_its_seeds_to_a_run_that_is_no_sync(store: Store) -> None:
    server = await crawled(store)
    await queue_one(store, CrawlRun(run_id="service", site_id="docs"))
    resumed, _ = await crawl(store, server, delete_unseen=True)
    assert server.requests == {HOME: 1, HOME + "3": 1}
    assert resumed.unseen == []
    assert await store.count_pages("docs") == 10


async def test_crawl_that_is_killed_while_it_adds_known_pages_is_begun_again(
    store: Store, config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await crawled(store)
    await queue_one(store, CrawlRun(run_id="service", site_id="docs", is_sync=True))

    async def killed(run: CrawlRun) -> CrawlRun:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(store, "start_run", killed)
        with pytest.raises(ZeroDivisionError):
            await crawl(store, server)
    stored = await store.get_run("docs", "service")
    assert stored is not None
    assert not stored.has_first_links
    async with connect(config) as other:
        await crawl(other, server, delete_unseen=True)
    assert len(server.requests) == 10
    assert await store.count_pages("docs") == 10


async def test_crawl_that_has_begun_its_run_adds_no_pages_when_it_resumes_it(store: Store) -> None:
    server = await crawled(store)
    async with store.crawl("docs", seeds=[HOME]) as run:
        pass
    assert run.run.status is RunStatus.RUNNING
    added = await run.frontier.stats()
    # The seeds that a run begins with are its own, also if other ones are passed later.
    async with store.crawl("docs", seeds=[HOME, HOME + "new"]) as resumed:
        assert resumed.run.run_id == run.run.run_id
    assert await resumed.frontier.stats() == added
    await crawl(store, server)
    assert len(server.requests) == 10


async def test_crawl_deletes_no_page_that_the_budget_of_its_host_left_out(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    server = await crawled(store)
    run, _ = await crawl(
        store,
        server,
        delete_unseen=True,
        host_max_items=8,
        follow=lambda url: not url.endswith("/8"),
    )
    assert len(run.unseen) in (2, 3)
    left = {page.url async for page in store.iter_pages("docs")}
    # Pages out of scope are gone, for any budget.
    assert left == {HOME, *(HOME + name for name in NAMES if name != "8")}
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "raise host_max_items" in record.getMessage()


async def test_crawl_deletes_a_page_whose_item_was_completed_without_save(store: Store) -> None:
    server = await crawled(store)

    async def handle(task: Task) -> None:
        if task.url == HOME + "3":
            await run.frontier.complete(task.claim)
        else:
            await server.handle(task)

    async with store.crawl("docs", seeds=[HOME], delete_unseen=True) as run:
        await run.work(handle)
    assert HOME + "3" not in {page.url async for page in store.iter_pages("docs")}
    assert await store.count_pages("docs") == 9


async def test_recrawl_fetches_a_page_of_the_next_run_first_and_stores_it(store: Store) -> None:
    server = await crawled(store)
    server.pages[HOME + "7"] = Answer(text="new")
    # As a service does, which does not crawl itself.
    async with store.crawl("docs", seeds=[HOME]) as run:
        (result,) = await run.recrawl([HOME + "7"], priority=9)
        assert result.added
    assert run.run.status is RunStatus.RUNNING
    order: list[tuple[str, int, str | None]] = []

    async def handle(task: Task) -> None:
        order.append((task.url, task.depth, task.claim.item.referrer_url))
        await server.handle(task)

    async with store.crawl("docs", seeds=[HOME], delete_unseen=True) as resumed:
        await resumed.work(handle, concurrency=1)
    assert resumed.run.run_id == run.run.run_id
    assert order[0] == (HOME + "7", 1, HOME)
    assert server.requests == {HOME: 1, **{HOME + name: 1 for name in NAMES}, HOME + "7": 2}
    version = await store.get_current_version("docs", page_id(HOME + "7"))
    assert version is not None
    assert version.markdown == "new"
    assert await store.count_pages("docs") == 10


async def test_recrawl_returns_the_error_of_a_text_that_is_no_url(store: Store) -> None:
    async with store.crawl("docs", seeds=[HOME]) as run:
        refused, added = await run.recrawl(["mailto:a@docs.example", HOME + "new"])
    assert refused.error is not None
    assert added.added


async def test_recrawl_fetches_a_page_that_the_open_run_has_fetched(store: Store) -> None:
    server = await crawled(store)
    async with store.crawl("docs", seeds=[HOME]) as run:

        async def handle(task: Task) -> None:
            await server.handle(task)
            if sum(server.requests.values()) == 10:
                server.pages[HOME + "7"] = Answer(text="newer")
                await run.recrawl([HOME + "7"])

        await run.work(handle, concurrency=1)
    assert run.run.status is RunStatus.COMPLETED
    assert server.requests[HOME + "7"] == 2
    version = await store.get_current_version("docs", page_id(HOME + "7"))
    assert version is not None
    assert version.markdown == "newer"
    assert await store.count_pages("docs") == 10


async def test_recrawl_of_a_page_that_answers_304_follows_its_stored_links(store: Store) -> None:
    server = Server(
        home=Answer(text="home", headers={"ETag": "home"}), a=Answer(links=["b"], headers={"ETag": "a"})
    )
    await crawl(store, server, sitemap=[HOME + "a"])
    server.pages[HOME + "b"] = Answer(text="new")
    async with store.crawl("docs", seeds=[HOME], follow=lambda url: url != HOME + "a") as run:
        # The page itself is out of scope, so that only the item of the recrawl fetches it.
        await run.recrawl([HOME + "a"])
        await run.work(server.handle)
    assert server.conditional[HOME + "a"] == 1
    page = await store.get_page("docs", page_id(HOME + "b"))
    assert page is not None
    assert not page.is_tombstone


async def test_recrawl_in_a_run_that_has_ended_says_so(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    server = site_without_links()
    run, _ = await crawl(store, server)
    with pytest.raises(ConflictError, match="has ended"):
        await run.recrawl([HOME + "7"])
    # So does the log, if the frontier itself is used.
    assert "only workers that claim from this run fetch the links" in caplog.text


async def test_crawl_tells_of_links_that_were_added_while_its_run_was_completed(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = site_without_links()
    complete_run = store.complete_run

    async def complete(site_id: str, run_id: str) -> CrawlRun:
        completed = await complete_run(site_id, run_id)
        await store.frontier(site_id, run_id).add([HOME + "late"])
        return completed

    monkeypatch.setattr(store, "complete_run", complete)
    await crawl(store, server)
    assert "while it was completed: nothing fetches them" in caplog.text
