"""Stores key-value stores: a key is the id of a page of the store's site, its value is the page's version."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from crawlee._utils.file import infer_mime_type
from crawlee.storage_clients._base import KeyValueStoreClient
from crawlee.storage_clients.models import (
    KeyValueStoreMetadata,
    KeyValueStoreRecord,
    KeyValueStoreRecordMetadata,
)
from typing_extensions import override

from ragcrawl_dynamo import Page, PageVersion
from ragcrawl_dynamo.adapters._slices import closing
from ragcrawl_dynamo.adapters.crawlee.collection import Collection
from ragcrawl_dynamo.adapters.crawlee.crawler_state import CrawlerState
from ragcrawl_dynamo.adapters.crawlee.serialization import to_bytes, to_json

# The version of each page: a new value replaces the one before.
_VERSION = "value"


class DynamoDBKeyValueStoreClient(KeyValueStoreClient):
    """A key-value store. Its values can have any size."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._state = CrawlerState(collection.site_id)

    @override
    async def get_metadata(self) -> KeyValueStoreMetadata:
        return KeyValueStoreMetadata(**self._collection.metadata())

    @override
    async def drop(self) -> None:
        await self._collection.drop()

    @override
    async def purge(self) -> None:
        await self._collection.purge()

    @override
    async def get_value(self, *, key: str) -> KeyValueStoreRecord[Any] | None:
        self._collection.times.note_access()
        version = await self._read(key)
        self._state.note(key, None if version is None else version.content_hash)
        return None if version is None else _record_of(version)

    @override
    async def set_value(self, *, key: str, value: Any, content_type: str | None = None) -> None:
        """Stores a value. Crawlee's own state is not stored if another process has stored its own meanwhile.

        Raises:
            InvalidArgumentError: The value is neither bytes nor text, and is not JSON.
            InvalidKeyError: The key is too long.
        """
        encoded = _encode(value, content_type)
        if self._state.has(key):
            version = await self._read(key)
            if version is not None and not self._state.is_own(key, version.content_hash):
                return
            self._state.note(key, encoded.content_hash)
        await self._save(key, encoded)

    @override
    async def delete_value(self, *, key: str) -> None:
        if await self.record_exists(key=key):
            await self._save(key, _EncodedValue("json", "null", 0, ""), is_deleted=True)

    @override
    async def iterate_keys(
        self, *, exclusive_start_key: str | None = None, limit: int | None = None
    ) -> AsyncIterator[KeyValueStoreRecordMetadata]:
        """Yields keys. It reads the values too, because their sizes and types are stored with them."""
        async for record in self.iterate_entries(exclusive_start_key=exclusive_start_key, limit=limit):
            yield KeyValueStoreRecordMetadata(
                key=record.key, content_type=record.content_type, size=record.size
            )

    @override
    async def iterate_entries(
        self, *, exclusive_start_key: str | None = None, limit: int | None = None
    ) -> AsyncIterator[KeyValueStoreRecord[Any]]:
        self._collection.times.note_access()
        if limit == 0:
            return
        count = 0
        pages = self._pages_after(exclusive_start_key)
        async with aclosing(self._collection.versions(pages)) as versions:
            async for version in versions:
                if version.is_tombstone:
                    continue
                yield _record_of(version)
                count += 1
                if count == limit:
                    return

    @override
    async def get_public_url(self, *, key: str) -> str:
        """Raises NotImplementedError.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a value in DynamoDB has no public URL")

    @override
    async def record_exists(self, *, key: str) -> bool:
        self._collection.times.note_access()
        versions = await self._collection.backend.list_versions(
            self._collection.site_id, key, limit=1, include_content=False
        )
        return any(not version.is_tombstone for version in versions)

    async def _read(self, key: str) -> PageVersion | None:
        version = await self._collection.backend.get_version(self._collection.site_id, key, _VERSION)
        return None if version is None or version.is_tombstone else version

    async def _pages_after(self, key: str | None) -> AsyncIterator[Page]:
        async with closing(self._collection.pages()) as pages:
            async for page in pages:
                if key is None or page.page_id > key:
                    yield page

    async def _save(self, key: str, value: _EncodedValue, *, is_deleted: bool = False) -> None:
        await self._collection.prepare_write()
        site_id = self._collection.site_id
        version = PageVersion(
            version_id=_VERSION,
            page_id=key,
            site_id=site_id,
            run_id=site_id,
            plain_text=value.text,
            content_hash=value.content_hash,
            url=f"crawlee:{key}",
            content_type=value.content_type,
            status_code=200,
            char_count=value.size,
            is_tombstone=is_deleted,
            extra={"kind": value.kind},
        )
        page = Page(
            page_id=key,
            site_id=site_id,
            url=version.url,
            current_version_id=_VERSION,
            is_tombstone=is_deleted,
        )
        await self._collection.backend.save_version(version, keep_unchanged=True)
        await self._collection.backend.save_page(page)
        self._collection.times.note_change()


@dataclass(frozen=True, slots=True)
class _EncodedValue:
    """A value as text.

    Attributes:
        kind: Whether the text is the value itself, its JSON, or its bytes in base64.
        text: The text.
        size: Bytes of the value.
        content_type: The media type of the value.
    """

    kind: Literal["bytes", "text", "json"]
    text: str
    size: int
    content_type: str

    @property
    def content_hash(self) -> str:
        """The hash of the text."""
        return hashlib.sha256(to_bytes(self.text)).hexdigest()


def _encode(value: Any, content_type: str | None) -> _EncodedValue:
    content_type = content_type or infer_mime_type(value)
    if isinstance(value, bytes | bytearray):
        return _EncodedValue("bytes", base64.b64encode(value).decode(), len(value), content_type)
    if isinstance(value, str):
        return _EncodedValue("text", value, len(to_bytes(value)), content_type)
    text = to_json("value", value)
    return _EncodedValue("json", text, len(to_bytes(text)), content_type)


def _record_of(version: PageVersion) -> KeyValueStoreRecord[Any]:
    text = version.plain_text or ""
    kind = version.extra.get("kind")
    value: Any = text
    if kind == "bytes":
        value = base64.b64decode(text)
    elif kind == "json":
        value = json.loads(text)
    return KeyValueStoreRecord(
        key=version.page_id,
        content_type=version.content_type or "",
        size=version.char_count,
        value=value,
    )
