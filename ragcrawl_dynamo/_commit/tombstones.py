"""Marks pages as gone, each one in a transaction with its log entry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ragcrawl_dynamo._changes.change import ChangeKind
from ragcrawl_dynamo._changes.log import ChangeLog
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import Path, Update
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.transactions import Transaction
from ragcrawl_dynamo._dynamodb.values import Value, encode_value
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.frontiers import Frontiers
from ragcrawl_dynamo._records.pages import PageStore, StoredPage
from ragcrawl_dynamo._schema.attributes import CHANGE_ORDER, REVISION
from ragcrawl_dynamo._schema.keys import page_key
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo._utils.mass_deletion import check_deleted_share
from ragcrawl_dynamo._utils.validation import check_several
from ragcrawl_dynamo.errors import ConditionFailedError, ConflictError

# How many times a page is read and written if other writers change it, or take its log position, in between.
_ATTEMPTS = 6

_PAGES_IN_FLIGHT = 8


class Tombstones:
    """Marks pages of all sites as gone."""

    def __init__(self, frontiers: Frontiers, pages: PageStore, change_log: ChangeLog) -> None:
        self._services = frontiers.services
        self._pages = pages
        self._change_log = change_log

    async def mark(self, site_id: str, page_ids: Iterable[str], *, allow_mass_deletion: bool) -> int:
        """Marks pages as gone; returns how many of them exist. See StorageBackend.tombstone_pages."""
        distinct = list(dict.fromkeys(check_several("page_ids", page_ids, str)))
        if not allow_mass_deletion:
            total = await self._pages.count(site_id, include_tombstones=False)
            share = self._services.gateway.config.max_deleted_share
            check_deleted_share("pages", len(distinct), total, share)

        async def mark_one(page_id: str) -> bool:
            return await self._mark(site_id, page_id)

        return sum(await gather_bounded(mark_one, distinct, _PAGES_IN_FLIGHT))

    async def _mark(self, site_id: str, page_id: str) -> bool:
        """Marks one page as gone; returns whether it exists."""
        for failures in range(1, _ATTEMPTS + 1):
            stored = await self._pages.read(site_id, page_id)
            if stored.page is None or stored.page.is_tombstone:
                return stored.page is not None
            if await self._write(site_id, page_id, stored):
                return True
            await asyncio.sleep(full_jitter(self._services.gateway.config, failures))
        raise ConflictError(
            f"page {page_id!r} of site {site_id!r} was changed by other writers {_ATTEMPTS} times in a row "
            f"and is not marked as gone: try again"
        )

    async def _write(self, site_id: str, page_id: str, stored: StoredPage) -> bool:
        """Marks a page, unless another writer has changed it since it was read; returns whether it did."""
        table, gateway = self._services.tables.pages, self._services.gateway
        key = page_key(site_id, page_id)
        revision = WriteToken.new(REVISION, length=8)
        attributes: dict[Path, Value] = {
            "is_tombstone": {"BOOL": True},
            "last_changed": encode_value(self._change_log.now(), model="Page", field="last_changed"),
            **revision.assignment,
        }
        entry = await self._change_log.append(site_id, page_id, ChangeKind.DELETED, stored.order)
        if entry is None:
            update = requests.update_request(table, key, Update(put=attributes), stored.is_unchanged)
            try:
                await gateway.call("UpdateItem", update)
            except ConditionFailedError as error:
                return revision.is_in(error.item)
            return True
        attributes[CHANGE_ORDER] = {"N": str(entry.order)}
        transaction = Transaction(revision, marked="page")
        transaction.update("page", table, key, Update(put=attributes), stored.is_unchanged)
        entry.add_to(transaction)
        refusal = await transaction.run(gateway)
        if refusal is not None:
            self._change_log.note_refusal(site_id, entry, refusal)
        return refusal is None
