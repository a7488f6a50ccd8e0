"""Joins heads with their bodies: how many a request, and what happens if they change meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ragcrawl_dynamo import CorruptContentError
from ragcrawl_dynamo._content import loader, packing
from ragcrawl_dynamo._content.loader import ReadSize
from ragcrawl_dynamo._content.packing import THREAD_BYTES, Manifest
from ragcrawl_dynamo._dynamodb.values import Key
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.factories import dense_text, make_version
from tests.support.fake_content import Content, open_content

KEY = version_key("page", "v1", "site")
LARGE = dense_text(5)


async def listed(keys: Sequence[Key]) -> AsyncGenerator[Key, None]:
    for key in keys:
        yield key


def test_read_size_is_that_of_many_small_versions_or_of_few_large_ones() -> None:
    size = ReadSize()
    assert size.versions == 5
    size.note(5, 5 * 4_000)
    assert size.versions == 20
    size.note(20, 20 * 100_000)
    assert size.versions == 10
    size.note(10, 10 * 300_000)
    assert size.versions == 3
    size.note(3, 3 * 2_000_000)
    assert size.versions == 1
    # No version is there.
    size.note(1, 0)
    assert size.versions == 20


@pytest.mark.parametrize("text", ["small", LARGE])
async def test_get_reads_the_head_and_the_first_part_in_one_request(content: Content, text: str) -> None:
    version = make_version(markdown=text)
    await content.store(version)
    assert await content.versions.loader.get(KEY) == version
    (sent,) = content.stored.sent
    assert [key["page_id"]["S"] for key in sent.batch["Keys"]] == ["page", "#page"]


async def test_get_of_an_absent_version_is_none(content: Content) -> None:
    assert await content.versions.loader.get(KEY) is None


async def test_concurrent_gets_read_up_to_20_versions_a_request(content: Content) -> None:
    async with asyncio.TaskGroup() as tasks:
        for i in range(60):
            tasks.create_task(content.versions.loader.get(version_key("page", f"v{i}", "site")))
    assert max(len(sent.batch["Keys"]) for sent in content.stored.sent) == 40


async def test_load_reads_a_body_that_another_version_owns(content: Content) -> None:
    first = await content.store(make_version("v1", markdown=LARGE))
    content.stored.will_list([first])
    second = make_version("v2", markdown=LARGE)
    head = await content.store(second)
    # A part of the version's own, which it does not use.
    wrong = {**content.bodies[0], "data": {"B": b"other"}}
    assert await content.versions.loader.load(head, wrong) == second


async def test_load_uses_a_first_part_that_has_been_read(content: Content) -> None:
    version = make_version(markdown=LARGE)
    head = await content.store(version)
    assert await content.versions.loader.load(head, content.bodies[0]) == version
    assert content.stored.sent == []


async def test_load_of_a_version_that_is_deleted_meanwhile_is_none(content: Content) -> None:
    head = await content.store(make_version(markdown=LARGE))
    content.stored.items.clear()
    assert await content.versions.loader.load(head) is None


async def test_load_of_a_version_that_is_replaced_meanwhile_returns_the_new_one(content: Content) -> None:
    head = await content.store(make_version(markdown=LARGE))
    version = make_version(markdown=dense_text(6))
    await content.store(version)
    (first, _) = content.bodies
    first["data"] = {"B": b"damaged"}
    assert await content.versions.loader.load(head) == version


@pytest.mark.parametrize("damage", [{"data": {"B": b"other"}}, {"data": {"S": "text"}}])
async def test_load_of_a_damaged_body_names_the_version(content: Content, damage: dict[str, Any]) -> None:
    head = await content.store(make_version(markdown=LARGE))
    content.bodies[0].update(damage)
    with pytest.raises(CorruptContentError) as caught:
        await content.versions.loader.load(head)
    error = caught.value
    assert (error.page_id, error.version_id, error.site_id) == ("page", "v1", "site")
    assert "None" not in str(error)


@pytest.mark.parametrize("damage", [{"body": {"M": {}}}, {"content": {"B": b"other"}}, {"content": None}])
async def test_load_of_a_damaged_head_names_the_version(content: Content, damage: dict[str, Any]) -> None:
    head = {**await content.store(make_version()), **damage}
    head = {name: value for name, value in head.items() if value is not None}
    content.stored.put("versions", head)
    with pytest.raises(CorruptContentError):
        await content.versions.loader.load(head)


async def test_load_all_leaves_out_versions_that_are_deleted_meanwhile(content: Content) -> None:
    several = [make_version(f"v{i}", markdown=LARGE + str(i)) for i in range(3)]
    heads = [await content.store(version) for version in several]
    await content.versions.delete(version_key("page", "v1", "site"))
    assert await content.versions.loader.load_all(heads) == [several[0], several[2]]


async def test_iterate_returns_versions_in_the_order_of_keys_and_none_for_absent_ones(
    content: Content,
) -> None:
    several = [make_version(f"v{i}", markdown=LARGE if i % 2 else "small") for i in range(7)]
    for version in several:
        await content.store(version)
    keys = [version_key("page", f"v{i}", "site") for i in range(8)]
    versions = [version async for version in content.versions.loader.iterate(listed(keys))]
    assert versions == [*several, None]


async def test_iterate_reads_few_versions_at_first_and_then_many_small_ones(content: Content) -> None:
    keys = [version_key("page", f"v{i}", "site") for i in range(50)]
    for i in range(50):
        await content.store(make_version(f"v{i}"))
    versions = [version async for version in content.versions.loader.iterate(listed(keys))]
    assert len(versions) == 50
    sizes = [len(sent.batch["Keys"]) // 2 for sent in content.stored.sent]
    assert sizes[0] == 5
    assert sizes[-2] == 20
    assert sum(sizes) == 50


async def test_iterate_reads_large_versions_fewer_at_a_time() -> None:
    keys = [version_key("page", f"v{i}", "site") for i in range(25)]
    async with open_content(compression_level=1) as content:
        for i in range(25):
            await content.store(make_version(f"v{i}", markdown=dense_text(280, str(i))))
        assert len([version async for version in content.versions.loader.iterate(listed(keys))]) == 25
        sizes = [len(sent.batch["Keys"]) // 2 for sent in content.stored.sent]
    assert sizes[0] == 5
    assert sizes[-2] == 3


@pytest.mark.parametrize(("size", "in_loop"), [(THREAD_BYTES, True), (THREAD_BYTES + 1, False)])
async def test_large_body_is_unpacked_outside_of_the_event_loop(
    content: Content, size: int, in_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    limits = []

    def unpack(manifest: Manifest, data: bytes, *, max_bytes: int) -> Any:
        threads.append(threading.get_ident())
        limits.append(max_bytes)
        return packing.unpack(manifest, data, max_bytes=max_bytes)

    header = packing.pack(make_version(markdown="x" * 10_000), level=1, max_bytes=2**30)[0].raw_bytes - 10_000
    version = make_version(markdown="x" * (size - header))
    head = await content.store(version)
    assert Manifest.from_attribute(head["body"]).raw_bytes == size
    monkeypatch.setattr(loader, "unpack", unpack)
    assert await content.versions.loader.load(head) == version
    assert (threads == [threading.get_ident()]) is in_loop
    assert limits == [content.config.max_content_bytes]


async def test_load_of_a_body_over_the_limit_names_the_setting() -> None:
    async with open_content(max_content_bytes=2000) as content:
        head = await content.store(make_version(markdown="x" * 1000))
        manifest = replace(Manifest.from_attribute(head["body"]), raw_bytes=2001)
        head["body"] = manifest.to_attribute()
        with pytest.raises(CorruptContentError, match="max_content_bytes = 2,000"):
            await content.versions.loader.load(head)
