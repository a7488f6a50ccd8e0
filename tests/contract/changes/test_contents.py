"""Changes with the current versions of their pages, on both engines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ragcrawl_dynamo import ChangeKind, DynamoDBBackend, DynamoDBConfig, PageChange, PageVersion
from tests.support.factories import make_page, make_site, make_version
from tests.support.fakes import intercepting

CREATED, CHANGED, DELETED = ChangeKind.CREATED, ChangeKind.CHANGED, ChangeKind.DELETED

Seen = tuple[str, ChangeKind, str | None]


async def commit(backend: DynamoDBBackend, page_id: str, content: str | None, **fields: Any) -> None:
    """Commits a page with that content; None: it is gone."""
    page = make_page(page_id, status_code=200 if content is not None else 404)
    version = None
    if content is not None:
        version = make_version(
            content, page_id, **{"markdown": f"text {content}", "content_hash": content, **fields}
        )
    await backend.commit_page(page, version)


def seen(change: PageChange) -> Seen:
    """A change as page, kind and text, which has to be that of the version that the page names."""
    page, version = change.page, change.version
    if version is None:
        return page.page_id, change.kind, None
    names = (version.site_id, version.page_id, version.version_id)
    assert names == (page.site_id, page.page_id, page.current_version_id)
    return page.page_id, change.kind, version.markdown


async def read(backend: DynamoDBBackend, consumer: str = "indexer", **options: Any) -> list[Seen]:
    changes = backend.iter_changes("site", consumer, include_content=True, **options)
    return [seen(change) async for change in changes]


def before_the_first(table: str, action: Callable[[], Awaitable[Any]]) -> Any:
    """A factory of clients that do something before they read many items of a table for the first time."""
    is_done = False

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal is_done
        if operation == "batch_get_item" and not is_done and table in str(request["RequestItems"].keys()):
            is_done = True
            await action()
        return await call(**request)

    return intercepting(around)


async def test_iter_changes_with_content_has_the_current_version_of_each_kind_of_change(
    backend: DynamoDBBackend,
) -> None:
    await commit(backend, "a", "1")
    await commit(backend, "b", "1")
    assert await read(backend) == [("a", CREATED, "text 1"), ("b", CREATED, "text 1")]
    await commit(backend, "a", "2")
    await commit(backend, "b", None)
    await commit(backend, "c", "1")
    assert await read(backend) == [("a", CHANGED, "text 2"), ("b", DELETED, None), ("c", CREATED, "text 1")]
    await commit(backend, "b", "3")
    await commit(backend, "c", "2")
    await backend.tombstone_pages("site", ["c"])
    assert await read(backend) == [("b", CREATED, "text 3"), ("c", DELETED, None)]
    assert await read(backend) == []


async def test_iter_changes_without_content_reads_no_version(backend: DynamoDBBackend) -> None:
    await commit(backend, "a", "1")
    before = {name for name in backend.metrics() if name[1].endswith("versions")}
    (change,) = [change async for change in backend.iter_changes("site", "indexer")]
    assert (change.page.current_version_id, change.version) == ("1", None)
    assert {name for name in backend.metrics() if name[1].endswith("versions")} == before


async def test_iter_changes_with_content_reads_bodies_of_every_size(backend: DynamoDBBackend) -> None:
    texts = {f"p{i:02}": f"{i}" * size for i, size in enumerate([0, 1, 100, 5_000] * 12)}
    texts["large"] = "".join(f"{i:09}" for i in range(200_000))
    for page_id, text in texts.items():
        await commit(backend, page_id, f"v{page_id}", markdown=text, html=f"<p>{text}</p>")
    versions: dict[str, PageVersion | None] = {}
    async for change in backend.iter_changes("site", "indexer", include_content=True, limit=30):
        versions[change.page.page_id] = change.version
    assert {page_id: version and version.markdown for page_id, version in versions.items()} == texts
    assert all(version and version.html == f"<p>{version.markdown}</p>" for version in versions.values())


async def test_list_changes_with_content(backend: DynamoDBBackend) -> None:
    cursor = await backend.get_change_cursor("site")
    await commit(backend, "a", "1")
    await commit(backend, "b", "1")
    await commit(backend, "b", None)
    part = await backend.list_changes("site", cursor=cursor, include_content=True)
    assert [seen(change) for change in part] == [("a", CREATED, "text 1"), ("b", DELETED, None)]
    assert part.is_end
    first = await backend.list_changes("site", include_content=True)
    assert [seen(change) for change in first] == [("a", CREATED, "text 1")]
    assert [change.version for change in await backend.list_changes("site", cursor=cursor)] == [None, None]


async def test_iter_changes_with_content_while_pages_change_ends_with_the_latest_versions(
    backend: DynamoDBBackend,
) -> None:
    for page_id in "abcdef":
        await commit(backend, page_id, "1")
    await read(backend)
    for page_id in "abcdef":
        await commit(backend, page_id, "2")
    changes_seen: list[Seen] = []
    # Slices of two, and a page before and one behind the reader change with each change that it gets.
    changes = backend.iter_changes("site", "indexer", include_content=True, limit=2)
    async for change in changes:
        changes_seen.append(seen(change))
        if len(changes_seen) <= 6:
            for page_id in ("a", "f"):
                await commit(backend, page_id, f"{len(changes_seen)} of {page_id}")
    # The changes that were committed while the last slice was handled.
    changes_seen += await read(backend)
    last = {page_id: text for page_id, _, text in changes_seen}
    assert last == {"a": "text 6 of a", "f": "text 6 of f", **dict.fromkeys("bcde", "text 2")}


async def test_iter_changes_with_content_shows_page_and_version_of_one_moment(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    """The page changes after it was read: the change is whole as it was, and the next one follows."""
    await commit(backend, "a", "1")
    factory = before_the_first("versions", lambda: commit(backend, "a", "2"))
    async with DynamoDBBackend(dynamodb_config, client_factory=factory) as reader:
        assert await read(reader) == [("a", CREATED, "text 1"), ("a", CHANGED, "text 2")]


async def test_iter_changes_with_content_reads_a_page_again_whose_version_was_pruned(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    for page_id in ("a", "b", "c"):
        await commit(backend, page_id, "1")

    async def change_and_prune() -> None:
        await commit(backend, "a", "2")
        await commit(backend, "b", None)
        assert await backend.get_version("site", "a", "1") is not None
        report = await backend.prune_versions("site", keep_last=1, allow_mass_deletion=True)
        assert report.versions_removed == 1

    factory = before_the_first("versions", change_and_prune)
    async with DynamoDBBackend(dynamodb_config, client_factory=factory) as reader:
        changes = await read(reader)
    # The body of "b" is still there, as that of the page that was read.
    assert changes[:3] == [("a", CREATED, "text 2"), ("b", CREATED, "text 1"), ("c", CREATED, "text 1")]
    assert changes[3:] == [("a", CHANGED, "text 2"), ("b", DELETED, None)]


async def test_iter_changes_with_content_reads_a_page_again_that_is_deleted_by_now(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await commit(backend, "a", "1")

    async def replace_prune_and_delete() -> None:
        await commit(backend, "a", "2")
        await backend.prune_versions("site", keep_last=1, allow_mass_deletion=True)
        await commit(backend, "a", None)

    factory = before_the_first("versions", replace_prune_and_delete)
    async with DynamoDBBackend(dynamodb_config, client_factory=factory) as reader:
        assert await read(reader) == [("a", DELETED, None), ("a", DELETED, None)]


async def test_iter_changes_with_content_of_a_site_that_is_deleted_meanwhile(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_site(make_site())
    await commit(backend, "a", "1")
    cursor = await backend.get_change_cursor("site")
    await commit(backend, "b", "1")
    factory = before_the_first("versions", lambda: backend.delete_site("site"))
    async with DynamoDBBackend(dynamodb_config, client_factory=factory) as reader:
        part = await reader.list_changes("site", cursor=cursor, include_content=True)
    assert [seen(change) for change in part] == [("b", DELETED, None)]


async def test_iter_changes_with_content_of_a_page_that_names_no_stored_version(
    backend: DynamoDBBackend,
) -> None:
    await backend.save_page(make_page("a", current_version_id="never saved"))
    await commit(backend, "b", "1")
    assert await read(backend) == [("a", CREATED, None), ("b", CREATED, "text 1")]
