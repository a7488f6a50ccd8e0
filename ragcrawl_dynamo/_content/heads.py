"""Reads the heads of versions without their bodies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ragcrawl_dynamo._content.body_items import manifest_of, used_location
from ragcrawl_dynamo._content.packing import Manifest
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import KeyValues, key_values, read_all
from ragcrawl_dynamo._dynamodb.expressions import AllOf, Compare, Condition
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import Slice, read_newest
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._schema.keys import page_partition, site_partition, version_ids
from ragcrawl_dynamo.models import CONTENT_FIELDS, PageVersion

# Heads of a page that are searched for an equal body.
_HEADS_COMPARED = 50

# More versions than a page can have.
_ALL = 1_000_000

_FIELDS = sorted(PageVersion.model_fields.keys() - CONTENT_FIELDS - {"page_id"})


@dataclass(frozen=True, slots=True)
class VersionHead:
    """The fields of a version that retention needs.

    Attributes:
        key: The key of the version.
        crawled_at: As it stands in the item, which sorts by time.
    """

    key: Key
    crawled_at: str

    @property
    def version_id(self) -> str:
        """The version's id."""
        return version_ids(self.key)[1]


class HeadStore:
    """Key `{page_id}` / `{version_id}#{site_id}#`. All reads are strongly consistent."""

    def __init__(self, gateway: Gateway, table: Table[PageVersion]) -> None:
        self._gateway = gateway
        self._table = table

    def key(self, item: Item) -> Key:
        """The key in an item of the table or its index."""
        return {name: item[name] for name in self._table.primary_key}

    async def listing(
        self, site_id: str | None, page_id: str, limit: int, cursor: str | None, *, with_content: bool
    ) -> Slice[Item]:
        """Lists the heads of a page, newest first.

        Args:
            site_id: The site; None for the heads of all sites.
            page_id: The page.
            limit: How many at most.
            cursor: From the slice before.
            with_content: Return small bodies that are in their heads, too.
        """
        query = self._of_page(page_id, site_id)
        if not with_content:
            query = replace(query, attributes=(*self._table.primary_key, *_FIELDS))
        return await read_newest(self._gateway, query, "crawled_at", limit=limit, cursor=cursor)

    async def of_page(self, page_id: str, site_id: str) -> list[VersionHead]:
        """Returns all versions of a page of a site, newest first."""
        query = self._of_page(page_id, site_id)
        query = replace(query, attributes=(*self._table.primary_key, "crawled_at"))
        items = await read_newest(self._gateway, query, "crawled_at", limit=_ALL)
        return [VersionHead(self.key(item), item["crawled_at"]["S"]) for item in items]

    async def used_locations(self, keys: Sequence[Key]) -> dict[KeyValues, str | None]:
        """Returns where the bodies of those versions are that exist; None if a body is in the head."""
        heads = await read_all(self._gateway, self._table, keys, ("body",))
        return {key_values(self._table, head): used_location(self.key(head), head) for head in heads}

    async def equal_bodies(self, key: Key, site_id: str, digest: bytes) -> list[tuple[Key, Manifest]]:
        """Finds other versions of a page and site whose bodies have parts and a given digest.

        Only the first heads of the page are searched.

        Args:
            key: Key of the version for which a body is wanted.
            site_id: The site of the version.
            digest: SHA-256 of the raw body.
        """
        equal = AllOf((_of_site(site_id), Compare(("body", "sha256"), "=", {"B": digest})))
        attributes = (*self._table.primary_key, "body")
        query = Query(self._table, key["page_id"]["S"], filter=equal, attributes=attributes)
        response = await self._gateway.call("Query", requests.query_request(query, limit=_HEADS_COMPARED))
        heads = [(self.key(head), manifest_of(head)) for head in response["Items"]]
        return [
            (owner, manifest)
            for owner, manifest in heads
            if owner != key and manifest is not None and manifest.parts
        ]

    def _of_page(self, page_id: str, site_id: str | None) -> Query:
        of_site = None if site_id is None else _of_site(site_id)
        return Query(self._table, page_partition(page_id), filter=of_site)


def _of_site(site_id: str) -> Condition:
    # Refuses what cannot be the id of a site.
    site_partition(site_id)
    return Compare("site_id", "=", {"S": site_id})
