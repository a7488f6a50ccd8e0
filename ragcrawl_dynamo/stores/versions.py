"""Page versions: by key, newest first with or without bodies, and all of a site to remove them."""

from __future__ import annotations

from collections.abc import Iterable

from ragcrawl_dynamo import _requests as requests
from ragcrawl_dynamo._batching import delete_all, save_all
from ragcrawl_dynamo._codec import Item, from_item, to_item
from ragcrawl_dynamo._expressions import BeginsWith, Contains
from ragcrawl_dynamo._gateway import Gateway
from ragcrawl_dynamo._keys import page_partition, site_partition, version_key, version_prefix, version_suffix
from ragcrawl_dynamo._paging import Slice, read_slice, read_slice_by_index
from ragcrawl_dynamo._requests import Query
from ragcrawl_dynamo._tables import Table
from ragcrawl_dynamo.errors import AmbiguousIdError
from ragcrawl_dynamo.models import PageVersion

BODY_FIELDS = frozenset({"markdown", "html", "plain_text"})

# page_id is part of the primary key, which is always returned.
_FIELDS_BUT_BODY = sorted(PageVersion.model_fields.keys() - BODY_FIELDS - {"page_id"})


class VersionStore:
    """Key `{page_id}` / `{version_id}#{site_id}#`; by_crawled_at orders by time, by_site serves deletion."""

    def __init__(self, gateway: Gateway, table: Table[PageVersion]) -> None:
        self._gateway = gateway
        self._table = table

    async def save(self, version: PageVersion) -> None:
        """Writes a version over whatever is there."""
        await self._gateway.call("PutItem", requests.put_request(self._table, to_item(self._table, version)))

    async def save_bulk(self, versions: Iterable[PageVersion]) -> int:
        """Writes versions in batches; see `save_all`."""
        return await save_all(self._gateway, self._table, versions)

    async def get(self, page_id: str, version_id: str, site_id: str | None) -> PageVersion | None:
        """One version by key; strongly consistent with and without its site."""
        if site_id is not None:
            key = version_key(page_id, version_id, site_id)
            response = await self._gateway.call("GetItem", requests.get_request(self._table, key))
            return self._decode(response["Item"]) if "Item" in response else None
        prefix = BeginsWith("version_key", {"S": version_prefix(version_id)})
        query = Query(self._table, page_partition(page_id), sort=prefix)
        page = await self._gateway.call("Query", requests.query_request(query, limit=2))
        if len(page["Items"]) > 1:
            raise AmbiguousIdError(
                f"version_id {version_id!r} of page {page_id!r} is in use in several sites: pass site_id"
            )
        return self._decode(page["Items"][0]) if page["Items"] else None

    async def listing(
        self, page_id: str, limit: int, cursor: str | None, include_content: bool, site_id: str | None
    ) -> Slice[PageVersion]:
        """A page's versions, newest first; strongly consistent."""
        query = Query(
            self._table,
            page_partition(page_id),
            index="by_crawled_at",
            filter=None if site_id is None else Contains("version_key", {"S": version_suffix(site_id)}),
            forward=False,
        )
        attributes = None if include_content else _FIELDS_BUT_BODY
        return await read_slice_by_index(
            self._gateway, query, self._decode, limit=limit, cursor=cursor, attributes=attributes
        )

    async def delete_of_site(self, site_id: str) -> int:
        """Removes all versions of a site that by_site shows (eventually consistent), and no other site's."""
        query = Query(
            self._table,
            site_partition(site_id),
            index="by_site",
            attributes=self._table.primary_key,
        )
        removed = 0
        cursor: str | None = None
        while True:
            keys = await read_slice(self._gateway, query, lambda key: key, limit=1000, cursor=cursor)
            removed += await delete_all(self._gateway, self._table, keys)
            if (cursor := keys.cursor) is None:
                return removed

    def _decode(self, item: Item) -> PageVersion:
        return from_item(self._table, item)
