"""Lists the versions and bodies of a site through by_site, which is eventually consistent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ragcrawl_dynamo._content.body_items import BodyId, StoredBody
from ragcrawl_dynamo._dynamodb.batching import key_values, read_all
from ragcrawl_dynamo._dynamodb.expressions import BeginsWith, Compare, Condition
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import read_slice
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, unescape
from ragcrawl_dynamo._schema.keys import BODY_PARTITIONS, body_entry, site_partition
from ragcrawl_dynamo.models import PageVersion

# Entries that one chunk has, and that one request of a count reads.
_ENTRIES_PER_CHUNK = 100
_ENTRIES_PER_COUNT = 1000


@dataclass(frozen=True, slots=True)
class ListedVersions:
    """Some versions of a site as by_site lists them: each once, by its head or by the first part of its body.

    Attributes:
        heads: Keys of versions that are listed by their heads.
        bodies: Bodies that are listed by their first parts.
    """

    heads: list[Key]
    bodies: list[BodyId]

    @property
    def version_keys(self) -> list[Key]:
        """The keys of all these versions, each once. Versions of unused bodies may not exist."""
        keys = [*(body.head for body in self.bodies), *self.heads]
        return list({(key["page_id"]["S"], key["version_key"]["S"]): key for key in keys}.values())


class SiteListing:
    """Reads the index of the versions table, for keys that other reads then look up."""

    def __init__(self, gateway: Gateway, table: Table[PageVersion]) -> None:
        self._gateway = gateway
        self._table = table

    async def chunks(self, site_id: str) -> AsyncGenerator[ListedVersions, None]:
        """Lists all versions and bodies of a site. Use it within `aclosing`."""
        query = Query(self._table, site_partition(site_id), index="by_site")
        async with aclosing(self._keys(query, _ENTRIES_PER_CHUNK)) as chunks:
            async for keys in chunks:
                heads: list[Key] = []
                bodies: list[BodyId] = []
                for key in keys:
                    if (entry := body_entry(key)) is None:
                        heads.append(key)
                    else:
                        bodies.append(BodyId(*entry))
                yield ListedVersions(heads, bodies)

    async def version_counts(self, site_id: str) -> AsyncGenerator[tuple[str, int], None]:
        """Yields each page_id of a site with the number of its versions. Use it within `aclosing`.

        Heads and bodies are two ranges of the index, each in the order of its pages.
        """
        low, high = BODY_PARTITIONS
        heads = self._page_keys(
            site_id, [Compare("page_id", "<", {"S": low}), Compare("page_id", ">=", {"S": high})]
        )
        bodies = self._page_keys(site_id, [BeginsWith("page_id", {"S": low})])
        async with aclosing(merged_counts(heads, bodies)) as counts:
            async for page_key, count in counts:
                yield unescape(page_key), count

    async def stored_bodies(self, bodies: Sequence[BodyId]) -> list[StoredBody]:
        """Reads the first parts of bodies, without their data; bodies that are gone are left out."""
        keys = [body.part_key(0) for body in bodies]
        by_key = {key_values(self._table, key): body for key, body in zip(keys, bodies, strict=True)}
        parts = await read_all(self._gateway, self._table, keys, ("parts", "written_at", "object_key"))
        return [StoredBody.of_first_part(by_key[key_values(self._table, part)], part) for part in parts]

    async def _page_keys(self, site_id: str, ranges: Sequence[Condition]) -> AsyncGenerator[str, None]:
        """Yields the escaped page_id of each entry in some ranges of pages, in order."""
        for pages in ranges:
            query = Query(self._table, site_partition(site_id), index="by_site", sort=pages)
            async with aclosing(self._keys(query, _ENTRIES_PER_COUNT)) as chunks:
                async for keys in chunks:
                    for key in keys:
                        head, _ = body_entry(key) or (key, "")
                        yield head["page_id"]["S"]

    async def _keys(self, query: Query, limit: int) -> AsyncGenerator[list[Key], None]:
        cursor: str | None = None
        while True:
            keys = await read_slice(self._gateway, query, self._key, limit=limit, cursor=cursor)
            yield keys
            if (cursor := keys.cursor) is None:
                return

    def _key(self, entry: Item) -> Key:
        return {name: entry[name] for name in self._table.primary_key}


async def merged_counts(*listings: AsyncGenerator[str, None]) -> AsyncGenerator[tuple[str, int], None]:
    """Yields each text of ordered listings with the number of times that it is in them, in order."""
    try:
        ahead = [(await anext(listing, None), listing) for listing in listings]
        while pending := [text.encode() for text, _ in ahead if text is not None]:
            least, count = min(pending).decode(), 0
            for i, (text, listing) in enumerate(ahead):
                while text == least:
                    count += 1
                    text = await anext(listing, None)
                ahead[i] = (text, listing)
            yield least, count
    finally:
        for listing in listings:
            await listing.aclose()
