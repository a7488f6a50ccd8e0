"""Which bodies are garbage, and how a site's versions are removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ragcrawl_dynamo import GarbageReport, InvalidArgumentError, MassDeletionError
from ragcrawl_dynamo._content.body_items import BodyId, part_items, writer_token
from ragcrawl_dynamo._content.packing import Manifest
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.factories import START, dense_text, make_version
from tests.support.fake_content import Content

HOUR = 3600
NOW = int(START.timestamp())
KEY = version_key("page", "v1", "site")
BODY = BodyId.first_of(KEY)


def manifest(location: str | None = None) -> Any:
    return Manifest(4, 4, bytes(32), 1, location).to_attribute()


def put_body(content: Content, body: BodyId = BODY, size: int = 4, written_at: int = NOW) -> None:
    for part in part_items(body, bytes(size), writer_token(), written_at):
        content.stored.put("versions", part)


def put_head(content: Content, key: Any, location: str | None = None) -> None:
    content.stored.put("versions", {**key, "body": manifest(location)})


def put_users(content: Content, names: Iterable[str], **attributes: Any) -> None:
    content.stored.put("versions", {**BODY.users_key, "users": {"SS": list(names)}, **attributes})


async def collect(content: Content, *bodies: BodyId, **options: Any) -> GarbageReport:
    """Collects garbage in a site whose index lists some bodies, with no grace time by default."""
    if not content.stored.answers:
        content.stored.will_list_site([body.part_key(0) for body in bodies or (BODY,)])
    arguments = {"grace_hours": 0, "dry_run": False, "allow_mass_deletion": False, **options}
    return await content.garbage.collect("site", **arguments)


async def test_body_without_its_version_is_garbage(content: Content) -> None:
    put_body(content, size=700_000)
    assert await collect(content) == GarbageReport(1, 1, 3, dry_run=False)
    assert content.stored.of("versions") == []


async def test_body_of_its_version_is_no_garbage(content: Content) -> None:
    put_body(content)
    put_head(content, KEY)
    assert await collect(content) == GarbageReport(1, 0, 0, dry_run=False)
    assert len(content.bodies) == 1


async def test_body_whose_version_has_another_one_is_garbage(content: Content) -> None:
    other = BodyId(KEY, "v1#site#0123456789ab#")
    put_body(content)
    put_body(content, other)
    put_head(content, KEY, other.location)
    assert await collect(content, BODY, other) == GarbageReport(2, 1, 1, dry_run=False)
    assert [part["version_key"]["S"] for part in content.bodies] == [f"{other.location}00000"]


@pytest.mark.parametrize(("seconds", "removed"), [(2 * HOUR - 1, 0), (2 * HOUR, 1)])
async def test_body_is_garbage_after_its_grace_time(content: Content, seconds: int, removed: int) -> None:
    put_body(content)
    content.manual_clock.advance(seconds)
    assert (await collect(content, grace_hours=2)).bodies_removed == removed
    assert len(content.bodies) == 1 - removed


@pytest.mark.parametrize(("seconds", "removed"), [(2 * HOUR - 1, 0), (2 * HOUR, 1)])
async def test_body_that_was_joined_is_garbage_after_a_grace_time(
    content: Content, seconds: int, removed: int
) -> None:
    put_body(content, written_at=0)
    put_users(content, ["v2#site#"], joined_at={"N": str(NOW)})
    content.manual_clock.advance(seconds)
    content.stored.refusals += [True, False, False]
    assert (await collect(content, grace_hours=2)).bodies_removed == removed


async def test_body_with_a_living_user_is_no_garbage(content: Content) -> None:
    put_body(content)
    put_head(content, version_key("page", "v3", "site"), BODY.location)
    put_users(content, ["v2#site#", "v3#site#"])
    assert await collect(content) == GarbageReport(1, 0, 0, dry_run=False)


async def test_body_is_closed_after_its_dead_users_have_left(content: Content) -> None:
    put_body(content)
    # This one has a body of its own by now.
    put_head(content, version_key("page", "v3", "site"))
    put_users(content, ["v2#site#", "v3#site#"])
    content.stored.refusals += [True, False, False]
    assert (await collect(content)).bodies_removed == 1
    texts = [sent.text("Update") for sent in content.stored.sent if sent.operation == "update_item"]
    assert texts[1] == "DELETE users ['v2#site#', 'v3#site#']"


async def test_body_that_a_version_joins_meanwhile_is_no_garbage(content: Content) -> None:
    put_body(content)
    looks: list[str] = []

    def join(operation: str, request: Any) -> None:
        looks.append(operation)
        if looks.count("get_item") == 2:
            put_users(content, ["v2#site#"], joined_at={"N": str(NOW + 1)})

    content.stored.on_request = join
    assert await collect(content) == GarbageReport(1, 0, 0, dry_run=False)
    assert "update_item" not in content.stored.operations


async def test_body_that_cannot_be_closed_is_not_counted(content: Content) -> None:
    put_body(content)
    content.stored.refusals += [True, True]
    assert await collect(content) == GarbageReport(1, 0, 0, dry_run=False)
    assert len(content.bodies) == 1


async def test_collection_counts_what_it_removed(content: Content) -> None:
    bodies = [BodyId.first_of(version_key("page", f"v{i}", "site")) for i in range(5)]
    for i, body in enumerate(bodies):
        put_body(content, body, size=400_000 if i else 4)
    put_head(content, bodies[4].head)
    report = await collect(content, *bodies, dry_run=True)
    assert report == GarbageReport(5, 4, 7, dry_run=True)
    assert len(content.bodies) == 9
    assert {"batch_write_item", "update_item"}.isdisjoint(content.stored.operations)
    # The index lists a body a little longer than it is there.
    gone = BodyId.first_of(version_key("page", "gone", "site"))
    assert await collect(content, *bodies, gone) == GarbageReport(6, 4, 7, dry_run=False)


async def test_collection_goes_through_all_chunks_of_the_listing(content: Content) -> None:
    bodies = [BodyId.first_of(version_key("page", f"v{i}", "site")) for i in range(150)]
    for body in (bodies[0], bodies[149]):
        put_body(content, body)
    assert await collect(content, *bodies) == GarbageReport(150, 2, 2, dry_run=False)


@pytest.mark.parametrize(
    ("garbage", "used", "allowed", "is_refused"),
    [(100, 0, False, False), (101, 0, False, True), (101, 0, True, False), (101, 101, False, False)],
)
async def test_collection_of_most_bodies_of_a_site_needs_permission(
    content: Content, garbage: int, used: int, allowed: bool, is_refused: bool
) -> None:
    bodies = [BodyId.first_of(version_key("page", f"v{i}", "site")) for i in range(garbage + used)]
    for i, body in enumerate(bodies):
        put_body(content, body)
        if i >= garbage:
            put_head(content, body.head)
    if not is_refused:
        assert (await collect(content, *bodies, allow_mass_deletion=allowed)).bodies_removed == garbage
        return
    with pytest.raises(MassDeletionError, match=r"\bbodies\b") as caught:
        await collect(content, *bodies, allow_mass_deletion=allowed)
    assert (caught.value.deleted, caught.value.total) == (garbage, garbage)
    assert len(content.bodies) == garbage


@pytest.mark.parametrize("grace_hours", [-0.1, float("nan"), "1", None])
async def test_collection_refuses_a_grace_time_that_makes_no_sense(
    content: Content, grace_hours: Any
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^grace_hours: "):
        await collect(content, grace_hours=grace_hours)
    assert content.stored.sent == []


@pytest.mark.parametrize("grace_hours", [0, 0.5, 1])
async def test_collection_takes_whole_and_broken_hours(content: Content, grace_hours: float) -> None:
    assert await collect(content, grace_hours=grace_hours) == GarbageReport(1, 0, 0, dry_run=False)


async def test_deletion_of_a_site_removes_heads_before_bodies(content: Content) -> None:
    large, small = make_version("v1", markdown=dense_text(5)), make_version("v2")
    await content.store(large)
    await content.store(small)
    (part,) = content.bodies
    content.stored.will_list_site([part, version_key("page", "v2", "site")])
    assert await content.garbage.delete_of_site("site") == 2
    deleted = [
        [write["DeleteRequest"]["Key"]["version_key"]["S"] for write in sent.batch]
        for sent in content.stored.sent
        if sent.operation == "batch_write_item"
    ]
    assert deleted[0] == ["v1#site#", "v2#site#"]
    assert deleted[-1] == ["v1#site#0#00000"]
    assert content.stored.of("versions") == []


async def test_deletion_of_a_site_counts_all_chunks_of_the_listing(content: Content) -> None:
    keys = [version_key("page", f"v{i}", "site") for i in range(250)]
    content.stored.will_list_site(keys)
    assert await content.garbage.delete_of_site("site") == 250
