"""Bodies of versions in parts of an item's size: written before the head, read with it, shared, released."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal
from uuid import uuid4

from ragcrawl_dynamo._content.packing import ContentError, Manifest
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import delete_all, put_all, read_all
from ragcrawl_dynamo._dynamodb.expressions import Missing, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES, item_size
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value
from ragcrawl_dynamo._schema.keys import FIRST_PLACE, body_part_key, body_place, body_users_key, site_entry
from ragcrawl_dynamo.errors import ConditionFailedError, RequestRejectedError
from ragcrawl_dynamo.models import PageVersion

# Parts of one request: an answer has 16 MB at most.
_PARTS_PER_READ = 40

_FREE = Missing("page_id")
_NOT_CLOSED = Missing("closed")
_NO_USERS = Missing("users")


class BodyStore:
    """Key `#{page_id}` / `{version_id}#{site_id}#{generation}#{number}`; `users` for the number where shared.

    A body is written once and never changed. Only the version that it was written for uses it, unless a
    `users` item lists several. Who deletes it closes that item first, so that none can join any more.
    """

    def __init__(self, gateway: Gateway, table: Table[PageVersion], objects: Gateway | None) -> None:
        self._gateway = gateway
        self._table = table
        self._objects = objects

    async def write(self, head: Key, manifest: Manifest, data: bytes) -> Manifest:
        """Writes a body for a version whose head is still to be written; returns where it is.

        The first part goes first: it is listed under the site, so that a clean-up finds what a killed
        worker leaves. A body in the content bucket has one part, which names its object.
        """
        place = body_place(head)
        # As short as it may be: a part's own attributes cost a write unit for every fifth body.
        writer = uuid4().hex[:12]
        object_key = self._object_key(len(data))
        parts = self._parts(head, place, writer, data, object_key)
        try:
            await self._gateway.call("PutItem", requests.put_request(self._table, parts[0], _FREE))
        except ConditionFailedError as error:
            if (error.item or {}).get("writer") != {"S": writer}:
                # Another body is there: of this version as it was, or of a worker that was killed.
                place = body_place(head, writer)
                parts = self._parts(head, place, writer, data, object_key)
                await self._gateway.call("PutItem", requests.put_request(self._table, parts[0]))
        for failure in (await put_all(self._gateway, self._table, parts[1:])).values():
            raise failure
        if object_key is not None:
            await self._object("PutObject", object_key, Body=data)
        own = None if place == body_place(head) else place
        return replace(manifest, parts=len(parts), place=own, object_key=object_key)

    async def read(self, head: Key, manifest: Manifest, first: Item | None = None) -> bytes:
        """A body's bytes; `first` is its first part, if that has been read.

        Raises:
            ContentError: A part is missing or damaged.
        """
        if manifest.object_key is not None:
            return await self._read_object(manifest)
        place = place_of(head, manifest)
        keys = [body_part_key(head, place, number) for number in range(manifest.parts)]
        read_already = [first] if first is not None else []
        rest = await read_all(
            self._gateway, self._table, keys[len(read_already) :], per_batch=_PARTS_PER_READ
        )
        parts = [*read_already, *rest]
        if len(parts) != manifest.parts:
            raise ContentError(f"{len(parts)} of {manifest.parts} parts are there")
        try:
            return b"".join(part["data"]["B"] for part in parts)
        except (KeyError, TypeError) as error:
            raise ContentError("a part holds no data") from error

    async def share(self, user: Key, owner: Key, manifest: Manifest) -> bool:
        """Makes `user` one of those who use the body of `owner`, whose manifest was read before.

        Returns:
            Whether it may: not if the body is being deleted, or was.
        """
        place = place_of(owner, manifest)
        users = body_users_key(owner, place)
        both: dict[str, Value] = {"users": {"SS": [owner["version_key"]["S"], user["version_key"]["S"]]}}
        now: Value = {"N": str(int(time.time()))}
        try:
            join = Update(put={"joined_at": now}, union=both)
            await self._gateway.call(
                "UpdateItem", requests.update_request(self._table, users, join, _NOT_CLOSED)
            )
        except (ConditionFailedError, RequestRejectedError):
            # Being deleted; or so many users that their names fill an item.
            return False
        # Deleting a version begins with its head. While that is there, its owner's leaving is still to come,
        # and will find the new user.
        response = await self._gateway.call("GetItem", requests.get_request(self._table, owner))
        if used_place(owner, response.get("Item", {})) == place:
            return True
        if await self._leave(users, both):
            await self.delete(owner, place, manifest.parts, manifest.object_key)
        return False

    async def release(self, user: Key, manifest: Manifest) -> None:
        """Deletes a body, unless other versions use it. The head of `user` must be gone."""
        place = place_of(user, manifest)
        users = body_users_key(user, place)
        leaving: dict[str, Value] = {"users": {"SS": [user["version_key"]["S"]]}}
        if await self._leave(users, leaving):
            await self.delete(user, place, manifest.parts, manifest.object_key)

    async def reclaim(
        self, head: Key, place: str, parts: int, object_key: str | None, dead_users: list[str]
    ) -> bool:
        """Deletes a body that no head uses, given those of its users that are dead; whether it did."""
        users = body_users_key(head, place)
        leaving: dict[str, Value] = {"users": {"SS": dead_users}} if dead_users else {}
        if closed := await self._leave(users, leaving):
            await self.delete(head, place, parts, object_key)
        return closed

    def write_units(self, head: Key, manifest: Manifest) -> int:
        """Write capacity units that the parts of a body took, without their entry in an index."""
        writer = "0" * 12
        data = bytes(manifest.stored_bytes)
        parts = self._parts(head, place_of(head, manifest), writer, data, manifest.object_key)
        return sum(-(-item_size(part) // 1024) for part in parts)

    async def delete(self, head: Key, place: str, parts: int, object_key: str | None) -> None:
        """Removes a body's object and items; the first part, by which the others are found, last."""
        if object_key is not None:
            await self._object("DeleteObject", object_key)
        keys = [body_part_key(head, place, number) for number in range(parts)]
        await delete_all(self._gateway, self._table, [*keys[1:], body_users_key(head, place)])
        await delete_all(self._gateway, self._table, keys[:1])

    async def _leave(self, users: Key, leaving: dict[str, Value]) -> bool:
        """Takes users off a body's list; whether the body is nobody's now, and closed to newcomers."""
        for update, condition in (
            # Nearly every body has no list, and so one user.
            (Update(put={"closed": {"BOOL": True}}), _NO_USERS),
            (Update(subtract=leaving), _NOT_CLOSED),
            (Update(put={"closed": {"BOOL": True}}), _NO_USERS),
        ):
            if not update.put and not update.subtract:
                continue
            closing = bool(update.put)
            try:
                request = requests.update_request(self._table, users, update, condition)
                await self._gateway.call("UpdateItem", request)
            except ConditionFailedError:
                continue
            if closing:
                return True
        return False

    async def _read_object(self, manifest: Manifest) -> bytes:
        # One byte more than there should be, so that a longer object is noticed.
        size = f"bytes=0-{manifest.stored_bytes}"
        try:
            response = await self._object("GetObject", str(manifest.object_key), Range=size)
        except RequestRejectedError as error:
            if error.code in ("NoSuchKey", "InvalidRange"):
                raise ContentError(f"its object {manifest.object_key} is missing or empty") from error
            raise
        data: bytes = response["Body"]
        return data

    async def _object(
        self, operation: Literal["PutObject", "GetObject", "DeleteObject"], key: str, **arguments: Any
    ) -> Any:
        if self._objects is None:
            raise ContentError(f"it is object {key} of a bucket, and content_bucket is not set")
        bucket = self._gateway.config.content_bucket
        return await self._objects.call(operation, {"Bucket": bucket, "Key": key, **arguments})

    def _object_key(self, size: int) -> str | None:
        """A new name in the content bucket for a body that is large enough."""
        config = self._gateway.config
        if self._objects is None or size < config.content_bucket_threshold:
            return None
        return f"{config.table_prefix}bodies/{uuid4().hex}"

    def _parts(self, head: Key, place: str, writer: str, data: bytes, object_key: str | None) -> list[Item]:
        """The items of a body."""
        written_at: Value = {"N": str(int(time.time()))}
        if object_key is not None:
            pointer = self._part(head, place, 0, b"", writer, written_at, 1)
            return [{**pointer, "object_key": {"S": object_key}}]
        empty = self._part(head, place, 0, b"", writer, written_at, 0)
        # moto counts bytes by their base64 text, a third longer. Write units are the same either way.
        room = (MAX_ITEM_BYTES - item_size(empty)) * 3 // 4 - 3
        count = -(-len(data) // room)
        return [
            self._part(
                head, place, number, data[number * room : (number + 1) * room], writer, written_at, count
            )
            for number in range(count)
        ]

    def _part(
        self, head: Key, place: str, number: int, data: bytes, writer: str, written_at: Value, count: int
    ) -> Item:
        item: Item = {
            **body_part_key(head, place, number),
            "data": {"B": data},
            "writer": {"S": writer},
            "written_at": written_at,
            "parts": {"N": str(count)},
        }
        return {**item, **site_entry(head)} if number == 0 else item


def place_of(head: Key, manifest: Manifest) -> str:
    """Where the parts of a version's body are."""
    return manifest.place or body_place(head, FIRST_PLACE)


def used_place(head: Key, item: Item) -> str | None:
    """Where the body of a stored head is; None for a head that is absent, or needs no parts."""
    try:
        manifest = Manifest.from_attribute(item["body"])
    except (KeyError, ContentError):
        return None
    return place_of(head, manifest) if manifest.parts else None
