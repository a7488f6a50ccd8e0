"""Saves and reads sites; lists them by a scan of their table, which is small."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.expressions import Exists, Path, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import Slice, iterate, read_table
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Value, encode_value
from ragcrawl_dynamo._schema.keys import site_key
from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.errors import ConditionFailedError
from ragcrawl_dynamo.models import Site

# The fields of a site that its owner sets. Crawls set the others.
_SETTINGS = ("name", "seeds", "allowed_domains", "allowed_subdomains", "config", "is_active")


class SiteStore:
    """Key `{site_id}`; no index."""

    def __init__(self, gateway: Gateway, table: Table[Site]) -> None:
        self._gateway = gateway
        self._table = table

    async def save(self, site: Site) -> None:
        """Saves a site, and replaces a stored one with the same id."""
        check_kind("site", site, Site)
        await self._gateway.call("PutItem", requests.put_request(self._table, to_item(self._table, site)))

    async def ensure(self, site: Site) -> Site:
        """Saves the settings of a site, and keeps what crawls have stored; returns the stored site."""
        check_kind("site", site, Site)
        item = to_item(self._table, site)
        key = site_key(site.site_id)
        put: dict[Path, Value] = {name: item[name] for name in (*_SETTINGS, "updated_at") if name in item}
        kept: dict[Path, Value] = {
            name: value for name, value in item.items() if name not in put and name not in key
        }
        request = requests.update_request(self._table, key, Update(put=put, default=kept))
        response = await self._gateway.call("UpdateItem", request)
        return self._decode(response["Attributes"])

    async def record_crawl(
        self, site_id: str, *, total_pages: int, total_runs: int, moment: datetime, is_sync: bool
    ) -> None:
        """Stores the totals and the time of a finished run in its site, if the site is stored."""
        put: dict[Path, Value] = {
            "total_pages": {"N": str(total_pages)},
            "total_runs": {"N": str(total_runs)},
            "last_crawl_at": encode_value(moment, model="Site", field="last_crawl_at"),
        }
        if is_sync:
            put["last_sync_at"] = put["last_crawl_at"]
        request = requests.update_request(
            self._table, site_key(site_id), Update(put=put), Exists(self._table.partition_key)
        )
        with suppress(ConditionFailedError):
            await self._gateway.call("UpdateItem", request)

    async def get(self, site_id: str) -> Site | None:
        """Returns one site, or None; strongly consistent."""
        response = await self._gateway.call("GetItem", requests.get_request(self._table, site_key(site_id)))
        return self._decode(response["Item"]) if "Item" in response else None

    async def listing(self, limit: int, cursor: str | None) -> Slice[Site]:
        """Returns a slice of all sites, in no particular order."""
        return await read_table(self._gateway, self._table, self._decode, limit=limit, cursor=cursor)

    def iterate(self) -> AsyncIterator[Site]:
        """Iterates over all sites, in no particular order."""
        return iterate(lambda cursor: self.listing(1000, cursor))

    async def delete(self, site_id: str) -> None:
        """Deletes the item of a site, if there is one; nothing else of the site."""
        await self._gateway.call("DeleteItem", requests.delete_request(self._table, site_key(site_id)))

    def _decode(self, item: Item) -> Site:
        return from_item(self._table, item)
