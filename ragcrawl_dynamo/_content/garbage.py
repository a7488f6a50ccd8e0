"""Removes bodies that no version uses, and all versions and bodies of a deleted site."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ragcrawl_dynamo._content.body_items import BodyId, StoredBody
from ragcrawl_dynamo._content.site_index import SiteListing
from ragcrawl_dynamo._content.versions import VersionStore
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import delete_all, key_values
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Key
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo._utils.mass_deletion import check_deleted_share
from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import PageVersion

__all__ = ["GarbageReport"]

_DELETIONS_IN_FLIGHT = 8

# The most bodies that are removed without permission: no user sees garbage, and a new site may have only it.
_FEW_BODIES = 100


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """Counts what `collect_garbage` removed, or would remove.

    Attributes:
        bodies_total: Bodies in parts that the site had, garbage included.
        bodies_removed: How many of them were removed, because no version used them.
        parts_removed: Items that they consisted of.
        dry_run: Whether they were only counted.
    """

    bodies_total: int
    bodies_removed: int
    parts_removed: int
    dry_run: bool


class GarbageCollector:
    """Finds bodies through by_site (eventually consistent), decides by full keys (strongly consistent)."""

    def __init__(
        self, gateway: Gateway, table: Table[PageVersion], versions: VersionStore, clock: Clock
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._versions = versions
        self._clock = clock
        self._listing = SiteListing(gateway, table)

    async def collect(
        self, site_id: str, grace_hours: float, dry_run: bool, allow_mass_deletion: bool
    ) -> GarbageReport:
        """Removes bodies that no version uses; see StorageBackend.collect_garbage."""
        check_kind("grace_hours", grace_hours, int, float)
        if not grace_hours >= 0:
            raise InvalidArgumentError("grace_hours", f"must be at least 0, not {grace_hours!r}")
        before = self._clock.now().timestamp() - grace_hours * 3600
        total = 0
        garbage: list[StoredBody] = []
        async with aclosing(self._listing.chunks(site_id)) as chunks:
            async for listed in chunks:
                total += len(listed.bodies)
                garbage += await self._garbage(listed.bodies, before)
        if dry_run:
            return GarbageReport(total, len(garbage), sum(body.parts for body in garbage), dry_run)
        if len(garbage) > _FEW_BODIES and not allow_mass_deletion:
            check_deleted_share("bodies", len(garbage), total, self._gateway.config.max_deleted_share)
        removed = parts_removed = 0
        for body in garbage:
            dead_users = await self._dead_users(body.id, before)
            if dead_users is not None and await self._versions.bodies.reclaim(body, dead_users):
                removed += 1
                parts_removed += body.parts
        return GarbageReport(total, removed, parts_removed, dry_run)

    async def delete_of_site(self, site_id: str) -> int:
        """Removes all versions of a site that by_site lists, heads before bodies; returns how many."""
        removed = 0
        async with aclosing(self._listing.chunks(site_id)) as chunks:
            async for listed in chunks:
                removed += await delete_all(self._gateway, self._table, listed.version_keys)
                bodies = await self._listing.stored_bodies(listed.bodies)
                await gather_bounded(self._versions.bodies.delete, bodies, _DELETIONS_IN_FLIGHT)
        return removed

    async def _garbage(self, bodies: Sequence[BodyId], before: float) -> list[StoredBody]:
        """Returns those bodies that no version uses and that were written and joined before a moment."""
        owners = {key_values(self._table, body.head): body.head for body in bodies}
        used = await self._versions.heads.used_locations(list(owners.values()))
        unused = [body for body in bodies if used.get(key_values(self._table, body.head)) != body.location]
        return [
            body
            for body in await self._listing.stored_bodies(unused)
            if body.written_at <= before and await self._dead_users(body.id, before) is not None
        ]

    async def _dead_users(self, body: BodyId, before: float) -> list[str] | None:
        """Returns the listed users of a body if none of them uses it; None if one does, or joined lately."""
        request = requests.get_request(self._table, body.users_key)
        item = (await self._gateway.call("GetItem", request)).get("Item", {})
        names = list(item.get("users", {}).get("SS", []))
        if not names:
            return []
        if int(item.get("joined_at", {}).get("N", "0")) > before:
            return None
        keys: list[Key] = [{"page_id": body.head["page_id"], "version_key": {"S": name}} for name in names]
        used = await self._versions.heads.used_locations(keys)
        return names if body.location not in used.values() else None
