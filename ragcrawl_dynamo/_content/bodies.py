"""Stores bodies in parts of an item's size, beside their versions or in the content bucket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal
from uuid import uuid4

from ragcrawl_dynamo._content.body_items import (
    BodyId,
    StoredBody,
    part_items,
    pointer_items,
    used_location,
    writer_token,
)
from ragcrawl_dynamo._content.packing import ContentError, Manifest
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import BYTES_PER_BATCH, delete_all, put_all, read_all
from ragcrawl_dynamo._dynamodb.coalescing import CoalescedWrites
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    STATEMENTS_PER_BATCH,
    ConditionalInsert,
    SingleWrites,
    conditional_writes,
)
from ragcrawl_dynamo._dynamodb.expressions import Missing, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import Refused, raise_if_failed
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value
from ragcrawl_dynamo._schema.keys import body_location
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import ConditionFailedError, RequestRejectedError
from ragcrawl_dynamo.models import PageVersion

# Parts of one request. An answer may have 16 MB, but decoding so much blocks the event loop for 70 ms.
_PARTS_PER_READ = 5

# First parts of up to this size are written in batches: 25 of them fill one.
_BYTES_TOGETHER = BYTES_PER_BATCH // STATEMENTS_PER_BATCH

_NOT_CLOSED = Missing("closed")
_NO_USERS = Missing("users")
_CLOSE = Update(put={"closed": {"BOOL": True}})


class BodyStore:
    """Key `#{page_id}` / `{version_id}#{site_id}#{generation}#{number}`; "users" for the number if shared.

    A body is written once and never changed. Only the version that it was written for uses it, unless a
    `users` item lists several versions. A body is closed before it is deleted, so that no further version can
    join it.
    """

    def __init__(
        self, gateway: Gateway, table: Table[PageVersion], objects: Gateway | None, clock: Clock
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._objects = objects
        self._clock = clock
        self._single = SingleWrites(gateway, table)
        self._together = CoalescedWrites(gateway, table, conditional_writes(gateway, table))

    async def close(self) -> None:
        """Sends the requests that wait to be sent."""
        await self._together.close()

    async def write(self, head: Key, manifest: Manifest, data: bytes) -> Manifest:
        """Writes a body for a version whose head is not written yet; returns the manifest with its location.

        The first part goes first. It is listed under the site, so that a collection of garbage finds what a
        killed worker leaves. The small ones of concurrent calls go together.
        """
        token, written_at = writer_token(), self._seconds()
        object_key = self._new_object_key(len(data))

        def items(body: BodyId) -> list[Item]:
            if object_key is not None:
                return pointer_items(body, object_key, token, written_at)
            return part_items(body, data, token, written_at)

        body = BodyId.first_of(head)
        parts = items(body)
        location = None
        writes = self._together if item_size(parts[0]) <= _BYTES_TOGETHER else self._single
        (outcome,) = await writes.run([ConditionalInsert(parts[0], token)])
        raise_if_failed([outcome])
        if isinstance(outcome, Refused):
            # Another body is there: of this version as it was, or of a worker that was killed.
            location = body_location(head, str(token.value["S"]))
            parts = items(BodyId(head, location))
            await self._gateway.call("PutItem", requests.put_request(self._table, parts[0]))
        for failure in (await put_all(self._gateway, self._table, parts[1:])).values():
            raise failure
        if object_key is not None:
            await self._call_bucket("PutObject", object_key, Body=data)
        return replace(manifest, parts=len(parts), location=location, object_key=object_key)

    async def read(self, head: Key, manifest: Manifest, first: Item | None = None) -> bytes:
        """Reads a body.

        Args:
            head: Key of a version that uses it.
            manifest: The manifest of the head.
            first: The body's first part, if it has been read.

        Raises:
            ContentError: A part is missing or damaged.
        """
        if manifest.object_key is not None:
            return await self._read_object(manifest.object_key, manifest.stored_bytes)
        keys = StoredBody.of_head(head, manifest).part_keys
        parts = [first] if first is not None else []
        parts += await read_all(self._gateway, self._table, keys[len(parts) :], per_batch=_PARTS_PER_READ)
        if len(parts) != manifest.parts:
            raise ContentError(f"{manifest.parts - len(parts)} of its {manifest.parts} parts are missing")
        try:
            return b"".join(part["data"]["B"] for part in parts)
        except (KeyError, TypeError) as error:
            raise ContentError("one of its parts holds no data") from error

    async def join(self, user: Key, body: StoredBody) -> bool:
        """Adds a version to those that use a body; returns whether it was added.

        It is not added if the body is being deleted, or is gone. A join needs no token: doing it twice has
        the same effect as doing it once.

        Args:
            user: Key of the version.
            body: The body as the manifest of its first user described it.
        """
        owner = body.id.head
        both: dict[str, Value] = {"users": {"SS": [owner["version_key"]["S"], user["version_key"]["S"]]}}
        join = Update(put={"joined_at": {"N": str(self._seconds())}}, union=both)
        try:
            await self._update_users(body.id, join, _NOT_CLOSED)
        except (ConditionFailedError, RequestRejectedError):
            # The body is being deleted; or the names of its users fill an item.
            return False
        # A version is deleted head first. While its head is there, it has not left the body yet. When it
        # does, it will find the new user.
        response = await self._gateway.call("GetItem", requests.get_request(self._table, owner))
        if used_location(owner, response.get("Item", {})) == body.id.location:
            return True
        if await self._leave(body.id, both):
            await self.delete(body)
        return False

    async def release(self, user: Key, body: StoredBody) -> None:
        """Deletes the body of a version whose head is gone, unless other versions use it."""
        await self.reclaim(body, [user["version_key"]["S"]])

    async def reclaim(self, body: StoredBody, dead_users: list[str]) -> bool:
        """Deletes a body unless a version uses it; returns whether it did.

        Args:
            body: The body.
            dead_users: Sort keys of those of its users whose heads are gone.
        """
        leaving: dict[str, Value] = {"users": {"SS": dead_users}} if dead_users else {}
        closed = await self._leave(body.id, leaving)
        if closed:
            await self.delete(body)
        return closed

    async def delete(self, body: StoredBody) -> None:
        """Removes a body's object and items; last the first part, by which the others are found."""
        if body.object_key is not None:
            await self._call_bucket("DeleteObject", body.object_key)
        keys = body.part_keys
        await delete_all(self._gateway, self._table, [*keys[1:], body.id.users_key])
        await delete_all(self._gateway, self._table, keys[:1])

    async def _leave(self, body: BodyId, leaving: dict[str, Value]) -> bool:
        """Removes users from a body's list; returns whether it has no user left, and can get none."""
        # Nearly every body has no list, and so one user.
        if await self._is_updated(body, _CLOSE, _NO_USERS):
            return True
        if leaving:
            await self._is_updated(body, Update(subtract=leaving), _NOT_CLOSED)
        return await self._is_updated(body, _CLOSE, _NO_USERS)

    async def _is_updated(self, body: BodyId, update: Update, condition: Missing) -> bool:
        try:
            await self._update_users(body, update, condition)
        except ConditionFailedError:
            return False
        return True

    async def _update_users(self, body: BodyId, update: Update, condition: Missing) -> None:
        request = requests.update_request(self._table, body.users_key, update, condition)
        await self._gateway.call("UpdateItem", request)

    async def _read_object(self, object_key: str, size: int) -> bytes:
        try:
            # One byte more than there should be, so that a longer object is noticed.
            response = await self._call_bucket("GetObject", object_key, Range=f"bytes=0-{size}")
        except RequestRejectedError as error:
            if error.code in ("NoSuchKey", "InvalidRange"):
                raise ContentError(f"its object {object_key} in the bucket is missing or empty") from error
            raise
        data: bytes = response["Body"]
        return data

    async def _call_bucket(
        self, operation: Literal["PutObject", "GetObject", "DeleteObject"], key: str, **arguments: Any
    ) -> Any:
        if self._objects is None:
            raise ContentError(f"it is object {key} of a bucket, and content_bucket is not set: set it")
        bucket = self._gateway.config.content_bucket
        return await self._objects.call(operation, {"Bucket": bucket, "Key": key, **arguments})

    def _new_object_key(self, size: int) -> str | None:
        """Makes a name in the content bucket for a body that is large enough; None for a smaller one."""
        config = self._gateway.config
        if self._objects is None or size < config.content_bucket_threshold:
            return None
        return f"{config.table_prefix}bodies/{uuid4().hex}"

    def _seconds(self) -> int:
        return int(self._clock.now().timestamp())
