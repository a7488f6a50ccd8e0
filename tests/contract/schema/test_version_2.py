"""The migration of tables from schema version 1 to 2, with items as version 1 wrote them.

The items are written by hand, by a plain client: no code of this package has to know their form any more.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    EndpointUnreachableError,
    FrontierStats,
    MigrationProgress,
    OpenRunsError,
    SchemaVersionError,
)
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._schema import migrations
from tests.support.fakes import intercepting

MOMENT = "2026-11-26T23:33:17.705726Z"
URL = "https://example.org:443/AT%26T"

# The key of a normal form that this version does not have.
OLD_URL_KEY = "0" * 64

CONTENT = (
    b"(\xb5/\xfd WM\x02\x00\x92\x84\x0f\x11\xa0o\xf8\xa5\xee\xfc1\xb1}\x1e@H\x85\x87\x1a2\x14\xa6\x98\xf2W"
    b"=\xc8\x82\xb4:t\xc1\x96\x90b\x1d\x04i\xea`\xf3\xaf\xd1\xdf\xb3\x0e\xee\x15\x92\xfe\xab\xfe\xc0\x86\\v"
    b"\x18\xa4\xa1\x8d\xc9M\xf4\x1a\x07\x02\x00r\x8e\xd6\x13\xe5\t"
)
DIGEST = b";\xdd\xb0\x8d\x87\xd5bj|\xc4 \x94\xff\xab\xa8\x96y\xf2\xe6\xech\x98G\xb1\xdaK\t\xb7\xb5Nc\xb9"


def text(**values: str) -> Any:
    return {name: {"S": value} for name, value in values.items()}


def number(**values: float) -> Any:
    return {name: {"N": str(value)} for name, value in values.items()}


def page(page_id: str, url: str, url_key: str) -> Any:
    return {
        **text(site_id="site", page_id=page_id, url=url, url_key=url_key),
        **text(first_seen=MOMENT, last_seen=MOMENT, last_crawled=MOMENT, last_changed=MOMENT),
        **text(current_version_id="v1", content_hash="h", revision="6fa7b2fcb1a65ed1"),
        **number(depth=0, status_code=200, error_count=0, version_count=1, change_order=1795735997732233),
        "is_tombstone": {"BOOL": False},
    }


def item(run: str, item_id: str, status: str, **more: Any) -> Any:
    url = f"https://example.org/{item_id}"
    return {
        **text(run_id=run, item_id=item_id, site_id="site", url=url, normalized_url=url),
        **text(url_hash=sha256(url.encode()).hexdigest(), domain="example.org", status=status),
        **text(discovered_at=MOMENT, added_by="7cf2d0c7a662"),
        **number(priority=0, attempt=0, retry_count=0, depth=0),
        **more,
    }


def queued(run: str, item_id: str) -> Any:
    entry = text(queue=f"{run}#example.org#0", queue_order=f"07fffffffffffffff{MOMENT}")
    return item(run, item_id, "pending", **entry)


def control(run: str, state: str = "running", **more: Any) -> Any:
    record = text(run_id=f"#{run}", item_id="control", run=run, site_id="site", state=state)
    return {**record, **number(host_delay=0), "final_counts": {"M": {}}, **more}


def listed_host(run: str, host: str) -> Any:
    """A host that still is in the list of hosts, drained or not."""
    return {
        **text(run_id=f"#{run}", item_id=f"host#{host}", run=run, host=host, site_id="site", work_at=MOMENT),
        **text(queue=f"#{run}", queue_order=MOMENT, reserver="", revision="8019773c20d1"),
        **number(delay=0, shards=1, empty_looks=0, pending=0, in_progress=0, delayed=0),
        **number(completed=1, failed=0, skipped=0),
        "slots": {"M": {}},
    }


# A site with two pages and a finished run, whose drained hosts are still listed.
SITES = [
    {
        **text(site_id="site", name="A site", created_at=MOMENT, updated_at=MOMENT),
        **number(total_runs=1, total_pages=2),
        "seeds": {"L": [{"S": URL}]},
        "allowed_domains": {"L": []},
        "config": {"M": {}},
        "is_active": {"BOOL": True},
        "allowed_subdomains": {"BOOL": True},
    }
]
RUNS = [
    {
        **text(site_id="site", run_id=run_id, status=status, created_at=MOMENT),
        **number(frontier_size=2, max_depth_reached=0),
        "seeds": {"L": []},
        "config_snapshot": {"M": {}},
        "is_sync": {"BOOL": False},
        "stats_domains_crawled": {"SS": ["example.org:443"]},
        "stats": {"M": {**number(pages_crawled=1, pages_failed=1)}},
    }
    # Nobody has completed the second one, but it has no frontier.
    for run_id, status in [("done", "partial"), ("left", "running")]
]
PAGES = [
    page("moved", URL, OLD_URL_KEY),
    # Of a URL whose normal form is the same in both versions.
    page("kept", "https://example.org/a", sha256(b"https://example.org/a").hexdigest()),
    {
        **text(site_id="#site#d899063f", page_id="000000000001", at=MOMENT, changed_page="moved"),
        **text(kind="created"),
        **number(expires_at=4102444800, change_order=1795735997732233),
    },
    {
        **text(site_id="#site", page_id="lane#d899063f", holder="", held_since=MOMENT),
        **number(first=1, next=2),
    },
]
VERSIONS = [
    {
        **text(page_id="moved", version_key="v1#site#", version_id="v1", site_id="site", run_id="done"),
        **text(url=URL, content_hash="h", created_at=MOMENT, crawled_at=MOMENT, indexed_site="site"),
        **number(status_code=200, word_count=0, char_count=0, internal_link_count=0, external_link_count=0),
        "is_tombstone": {"BOOL": False},
        "extra": {"M": {}},
        "content": {"B": CONTENT},
        "body": {
            "M": {
                **text(codec="zstd"),
                **number(format=1, raw_bytes=87, stored_bytes=82, parts=0),
                "sha256": {"B": DIGEST},
            }
        },
    }
]
FRONTIER = [
    control(
        "done",
        **text(finished_by="acea9d3f58ad985d"),
        final_counts={
            "M": number(pending=0, delayed=0, in_progress=0, completed=1, failed=1, skipped=0),
        },
    ),
    listed_host("done", "example.org"),
    listed_host("done", "example.org:443"),
    item("done", "one", "completed", **text(completed_at=MOMENT)),
    item("done", "two", "failed", **text(completed_at=MOMENT, last_error="x")),
    {
        **text(run_id="#done", item_id="count#6", site_id="site", made_by="01242673b489"),
        **number(pending=0, in_progress=0, delayed=0, completed=1, failed=1, skipped=0),
    },
]
ALL = {"sites": SITES, "runs": RUNS, "pages": PAGES, "versions": VERSIONS, "frontier": FRONTIER}


async def put(config: DynamoDBConfig, name: str, *items: Any) -> None:
    async with open_client(config) as client:
        for item in items:
            await client.put_item(TableName=config.table_prefix + name, Item=item)


async def raw(config: DynamoDBConfig, name: str, **options: Any) -> list[Any]:
    async with open_client(config) as client:
        response = await client.scan(TableName=config.table_prefix + name, **options)
        return list(response["Items"])


async def version_of(config: DynamoDBConfig) -> int:
    (mark,) = [item for item in await raw(config, "runs") if item["site_id"] == {"S": "#schema"}]
    return int(mark["version"]["N"])


@pytest_asyncio.fixture
async def old(dynamodb_config: DynamoDBConfig) -> DynamoDBConfig:
    """Tables of version 1 with all kinds of records."""
    async with DynamoDBBackend(dynamodb_config):
        pass
    mark = {**text(site_id="#schema", run_id="#schema"), **number(version=1, step=0)}
    await put(dynamodb_config, "runs", {**mark, "position": {"M": {}}, "clean": {"BOOL": True}})
    for name, items in ALL.items():
        await put(dynamodb_config, name, *items)
    return dynamodb_config


async def test_migrate_to_version_2_keeps_all_that_can_be_read(old: DynamoDBConfig) -> None:
    seen: list[MigrationProgress] = []
    migrating = DynamoDBBackend(old)
    # A page, two runs, two frontier items, and the two hosts that leave their list.
    assert await migrating.migrate(seen.append) == 7
    # The items of a run that is proven finished are not read.
    assert ("Query", f"{old.table_prefix}frontier") not in migrating.metrics()
    assert await version_of(old) == 2
    assert {(progress.version, progress.table) for progress in seen} == {
        (2, f"{old.table_prefix}pages"),
        (2, f"{old.table_prefix}runs"),
        (2, f"{old.table_prefix}frontier"),
    }
    async with DynamoDBBackend(old) as backend:
        site = await backend.get_site("site")
        assert site is not None
        assert (site.name, site.seeds) == ("A site", [URL])
        run = await backend.find_run("done")
        assert run is not None
        assert (run.status, run.stats.pages_crawled) == ("partial", 1)
        assert run.stats.domains_crawled == 1
        assert run.stats.domains_sample == ["example.org:443"]
        assert {run.run_id for run in await backend.list_runs("site")} == {"done", "left"}
        pages = {page.page_id: page async for page in backend.iter_pages("site")}
        assert {page_id: page.url for page_id, page in pages.items()} == {
            "moved": URL,
            "kept": "https://example.org/a",
        }
        for page_id, page in pages.items():
            by_url = await backend.get_page_by_url("site", page.url)
            assert by_url is not None
            assert by_url.page_id == page_id
        assert await backend.mark_seen("site", [URL]) == 1
        version = await backend.get_current_version("site", "moved")
        assert version is not None
        assert version.markdown == "text"
        assert [change.page.page_id async for change in backend.iter_changes("site", "reader")] != []
        items = await backend.get_frontier_items("done")
        assert {(item.item_id, item.status.value) for item in items} == {
            ("one", "completed"),
            ("two", "failed"),
        }
        frontier = backend.frontier("site", "done")
        assert await frontier.is_finished()
        assert await frontier.stats() == FrontierStats(completed=1, failed=1)
        assert await frontier.claim() == []
        # A finished run can go on: its dead letters can be queued again.
        assert await frontier.requeue_failed() == 1
        (claim,) = await frontier.claim()
        assert claim.item.item_id == "two"
        await frontier.complete(claim)
        assert await frontier.is_finished()


async def test_migrate_to_version_2_renews_the_keys_of_urls(
    old: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The normal form is one in which every URL differs from its earlier form."""
    monkeypatch.setattr(migrations, "url_key", lambda url: f"key of {url}")
    before = {item["page_id"]["S"]: item for item in await raw(old, "pages")}
    # Two runs, two frontier items and two hosts besides.
    assert await DynamoDBBackend(old).migrate() == 2 + 6
    after = {item["page_id"]["S"]: item for item in await raw(old, "pages")}
    for page_id in ("moved", "kept"):
        expected = {**before[page_id], "url_key": {"S": f"key of {before[page_id]['url']['S']}"}}
        assert after[page_id] == expected
    assert after["000000000001"] == before["000000000001"]
    assert after["lane#d899063f"] == before["lane#d899063f"]


async def test_migrate_to_version_2_keeps_the_number_of_the_hosts_of_a_run(old: DynamoDBConfig) -> None:
    hosts = [f"host-{i:05}.example.org" for i in range(15_000)]
    stored = {item["run_id"]["S"]: item for item in await raw(old, "runs")}
    await put(old, "runs", {**stored["done"], "stats_domains_crawled": {"SS": hosts}})
    # An interrupted migration has upgraded the run, and then a process of version 1 has added a host.
    counted = {**number(pages_crawled=1, domains_crawled=7), "domains_sample": {"L": [{"S": "a.example"}]}}
    await put(old, "runs", {**stored["left"], "stats": {"M": counted}})
    await DynamoDBBackend(old).migrate()
    async with DynamoDBBackend(old) as backend:
        runs = {run.run_id: run.stats async for run in backend.iter_runs("site")}
    assert (runs["done"].domains_crawled, runs["done"].domains_sample) == (15_000, hosts[:100])
    assert (runs["left"].domains_crawled, runs["left"].pages_crawled) == (7, 1)
    assert runs["left"].domains_sample == ["a.example", "example.org:443"]
    assert all("stats_domains_crawled" not in item for item in await raw(old, "runs"))


async def test_migrate_to_version_2_moves_the_items_of_runs_as_they_are(old: DynamoDBConfig) -> None:
    await put(old, "frontier", *(item("a~1b", f"i{i}", "failed", **text(payload="x")) for i in range(40)))
    before = {stored["item_id"]["S"]: stored for stored in await raw(old, "frontier")}
    changed: list[Any] = []

    async def changes(operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation == "transact_write_items" and not changed:
            # A process of version 1 changes the item between the read and the move.
            changed.append(request["TransactItems"][0]["Delete"]["Key"])
            await put(old, "frontier", {**before[changed[0]["item_id"]["S"]], **text(last_error="late")})
        return await call(**request)

    await DynamoDBBackend(old, client_factory=intercepting(changes)).migrate()
    after = await raw(old, "frontier")
    assert not [stored for stored in after if stored["run_id"]["S"] in ("done", "a~1b")]
    moved = {
        stored["item_id"]["S"]: stored
        for stored in after
        if stored["run_id"]["S"].endswith(("#done", "#a~1b"))
    }
    of_item = changed[0]["item_id"]["S"]
    before[of_item] |= text(last_error="late")
    for item_id in ("one", "two", *(f"i{i}" for i in range(40))):
        assert moved[item_id] == {**before[item_id], "run_id": moved[item_id]["run_id"]}
    async with DynamoDBBackend(old) as backend:
        items = await backend.get_frontier_items("a#b")
        assert {item.item_id for item in items} == {f"i{i}" for i in range(40)}
        assert {item.run_id for item in items} == {"a#b"}
        assert await backend.clear_frontier("a#b") == 40


async def test_delete_site_after_migrate_to_version_2_leaves_nothing_of_a_run_that_got_links(
    old: DynamoDBConfig,
) -> None:
    await DynamoDBBackend(old).migrate()
    async with DynamoDBBackend(old) as backend:
        # These two hosts get records in the layout of version 2.
        await backend.frontier("site", "done").add(["https://example.org/new", "https://new.example.org/"])
    async with DynamoDBBackend(old) as backend:
        assert await backend.delete_site("site")
    assert await raw(old, "frontier") == []


async def test_migrate_to_version_2_refuses_while_runs_are_open_and_names_them(old: DynamoDBConfig) -> None:
    runs = [f"run{i:02}" for i in range(11)]
    for run in runs:
        # Some have claimed nothing yet, and so no list of hosts.
        await put(old, "frontier", control(run), queued(run, "one"))
    await put(old, "frontier", listed_host("run00", "example.org"))
    # In keys, "#" of an id is escaped. A paused run is open.
    await put(old, "frontier", {**control("a~1b", state="paused"), **text(run="a#b")}, queued("a~1b", "one"))
    before = {name: await raw(old, name) for name in ALL}
    with pytest.raises(
        OpenRunsError, match=r"^12 runs are open \('a#b', 'run00', .*'run08', \.\.\.\)"
    ) as caught:
        await DynamoDBBackend(old).migrate()
    assert caught.value.runs == ("a#b", *runs)
    assert {name: await raw(old, name) for name in ALL} == before
    assert await version_of(old) == 1


async def test_migrate_to_version_2_ignores_runs_that_nobody_works_on_any_more(old: DynamoDBConfig) -> None:
    await put(old, "frontier", control("cancelled", state="cancelled"), queued("cancelled", "open"))
    # All items are final, but nobody has asked whether the run is finished.
    await put(old, "frontier", control("unproven"), listed_host("unproven", "example.org"))
    await put(old, "frontier", item("unproven", "one", "completed", **text(completed_at=MOMENT)))
    # Saved as a plain record, and never queued.
    await put(old, "frontier", item("records", "one", "pending"))
    # A page, two runs, three hosts that leave their lists, an item that leaves its queue, and five that move.
    assert await DynamoDBBackend(old).migrate() == 1 + 2 + 3 + 1 + 5
    assert await raw(old, "frontier", IndexName="by_queue") == []
    async with DynamoDBBackend(old) as backend:
        (item_of_cancelled,) = await backend.get_frontier_items("cancelled")
        assert item_of_cancelled.status == "pending"
        unproven = backend.frontier("site", "unproven")
        assert await unproven.is_finished()
        assert await unproven.stats() == FrontierStats(completed=1)
        records = backend.frontier("site", "records")
        assert not await records.is_finished()
        (claim,) = await records.claim()
        assert claim.item.item_id == "one"


async def test_migrate_to_version_2_refuses_a_finished_run_that_got_links_again(old: DynamoDBConfig) -> None:
    await put(old, "frontier", queued("done", "new"))
    with pytest.raises(OpenRunsError) as caught:
        await DynamoDBBackend(old).migrate()
    assert caught.value.runs == ("done",)


async def test_migrate_to_version_2_leaves_a_run_that_is_opened_meanwhile_in_its_queue(
    old: DynamoDBConfig,
) -> None:
    scans = 0

    async def opens(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal scans
        if operation == "scan" and "IndexName" in request:
            scans += 1
            if scans == 2:
                # No run was open a moment ago.
                await put(old, "frontier", control("late"), queued("late", "one"))
                await put(old, "frontier", listed_host("late", "example.org"))
        return await call(**request)

    with pytest.raises(OpenRunsError) as caught:
        await DynamoDBBackend(old, client_factory=intercepting(opens)).migrate()
    assert caught.value.runs == ("late",)
    entries = await raw(old, "frontier", IndexName="by_queue")
    assert sorted(entry["queue"]["S"] for entry in entries) == ["#late", "late#example.org#0"]
    assert await version_of(old) == 1


async def test_migrate_to_version_2_checks_again_after_the_last_step(old: DynamoDBConfig) -> None:
    """An old process opens a run while the pages are rewritten."""
    passes = 0

    async def migrate_with(opened: list[Any]) -> None:
        nonlocal passes
        passes = 0

        def on_progress(progress: MigrationProgress) -> None:
            nonlocal passes
            passes += 1
            if opened and passes == 6:
                raise EndpointUnreachableError("gone", code="Gone", operation="Scan", table=None)

        await DynamoDBBackend(old).migrate(on_progress)

    # Each of three tables was read twice: the first pass has rewritten items, and the second one has found
    # nothing. Only the end is missing.
    with pytest.raises(EndpointUnreachableError):
        await migrate_with([1])
    assert await version_of(old) == 1
    await put(old, "frontier", control("late"), queued("late", "one"))
    with pytest.raises(OpenRunsError) as caught:
        await migrate_with([])
    assert caught.value.runs == ("late",)
    assert await version_of(old) == 1
    async with open_client(old) as client:
        key = text(run_id="late", item_id="one")
        await client.delete_item(TableName=f"{old.table_prefix}frontier", Key=key)
    await migrate_with([])
    # The step was done: nothing is read again.
    assert passes == 0
    assert await version_of(old) == 2


async def test_migrate_to_version_2_resumes_after_an_interruption(
    old: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_PER_PAGE", 1)
    count = 20
    stale = [page(f"p{i}", f"https://example.org/{i}", f"old {i}") for i in range(count)]
    await put(old, "pages", *stale)
    rewritten: list[int] = []

    def end(progress: MigrationProgress) -> None:
        rewritten.append(progress.rewritten)
        raise EndpointUnreachableError("gone", code="Gone", operation="Scan", table=None)

    ends = 0
    while True:
        try:
            await DynamoDBBackend(old).migrate(end)
        except EndpointUnreachableError:
            ends += 1
        else:
            break
    assert ends >= count
    async with DynamoDBBackend(old) as backend:
        for i in range(count):
            by_url = await backend.get_page_by_url("site", f"https://example.org/{i}")
            assert by_url is not None
            assert by_url.page_id == f"p{i}"
    # Nothing was rewritten twice: of the other records, a page, two runs and two frontier items.
    assert sum(rewritten) == count + 5


async def test_initialize_of_version_1_tables_says_what_to_do(
    old: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DynamoDBBackend(old)
    with pytest.raises(SchemaVersionError, match=r"version 1, this package has 2: upgrade the tables with"):
        await backend.initialize()
    await DynamoDBBackend(old).migrate()
    # A package of version 1, from now on.
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 1)
    for call in ("initialize", "migrate"):
        older = DynamoDBBackend(old)
        with pytest.raises(SchemaVersionError, match=r"version 2, this package has 1: upgrade ragcrawl"):
            await getattr(older, call)()
        await older.close()
