"""Bodies in parts and in the bucket: in which order they are written, shared and removed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ragcrawl_dynamo import RequestRejectedError
from ragcrawl_dynamo._content.body_items import BodyId, StoredBody, part_items, writer_token
from ragcrawl_dynamo._content.packing import ContentError, Manifest
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.fake_content import Content, open_content
from tests.support.fakes import client_error

HEAD = version_key("page", "v1", "site")
OTHER = version_key("page", "v2", "site")
BODY = BodyId.first_of(HEAD)

# So many bytes of a body fill three parts.
THREE_PARTS = 700_000


def described(data: bytes) -> Manifest:
    return Manifest(raw_bytes=len(data), stored_bytes=len(data), digest=bytes(32))


async def write(content: Content, data: bytes, head: Any = HEAD) -> Manifest:
    return await content.versions.bodies.write(head, described(data), data)


async def stored_body(content: Content, size: int = THREE_PARTS) -> StoredBody:
    """Writes a body, and forgets the requests."""
    manifest = await write(content, bytes(size))
    content.stored.client.requests.clear()
    return StoredBody.of_head(HEAD, manifest)


def use(content: Content, head: Any, manifest: Manifest) -> None:
    """Stores the head of a version that uses a body."""
    content.stored.put("versions", {**head, "body": manifest.to_attribute()})


def updates(content: Content) -> list[tuple[str, str]]:
    """The updates that were sent of the users of bodies, with their conditions."""
    return [
        (sent.text("Update"), sent.text("Condition"))
        for sent in content.stored.sent
        if sent.operation == "update_item"
    ]


CLOSE = ("SET closed = True", "attribute_not_exists(users)")


async def test_write_of_a_body_returns_the_manifest_of_its_parts(content: Content) -> None:
    data = bytes(THREE_PARTS)
    manifest = await write(content, data)
    assert manifest == replace(described(data), parts=3)
    assert [part["parts"] for part in content.bodies] == [{"N": "3"}] * 3
    assert content.bodies[0]["written_at"] == {"N": "1767225600"}
    assert await content.versions.bodies.read(HEAD, manifest) == data


async def test_write_of_a_body_writes_its_first_part_first(content: Content) -> None:
    await write(content, bytes(THREE_PARTS))
    first, rest = content.stored.sent
    assert first.request["Item"]["version_key"]["S"] == f"{BODY.location}00000"
    assert first.text("Condition") == "attribute_not_exists(page_id)"
    assert len(rest.batch) == 2


@pytest.mark.parametrize(("too_long", "operation"), [(0, "batch_execute_statement"), (1, "put_item")])
async def test_write_of_a_small_first_part_may_go_with_others(
    content: Content, too_long: int, operation: str
) -> None:
    (empty,) = part_items(BODY, b"x", writer_token(), 1_767_225_600)
    room = 20 * 1024 - item_size(empty) + 1
    await write(content, bytes(room + too_long))
    assert content.stored.operations == [operation]


@pytest.mark.parametrize("size", [5, THREE_PARTS])
async def test_write_leaves_a_body_that_is_there_and_stores_another_one_beside_it(
    content: Content, size: int
) -> None:
    first = await write(content, b"the first")
    second = await write(content, b"x" * size)
    assert first.location is None
    assert second.location is not None
    assert second.location.startswith("v1#site#")
    assert await content.versions.bodies.read(HEAD, first) == b"the first"
    assert await content.versions.bodies.read(HEAD, second) == b"x" * size
    third = await write(content, b"the third")
    assert third.location not in (first.location, second.location)


@pytest.mark.parametrize("operation", ["put_item", "batch_write_item"])
async def test_write_raises_if_a_part_is_not_written(content: Content, operation: str) -> None:
    def refuse(sent: str, request: Any) -> None:
        if sent == operation:
            raise client_error("ValidationException")

    content.stored.on_request = refuse
    with pytest.raises(RequestRejectedError):
        await write(content, bytes(THREE_PARTS))


@pytest.mark.parametrize("size", [4095, 4096])
async def test_write_to_the_bucket_begins_at_the_threshold(size: int) -> None:
    settings: dict[str, Any] = {
        "content_bucket": "bucket",
        "content_bucket_threshold": 4096,
        "table_prefix": "crawl_",
    }
    async with open_content(**settings) as content:
        manifest = await write(content, bytes(size))
        is_object = size == 4096
        assert list(content.stored.objects) == [manifest.object_key] * is_object
        assert (manifest.object_key or "crawl_bodies/").startswith("crawl_bodies/")
        assert manifest.parts == 1
        assert await content.versions.bodies.read(HEAD, manifest) == bytes(size)


async def test_write_to_the_bucket_stores_the_pointer_before_the_object() -> None:
    async with open_content(content_bucket="bucket", content_bucket_threshold=4096) as content:
        manifest = await write(content, bytes(5000))
        assert content.stored.operations == ["batch_execute_statement", "put_object"]
        assert content.stored.sent[1].request["Bucket"] == "bucket"
        (pointer,) = content.bodies
        assert pointer["object_key"] == {"S": manifest.object_key}
        assert pointer["data"] == {"B": b""}


async def test_read_does_not_read_a_first_part_again(content: Content) -> None:
    data = bytes(range(250)) * 2800
    manifest = await write(content, data)
    first = content.bodies[0]
    content.stored.client.requests.clear()
    assert await content.versions.bodies.read(HEAD, manifest, first) == data
    (sent,) = content.stored.sent
    keys = sent.batch["Keys"]
    assert keys == [BODY.part_key(1), BODY.part_key(2)]


async def test_read_of_many_parts_takes_five_a_request(content: Content) -> None:
    manifest = await write(content, bytes(7 * 300_000))
    content.stored.client.requests.clear()
    await content.versions.bodies.read(HEAD, manifest)
    sizes = [len(sent.batch["Keys"]) for sent in content.stored.sent]
    assert sizes == [5, 2]


async def test_read_of_a_body_that_lacks_parts_says_how_many(content: Content) -> None:
    manifest = await write(content, bytes(THREE_PARTS))
    for number in (0, 2):
        del content.stored.items["versions", "#page", f"{BODY.location}{number:05}"]
    with pytest.raises(ContentError, match="2 of its 3 parts are missing"):
        await content.versions.bodies.read(HEAD, manifest)


@pytest.mark.parametrize("change", [{"data": None}, {"data": {"S": "text"}}, {"data": {"B": "text"}}])
async def test_read_of_a_part_without_data_is_refused(content: Content, change: dict[str, Any]) -> None:
    manifest = await write(content, b"data")
    content.bodies[0].update(change)
    with pytest.raises(ContentError, match=r"^one of its parts holds no data$"):
        await content.versions.bodies.read(HEAD, manifest)


async def test_read_of_an_object_notices_that_it_is_longer() -> None:
    async with open_content(content_bucket="bucket", content_bucket_threshold=4096) as content:
        manifest = await write(content, bytes(5000))
        assert manifest.object_key is not None
        content.stored.objects[manifest.object_key] = bytes(9000)
        assert len(await content.versions.bodies.read(HEAD, manifest)) == 5001


@pytest.mark.parametrize(
    ("code", "expected", "text"),
    [
        ("NoSuchKey", ContentError, r"its object bodies/.* in the bucket is missing or empty"),
        ("InvalidRange", ContentError, r"its object bodies/.* in the bucket is missing or empty"),
        ("InvalidRequest", RequestRejectedError, r"InvalidRequest"),
    ],
)
async def test_read_of_an_absent_or_empty_object_is_damage(
    code: str, expected: type[Exception], text: str
) -> None:
    settings: dict[str, Any] = {"content_bucket": "bucket", "table_prefix": ""}
    async with open_content(content_bucket_threshold=4096, **settings) as content:
        manifest = await write(content, bytes(5000))

        def refuse(operation: str, request: Any) -> None:
            raise client_error(code)

        content.stored.on_request = refuse
        with pytest.raises(expected, match=text):
            await content.versions.bodies.read(HEAD, manifest)


async def test_read_of_an_object_without_a_bucket_names_the_setting(content: Content) -> None:
    manifest = replace(described(b"data"), parts=1, object_key="bodies/1")
    with pytest.raises(ContentError, match="content_bucket is not set"):
        await content.versions.bodies.read(HEAD, manifest)


async def test_join_lists_both_users_of_a_body_that_is_not_closed(content: Content) -> None:
    body = await stored_body(content)
    use(content, HEAD, replace(described(bytes(THREE_PARTS)), parts=3))
    content.manual_clock.advance(7)
    assert await content.versions.bodies.join(OTHER, body)
    assert updates(content) == [
        ("SET joined_at = '1767225607' ADD users ['v1#site#', 'v2#site#']", "attribute_not_exists(closed)")
    ]
    assert content.stored.sent[0].request["Key"] == BODY.users_key


@pytest.mark.parametrize("code", ["ConditionalCheckFailedException", "ValidationException"])
async def test_join_of_a_body_that_takes_no_user_has_no_effect(content: Content, code: str) -> None:
    body = await stored_body(content)

    def refuse(operation: str, request: Any) -> None:
        raise client_error(code)

    content.stored.on_request = refuse
    assert not await content.versions.bodies.join(OTHER, body)
    assert content.stored.operations == ["update_item"]
    assert len(content.bodies) == 3


@pytest.mark.parametrize("location", [None, "v1#site#0123456789ab#"])
async def test_join_of_a_body_that_its_version_has_left_deletes_it(
    content: Content, location: str | None
) -> None:
    body = await stored_body(content)
    if location is not None:
        use(content, HEAD, replace(described(b""), parts=3, location=location))
    # The body has users when it is closed for the first time, and none later.
    content.stored.refusals += [False, True, False, False]
    assert not await content.versions.bodies.join(OTHER, body)
    leave = ("DELETE users ['v1#site#', 'v2#site#']", "attribute_not_exists(closed)")
    assert updates(content)[1:] == [CLOSE, leave, CLOSE]
    assert content.bodies == []


async def test_join_of_a_body_that_its_version_has_left_leaves_it_to_others(content: Content) -> None:
    body = await stored_body(content)
    content.stored.refusals += [False, True, False, True]
    assert not await content.versions.bodies.join(OTHER, body)
    assert len(content.bodies) == 3


async def test_release_of_a_body_with_one_user_closes_and_deletes_it(content: Content) -> None:
    body = await stored_body(content)
    await content.versions.bodies.release(HEAD, body)
    assert updates(content) == [CLOSE]
    assert content.bodies == []


async def test_release_of_a_body_with_other_users_takes_the_version_off_its_list(content: Content) -> None:
    body = await stored_body(content)
    content.stored.refusals += [True, False, True]
    await content.versions.bodies.release(OTHER, body)
    leave = ("DELETE users ['v2#site#']", "attribute_not_exists(closed)")
    assert updates(content) == [CLOSE, leave, CLOSE]
    assert len(content.bodies) == 3


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_reclaim_returns_whether_the_body_was_deleted(content: Content, is_deleted: bool) -> None:
    body = await stored_body(content)
    content.stored.refusals += [True, True, not is_deleted]
    assert await content.versions.bodies.reclaim(body, ["v3#site#"]) is is_deleted
    assert len(content.bodies) == (0 if is_deleted else 3)


async def test_reclaim_without_dead_users_removes_no_user(content: Content) -> None:
    body = await stored_body(content)
    content.stored.refusals += [True, True]
    assert not await content.versions.bodies.reclaim(body, [])
    assert updates(content) == [CLOSE, CLOSE]


async def test_delete_of_a_body_removes_the_part_that_finds_the_others_last(content: Content) -> None:
    body = await stored_body(content)
    content.stored.put("versions", BODY.users_key)
    await content.versions.bodies.delete(body)
    first, last = [[write["DeleteRequest"]["Key"] for write in sent.batch] for sent in content.stored.sent]
    assert first == [BODY.part_key(1), BODY.part_key(2), BODY.users_key]
    assert last == [BODY.part_key(0)]


async def test_delete_of_a_body_in_the_bucket_removes_its_object_first() -> None:
    async with open_content(content_bucket="bucket", content_bucket_threshold=4096) as content:
        body = await stored_body(content, 5000)
        await content.versions.bodies.delete(body)
        assert content.stored.operations == ["delete_object", "batch_write_item", "batch_write_item"]
        assert content.stored.objects == {}
        assert content.bodies == []
