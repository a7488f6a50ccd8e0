"""Stores datasets: each item is a page of the dataset's site, and its fields are the version of this page."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from crawlee.storage_clients._base import DatasetClient
from crawlee.storage_clients.models import DatasetItemsListPage, DatasetMetadata
from typing_extensions import override

from ragcrawl_dynamo import InvalidArgumentError, Page, PageVersion
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.adapters._slices import closing, sliced
from ragcrawl_dynamo.adapters.crawlee.collection import Collection
from ragcrawl_dynamo.adapters.crawlee.serialization import to_bytes, to_json

logger: logging.Logger = logging.getLogger(__name__)

# Items of one call that are committed at a time.
_COMMITS_AT_ONCE = 16

# Fields of an item that are stored in the version's field of the same name, if they are text, because readers
# of pages expect them there.
_VERSION_FIELDS = ("markdown", "html")

# The version of an item without a key, which has only one.
_ONLY_VERSION = "item"


class DynamoDBDatasetClient(DatasetClient):
    """A dataset. Its items are listed in the order in which they were pushed, unless they have a key."""

    def __init__(self, collection: Collection, item_key: str | None) -> None:
        self._collection = collection
        self._item_key = item_key
        self._latest_push = 0

    @override
    async def get_metadata(self) -> DatasetMetadata:
        """Returns the metadata. It reads all pages, to count the items."""
        return DatasetMetadata(item_count=await self._count(), **self._collection.metadata())

    @override
    async def drop(self) -> None:
        await self._collection.drop()

    @override
    async def purge(self) -> None:
        await self._collection.purge()

    @override
    async def push_data(self, data: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
        """Stores one item or several.

        Raises:
            InvalidArgumentError: An item is not a mapping, is not JSON, or lacks the `item_key`.
            PartialBatchError: Some items were not stored; all others were.
        """
        items = [data] if isinstance(data, Mapping) else list(data)
        records = [self._record(item) for item in items]
        await self._collection.prepare_write()
        backend = self._collection.backend
        if self._item_key is not None:
            await gather_bounded(self._commit, records, _COMMITS_AT_ONCE)
        else:
            await backend.save_versions_bulk([version for _, version in records], keep_unchanged=True)
            await backend.save_pages_bulk([page for page, _ in records])
        self._collection.times.note_change()

    @override
    async def get_data(
        self,
        *,
        offset: int = 0,
        limit: int | None = 999_999_999_999,
        clean: bool = False,
        desc: bool = False,
        fields: list[str] | None = None,
        omit: list[str] | None = None,
        unwind: list[str] | None = None,
        skip_empty: bool = False,
        skip_hidden: bool = False,
        flatten: list[str] | None = None,
        view: str | None = None,
    ) -> DatasetItemsListPage:
        """Returns a list of items. Of the filters it supports `skip_empty`."""
        _warn_unsupported(
            clean=clean,
            fields=fields,
            omit=omit,
            unwind=unwind,
            skip_hidden=skip_hidden,
            flatten=flatten,
            view=view,
        )
        total = await self._count()
        selection = self.iterate_items(offset=offset, limit=limit, desc=desc, skip_empty=skip_empty)
        items = [dict(item) async for item in selection]
        return DatasetItemsListPage(
            count=len(items),
            offset=offset,
            limit=limit or max(0, total - offset),
            total=total,
            desc=desc,
            items=items,
        )

    @override
    async def iterate_items(
        self,
        *,
        offset: int = 0,
        limit: int | None = None,
        clean: bool = False,
        desc: bool = False,
        fields: list[str] | None = None,
        omit: list[str] | None = None,
        unwind: list[str] | None = None,
        skip_empty: bool = False,
        skip_hidden: bool = False,
    ) -> AsyncIterator[Mapping[str, Any]]:
        """Yields items. It also reads the pages before the offset, and all pages with `desc`."""
        _warn_unsupported(clean=clean, fields=fields, omit=omit, unwind=unwind, skip_hidden=skip_hidden)
        self._collection.times.note_access()
        pages = self._pages(offset, limit, desc=desc)
        async with aclosing(self._collection.versions(pages)) as versions:
            async for version in versions:
                item = _item_of(version)
                if item or not skip_empty:
                    yield item

    async def _count(self) -> int:
        return await self._collection.backend.count_pages(self._collection.site_id)

    async def _pages(self, offset: int, limit: int | None, *, desc: bool) -> AsyncIterator[Page]:
        if desc:
            pages = [page async for page in self._collection.pages()]
            pages.reverse()
            for page in pages[offset : None if limit is None else offset + limit]:
                yield page
            return
        async with closing(sliced(self._collection.pages(), offset, limit)) as selection:
            async for page in selection:
                yield page

    async def _commit(self, record: tuple[Page, PageVersion]) -> None:
        await self._collection.backend.commit_page(*record)

    def _record(self, item: Any) -> tuple[Page, PageVersion]:
        """Returns an item as a page and its version."""
        if not isinstance(item, Mapping):
            raise InvalidArgumentError("data", f"an item must be a mapping, not {type(item).__name__}")
        text = to_json("data", item)
        content_hash = hashlib.sha256(to_bytes(text)).hexdigest()
        page_id, version_id = self._ids(item, content_hash)
        content = {name: item[name] for name in _VERSION_FIELDS if isinstance(item.get(name), str)}
        rest = {name: value for name, value in item.items() if name not in content}
        url = item.get("url")
        site_id = self._collection.site_id
        version = PageVersion(
            version_id=version_id,
            page_id=page_id,
            site_id=site_id,
            run_id=site_id,
            markdown=content.get("markdown", ""),
            html=content.get("html"),
            plain_text=to_json("data", rest),
            content_hash=content_hash,
            url=url if isinstance(url, str) and url else f"crawlee:{page_id}",
            content_type="application/json",
            status_code=200,
            char_count=len(text),
            extra={"own": list(content)},
        )
        page = Page(
            page_id=page_id,
            site_id=site_id,
            url=version.url,
            current_version_id=version_id,
            content_hash=content_hash,
            status_code=200,
            version_count=1,
        )
        return page, version

    def _ids(self, item: Mapping[str, Any], content_hash: str) -> tuple[str, str]:
        """Returns the ids of an item's page and version."""
        if self._item_key is None:
            # Pages are listed by id: later items sort after earlier ones, also within one call.
            self._latest_push = max(time.time_ns(), self._latest_push + 1)
            return f"{self._latest_push:016x}-{secrets.token_hex(4)}", _ONLY_VERSION
        key = item.get(self._item_key)
        if key is None:
            raise InvalidArgumentError(
                "data", f"an item has no {self._item_key!r}, the item_key of this dataset: set it"
            )
        return hashlib.sha256(to_bytes(to_json("data", key))).hexdigest()[:32], content_hash[:32]


def _item_of(version: PageVersion) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(version.plain_text or "{}")
    version_fields = version.extra.get("own")
    for name in version_fields if isinstance(version_fields, list) else ():
        item[str(name)] = getattr(version, str(name))
    return item


def _warn_unsupported(**options: object) -> None:
    names = [name for name, value in options.items() if value not in (False, None)]
    if names:
        logger.warning("these options are not supported and were ignored: %s", ", ".join(names))
