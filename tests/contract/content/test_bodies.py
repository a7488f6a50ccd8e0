"""Bodies of any size: saved, read, listed, shared, exported, pruned."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidValueError,
    PartialBatchError,
    PruneReport,
)
from ragcrawl_dynamo._content import loader, packing, versions
from ragcrawl_dynamo._content.packing import THREAD_BYTES
from tests.support.factories import START, dense_text, hours, make_page, make_version
from tests.support.fakes import intercepting

# Kilobytes after compression, so that the largest take many parts; 16 MB are the most that an answer of
# DynamoDB holds, the rest are keys to be read again, and moto knows no such limit.
SIZES = [
    *(("moto", size) for size in (0, 3, 100, 400, 1000)),
    *(("dynamodb-local", size) for size in (0, 3, 100, 400, 1000, 18_000)),
]


@pytest.mark.parametrize(("dynamodb_endpoint", "kilobytes"), SIZES, indirect=["dynamodb_endpoint"])
async def test_save_version_stores_a_body_of_any_size(backend: DynamoDBBackend, kilobytes: int) -> None:
    version = make_version(markdown=dense_text(kilobytes) or "x", html="<p>\0ü🕷️</p>", plain_text="")
    await backend.save_version(version)
    assert await backend.get_version("site", "page", "v1") == version
    await backend.save_page(make_page(current_version_id="v1"))
    assert await backend.get_current_version("site", "page") == version
    assert await backend.list_versions("site", "page") == [version]


async def test_save_versions_bulk_stores_20_mb_of_html_beside_others(backend: DynamoDBBackend) -> None:
    huge = make_version(
        "huge", html="<p>the same again</p>" * 1_000_000, outlinks=["https://e.com/"] * 20_000
    )
    small = [make_version(f"v{i}", markdown=dense_text(5, str(i))) for i in range(30)]
    assert await backend.save_versions_bulk([huge, *small]) == 31
    assert await backend.get_version("site", "page", "huge") == huge
    assert len(await backend.list_versions("site", "page", include_content=False)) == 31


class Threads:
    """Notes for each call of a function whether it runs in the thread of the event loop."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._loop_thread = threading.get_ident()
        self.in_loop: list[bool] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.in_loop.append(threading.get_ident() == self._loop_thread)
        return self._call(*args, **options)


@pytest.mark.parametrize(
    ("content", "in_loop"),
    [
        ({"markdown": "x" * 1000}, True),
        ({"markdown": "x" * 2 * THREAD_BYTES}, False),
        ({"plain_text": "x" * 20_000_000}, False),
        ({"outlinks": ["https://example.com/"] * 2000}, False),
        ({"headings_outline": [{"level": 1, "text": "Title"}] * 2000}, False),
    ],
    ids=["small", "large", "huge", "links", "headings"],
)
async def test_save_and_get_of_a_large_version_compress_outside_of_the_event_loop(
    backend: DynamoDBBackend, content: dict[str, Any], in_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, unpack = Threads(packing.pack), Threads(packing.unpack)
    monkeypatch.setattr(versions, "pack", pack)
    monkeypatch.setattr(loader, "unpack", unpack)
    version = make_version(**content)
    await backend.save_version(version)
    assert await backend.get_version("site", "page", "v1") == version
    assert (pack.in_loop, unpack.in_loop) == ([in_loop], [in_loop])


async def test_version_of_many_parts_is_read_in_answers_that_are_quickly_decoded(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    version = make_version(markdown=dense_text(4000))
    await backend.save_version(version)
    sizes = AnswerSizes([])
    async with DynamoDBBackend(dynamodb_config, client_factory=intercepting(sizes.around)) as reader:
        assert await reader.get_version("site", "page", "v1") == version
    assert sum(sizes.body_bytes) > 3_000_000
    assert max(sizes.body_bytes) < 2_000_000


async def test_iter_versions_reads_large_bodies_fewer_at_a_time(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    page_ids = [f"p{i:02}" for i in range(12)]
    for page_id in page_ids:
        await backend.save_version(make_version("v1", page_id, markdown=dense_text(700, page_id)))
        await backend.save_page(make_page(page_id, current_version_id="v1"))
    sizes = AnswerSizes([])
    async with DynamoDBBackend(dynamodb_config, client_factory=intercepting(sizes.around)) as reader:
        read = [version.page_id async for version in reader.iter_versions("site")]
    assert read == page_ids
    assert sum(sizes.body_bytes) > 12 * 600_000
    assert max(sizes.body_bytes) < 2_000_000


@dataclass
class AnswerSizes:
    """The bytes of bodies in each answer of a BatchGetItem."""

    body_bytes: list[int]

    async def around(self, operation: str, request: Any, call: Any) -> Any:
        answer = await call(**request)
        if operation == "batch_get_item":
            items = [item for items in answer["Responses"].values() for item in items]
            self.body_bytes.append(sum(len(item["data"]["B"]) for item in items if "data" in item))
        return answer


async def test_save_version_again_replaces_the_body(backend: DynamoDBBackend) -> None:
    for kilobytes in (500, 10, 0, 900, 10):
        version = make_version(markdown=dense_text(kilobytes, "again"))
        await backend.save_version(version)
        assert await backend.get_version("site", "page", "v1") == version
    report = await backend.collect_garbage("site", grace_hours=0, allow_mass_deletion=True)
    assert report.bodies_total - report.bodies_removed == 1
    assert await backend.get_version("site", "page", "v1") == version


async def test_save_version_of_unchanged_content_stores_no_version(backend: DynamoDBBackend) -> None:
    first = make_version("v1", content_hash="same")
    assert await backend.save_version(first) == "v1"
    await backend.save_page(make_page(content_hash="same", current_version_id="v1"))
    again = make_version("v2", content_hash="same")
    assert await backend.save_version(again) == "v1"
    assert await backend.save_versions_bulk([again, make_version("v3", content_hash="other")]) == 1
    assert {version.version_id for version in await backend.list_versions("site", "page")} == {"v1", "v3"}
    assert await backend.save_version(again, keep_unchanged=True) == "v2"
    assert await backend.get_version("site", "page", "v2") == again


async def test_save_version_stores_a_version_that_only_the_page_names(backend: DynamoDBBackend) -> None:
    await backend.save_page(make_page(content_hash="same", current_version_id="v1"))
    assert await backend.save_version(make_version("v2", content_hash="same")) == "v2"
    assert await backend.save_version(make_version("v1", content_hash="same")) == "v1"
    assert len(await backend.list_versions("site", "page")) == 2


@pytest.mark.parametrize("kilobytes", [30, 900])
async def test_body_shared_by_versions_is_stored_once_and_stays_readable(
    backend: DynamoDBBackend, kilobytes: int
) -> None:
    versions = {
        f"v{i}": make_version(f"v{i}", markdown=dense_text(kilobytes), crawled_at=START + hours(i))
        for i in range(4)
    }
    for version in versions.values():
        await backend.save_version(version)
    assert (await backend.collect_garbage("site", dry_run=True)).bodies_total == 1
    # The version that the body was written for goes first, then one more.
    for keep in (3, 2):
        report = await backend.prune_versions("site", keep_last=keep)
        assert report == PruneReport(versions_total=keep + 1, versions_removed=1, dry_run=False)
    left = await backend.list_versions("site", "page")
    assert left == [versions["v3"], versions["v2"]]
    assert (await backend.collect_garbage("site", grace_hours=0)).bodies_removed == 0
    assert await backend.get_version("site", "page", "v2") == versions["v2"]
    await backend.prune_versions("site", keep_last=0, allow_mass_deletion=True)
    assert (await backend.collect_garbage("site", dry_run=True)).bodies_total == 0


async def test_body_is_not_shared_between_sites_or_pages(backend: DynamoDBBackend) -> None:
    body = dense_text(20)
    for site_id, page_id in (("one", "page"), ("two", "page"), ("one", "other")):
        await backend.save_version(make_version("v1", page_id, site_id, markdown=body))
    await backend.delete_site("one")
    version = await backend.get_version("two", "page", "v1")
    assert version is not None
    assert (version.site_id, version.markdown) == ("two", body)


async def test_iter_versions_has_current_bodies_in_page_order(backend: DynamoDBBackend) -> None:
    expected = []
    for i in range(50):
        for version_id in ("old", "new"):
            version = make_version(
                version_id, f"p{i:02}", markdown=dense_text(i % 7, f"{i}{version_id}") + "x"
            )
            await backend.save_version(version)
        expected.append(version)
        await backend.save_page(make_page(f"p{i:02}", current_version_id="new"))
    await backend.save_page(make_page("p05", current_version_id=None))
    await backend.save_page(make_page("p06", current_version_id="never saved"))
    await backend.save_page(make_page("p07", current_version_id="new", is_tombstone=True))
    await backend.save_version(make_version("new", "p00", "other-site"))
    del expected[5:8]
    assert [version async for version in backend.iter_versions("site")] == expected


async def test_save_versions_bulk_stores_the_others_beside_an_invalid_body(backend: DynamoDBBackend) -> None:
    hostile = make_version("hostile")
    object.__setattr__(hostile, "html", "\ud800")
    good = [make_version(f"v{i}", html="\0" * 100_000) for i in range(3)]
    with pytest.raises(
        PartialBatchError, match=r"3 items saved, 1 not.*PageVersion\.html.*surrogate"
    ) as caught:
        await backend.save_versions_bulk([good[0], hostile, *good[1:]])
    assert isinstance(caught.value.failures[0][1], InvalidValueError)
    assert await backend.get_version("site", "page", "v2") == good[2]
