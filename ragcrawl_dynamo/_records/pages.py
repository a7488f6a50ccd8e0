"""Saves and reads pages: by key, by URL, listed by site, counted, and chosen for the next crawl."""

from __future__ import annotations

import heapq
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import read_all, save_all
from ragcrawl_dynamo._dynamodb.coalescing import Gets, Puts
from ragcrawl_dynamo._dynamodb.codec import from_item, to_sized_item
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate, conditional_writes
from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Exists,
    Missing,
    Update,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import Refused, raise_if_failed
from ragcrawl_dynamo._dynamodb.pagination import (
    Slice,
    check_limit,
    cursor_after,
    delete_partition,
    read_pages,
    read_slice,
)
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, encode_value, unescape
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.attributes import REVISION, change_order
from ragcrawl_dynamo._schema.keys import page_key, site_partition, url_key, version_key
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.concurrency import gather_bounded, in_turns, map_in_turns
from ragcrawl_dynamo._utils.validation import check_amount, check_kind, check_several
from ragcrawl_dynamo.errors import ConditionFailedError
from ragcrawl_dynamo.models import Page

# The attribute that holds the write token of the latest `mark_seen`.
_SEEN_BY = "seen_by"

# How many look-ups of one call run at the same time.
_LOOK_UPS_IN_FLIGHT = 16

# Returns which of some URLs are wanted.
Wanted: TypeAlias = Callable[[Sequence[str]], Awaitable[Container[str]]]

_ALIVE = Compare("is_tombstone", "=", {"BOOL": False})


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page as it was read, with the attributes that commits keep beside it.

    Attributes:
        page: The page; None if it is not stored.
        revision: The random name of its latest update; None if `save_page` wrote it.
        order: The order of its latest logged change; None if there is none, or if `save_page` wrote it.
        item: The item of the page; empty if the page is not stored.
    """

    page: Page | None = None
    revision: str | None = None
    order: int | None = None
    item: Item = field(default_factory=dict)

    @property
    def is_unchanged(self) -> Condition:
        """The condition that no other writer has changed the page since it was read."""
        if self.page is None:
            return Missing("page_id")
        if self.revision is None:
            # `save_page` wrote it, which stores no revision.
            return AllOf((Exists("page_id"), Missing(REVISION)))
        return Compare(REVISION, "=", {"S": self.revision})


class PageStore:
    """Key `{site_id}` / `{page_id}`; by_url finds the page of a URL of any length."""

    def __init__(self, gateway: Gateway, table: Table[Page], clock: Clock) -> None:
        self._gateway = gateway
        self._table = table
        self._clock = clock
        self._writes = conditional_writes(gateway, table)
        self._puts = Puts(gateway, table)
        self._gets = Gets(gateway, table)

    async def close(self) -> None:
        """Sends the requests that are still waiting."""
        await self._puts.close()
        await self._gets.close()

    async def save(self, page: Page) -> None:
        """Saves a page, and replaces a stored one with the same key."""
        check_kind("page", page, Page)
        await self._puts.put(*to_sized_item(self._table, page))

    async def save_bulk(self, pages: Iterable[Page]) -> int:
        """Saves pages in batches; see `save_all`."""
        return await save_all(self._gateway, self._table, check_several("pages", pages, object))

    async def get(self, site_id: str, page_id: str) -> Page | None:
        """Returns one page, or None; strongly consistent."""
        item = await self._gets.get(page_key(site_id, page_id))
        return None if item is None else self._decode(item)

    async def read(self, site_id: str, page_id: str) -> StoredPage:
        """Returns one page with the attributes that commits keep beside it; strongly consistent."""
        item = await self._gets.get(page_key(site_id, page_id))
        if item is None:
            return StoredPage()
        return StoredPage(self._decode(item), item.get(REVISION, {}).get("S"), change_order(item), item)

    async def rewrite(self, stored: StoredPage, item: Item, revision: WriteToken) -> bool:
        """Writes the attributes of a page that differ from the stored ones: one write unit for 1 KB.

        Args:
            stored: The page as it was read.
            item: The page's new item, which has the same key and holds `revision`.
            revision: The write token by which the write is recognized if its answer was lost.

        Returns:
            Whether the page was written. It is not if another writer has changed it since it was read.
        """
        key = {name: item[name] for name in self._table.primary_key}
        # A page that is new has no stored item; an update must not contain its key.
        update = Update.between({**stored.item, **key}, item)
        request = requests.update_request(self._table, key, update, stored.is_unchanged)
        try:
            await self._gateway.call("UpdateItem", request)
        except ConditionFailedError as error:
            return revision.is_in(error.item)
        return True

    async def get_by_url(self, site_id: str, url: str) -> Page | None:
        """Returns the page of a URL, or None; looked up in by_url (eventually consistent)."""
        wanted_key = url_key(url)
        site: Condition = Compare("site_id", "=", {"S": site_partition(site_id)})
        query = Query(self._table, wanted_key, index="by_url", sort=site, attributes=self._table.primary_key)
        response = await self._gateway.call("Query", requests.query_request(query))
        pages = await self.get_many(response["Items"])
        # The index lags: a page may have got another URL since.
        of_url = [page for page in pages if url_key(page.url) == wanted_key]
        return min(of_url, key=lambda page: (page.url != url, page.is_tombstone, page.page_id), default=None)

    async def listing(
        self, site_id: str, limit: int, cursor: str | None, include_tombstones: bool
    ) -> Slice[Page]:
        """Returns a slice of a site's pages, ordered by page_id."""
        query = self._query(site_id, include_tombstones)
        return await read_slice(self._gateway, query, self._decode, limit=limit, cursor=cursor)

    async def listing_with_content(self, site_id: str, limit: int, cursor: str | None) -> Slice[Page]:
        """Returns a slice of a site's pages that have content, ordered by page_id; no tombstones."""
        query = self._query(site_id, include_tombstones=False, also=Exists("current_version_id"))
        return await read_slice(self._gateway, query, self._decode, limit=limit, cursor=cursor)

    def listing_cursor(self, site_id: str, page_id: str) -> str:
        """Returns the cursor of a slice of a site's pages that ends with a page."""
        return cursor_after(self._query(site_id, include_tombstones=True), page_key(site_id, page_id))

    def iterate(self, site_id: str, include_tombstones: bool) -> AsyncIterator[Page]:
        """Iterates over all pages of a site, ordered by page_id."""
        return self._read(site_id, include_tombstones)

    async def count(self, site_id: str, include_tombstones: bool) -> int:
        """Returns how many pages a site has."""
        query = self._query(site_id, include_tombstones, attributes=("page_id",))
        async with aclosing(read_pages(self._gateway, query, rest_counts=True)) as pages:
            return sum([count async for count, _ in pages])

    async def get_bulk(self, site_id: str, page_ids: Iterable[str]) -> list[Page]:
        """Returns those of the given pages that exist, in the order of `page_ids`; strongly consistent."""
        ids = dict.fromkeys(check_several("page_ids", page_ids, str))
        return await self.get_many(await map_in_turns(partial(page_key, site_id), ids))

    async def get_many(self, keys: Sequence[Key]) -> list[Page]:
        """Returns the pages of different keys that exist, in the order of the keys; strongly consistent."""
        return await map_in_turns(self._decode, await read_all(self._gateway, self._table, keys))

    async def current_versions(self, site_id: str) -> AsyncGenerator[Key, None]:
        """Iterates over the keys of the pages' current versions, ordered by page_id; no tombstones."""
        query = self._query(site_id, include_tombstones=False, attributes=("page_id", "current_version_id"))
        async with aclosing(read_pages(self._gateway, query)) as pages:
            async for _, items in pages:
                for item in items:
                    if "current_version_id" in item:
                        page_id, version_id = item["page_id"]["S"], item["current_version_id"]["S"]
                        yield version_key(unescape(page_id), version_id, site_id)

    async def needing_recrawl(self, site_id: str, max_age_hours: float | None, limit: int) -> list[Page]:
        """Returns the pages to crawl next: first those never crawled, then the oldest ones; no tombstones."""
        before = _hours_before(self._clock.now(), max_age_hours)
        return await self._oldest(site_id, "last_crawled", before, limit)

    async def not_seen_since(self, site_id: str, moment: datetime, limit: int, wanted: Wanted) -> list[Page]:
        """Returns the pages that were last seen before a moment, longest unseen first; no tombstones.

        Args:
            site_id: The site.
            moment: The moment.
            limit: The largest number of pages to return.
            wanted: Returns those of some URLs whose pages are to be returned.
        """
        return await self._oldest(site_id, "last_seen", moment, limit, wanted)

    def aliases(self, site_id: str) -> AsyncIterator[Page]:
        """Iterates over the pages that redirect to another URL, ordered by page_id, tombstones too."""
        return self._read(site_id, include_tombstones=True, also=Exists("redirect_url"))

    async def mark_seen(self, site_id: str, urls: Iterable[str]) -> int:
        """Sets `last_seen` of pages to now; returns how many pages the URLs have."""
        site = site_partition(site_id)
        hashes = {url_key(url) for url in check_several("urls", urls, str)}
        keys: list[tuple[str, Key]] = []

        async def find(url_hash: str) -> None:
            query = Query(self._table, url_hash, index="by_url", sort=Compare("site_id", "=", {"S": site}))
            response = await self._gateway.call("Query", requests.query_request(query))
            for item in response["Items"]:
                keys.append((url_hash, {name: item[name] for name in self._table.primary_key}))

        await gather_bounded(find, hashes, _LOOK_UPS_IN_FLIGHT)
        last_seen = encode_value(self._clock.now(), model="Page", field="last_seen")
        updates = []
        for url_hash, key in keys:
            token = WriteToken.new(_SEEN_BY)
            update = Update(put={"last_seen": last_seen, **token.assignment})
            # The index lags: the page may have got another URL since. If another worker has stored a later
            # moment, that one stays.
            of_url = Compare("url_key", "=", {"S": url_hash})
            condition = AllOf((of_url, Compare("last_seen", "<", last_seen)))
            updates.append(ConditionalUpdate(key, update, condition, token))
        outcomes = await self._writes.run(updates)
        raise_if_failed(outcomes)
        refused = [pair for pair, outcome in zip(keys, outcomes, strict=True) if isinstance(outcome, Refused)]
        items = await read_all(self._gateway, self._table, [key for _, key in refused], ("url_key",))
        urls_now = {item["page_id"]["S"]: item["url_key"]["S"] for item in items}
        moved = sum(urls_now.get(key["page_id"]["S"]) != url_hash for url_hash, key in refused)
        return len(keys) - moved

    async def delete_of_site(self, site_id: str) -> int:
        """Deletes all pages of a site; returns how many."""
        return await delete_partition(self._gateway, self._query(site_id, include_tombstones=True))

    async def _oldest(
        self, site_id: str, by: str, before: datetime | None, limit: int, wanted: Wanted | None = None
    ) -> list[Page]:
        """Returns pages whose attribute `by` is absent, or before a moment; absent first; no tombstones."""
        check_limit(limit)
        attributes = ("page_id", by, *(("url",) if wanted is not None else ()))
        query = self._query(
            site_id, include_tombstones=False, also=_is_before(by, before), attributes=attributes
        )
        # The pages that are chosen are read again, strongly consistent.
        query = replace(query, consistent=False)
        # Keeps `limit` keys at most: a site may have a million pages.
        oldest: list[tuple[str, str]] = []
        async with aclosing(read_pages(self._gateway, query)) as pages:
            async for _, items in pages:
                if wanted is not None and items:
                    urls = await wanted([unescape(item["url"]["S"]) for item in items])
                    items = [item for item in items if unescape(item["url"]["S"]) in urls]
                read = [(item.get(by, {}).get("S", ""), item["page_id"]["S"]) for item in items]
                oldest = heapq.nsmallest(limit, [*oldest, *read])
        keys: list[Key] = [
            {"site_id": {"S": query.partition}, "page_id": {"S": page_id}} for _, page_id in oldest
        ]
        as_read = {page_id: moment for moment, page_id in oldest}
        return [
            self._decode(item)
            for item in await read_all(self._gateway, self._table, keys)
            # Leaves out pages that another worker has crawled or tombstoned meanwhile.
            if item.get(by, {}).get("S", "") == as_read[item["page_id"]["S"]]
            and item.get("is_tombstone") == {"BOOL": False}
        ]

    async def _read(
        self, site_id: str, include_tombstones: bool, also: Condition | None = None
    ) -> AsyncGenerator[Page, None]:
        """Iterates over pages of a site, ordered by page_id."""
        query = self._query(site_id, include_tombstones, also=also)
        async with aclosing(read_pages(self._gateway, query)) as pages:
            async for _, items in pages:
                async for part in in_turns(items):
                    for item in part:
                        yield self._decode(item)

    def _query(
        self,
        site_id: str,
        include_tombstones: bool,
        *,
        also: Condition | None = None,
        attributes: tuple[str, ...] | None = None,
    ) -> Query:
        wanted = (None if include_tombstones else _ALIVE, also)
        conditions = [condition for condition in wanted if condition is not None]
        return Query(
            self._table,
            site_partition(site_id),
            filter=AllOf(conditions) if conditions else None,
            attributes=attributes,
        )

    def _decode(self, item: Item) -> Page:
        return from_item(self._table, item)


def _is_before(attribute: str, moment: datetime | None) -> Condition | None:
    """The condition that an attribute is absent, or before a moment; None for no moment."""
    if moment is None:
        return None
    limit = encode_value(moment, model="Page", field=attribute)
    return AnyOf((Missing(attribute), Compare(attribute, "<", limit)))


def _hours_before(moment: datetime, hours: float | None) -> datetime | None:
    check_amount("max_age_hours", hours)
    if hours is None:
        return None
    try:
        return moment - timedelta(hours=hours)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
