"""Removes old versions by number and age; never the current version of a page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from ragcrawl_dynamo._content.heads import VersionHead
from ragcrawl_dynamo._content.site_index import SiteListing
from ragcrawl_dynamo._content.versions import VersionStore
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import encode_value
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo._utils.mass_deletion import check_deleted_share
from ragcrawl_dynamo._utils.validation import check_amount
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import PageVersion

__all__ = ["PruneReport"]

_DELETIONS_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True)
class PruneReport:
    """Counts what `prune_versions` removed, or would remove.

    Attributes:
        versions_total: Versions that the site had.
        versions_removed: How many of them were removed.
        dry_run: Whether they were only counted.
    """

    versions_total: int
    versions_removed: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Says which versions of a page stay. A version stays if either limit keeps it.

    Attributes:
        keep_last: How many stay, the newest; None without this limit.
        oldest: `crawled_at` from which on versions stay, as it is in items; None without this limit.
    """

    keep_last: int | None
    oldest: str | None

    @classmethod
    def of(cls, keep_last: int | None, max_age_days: float | None, now: datetime) -> Self:
        """The rule of the arguments of `prune_versions`.

        Raises:
            InvalidArgumentError: Neither limit is given, or one is negative.
        """
        if keep_last is None and max_age_days is None:
            raise InvalidArgumentError(
                "keep_last", "is missing, and so is max_age_days: pass one of them, or both"
            )
        check_amount("keep_last", keep_last)
        check_amount("max_age_days", max_age_days)
        if max_age_days is None:
            return cls(keep_last, None)
        try:
            oldest = now - timedelta(days=max_age_days)
        except OverflowError:
            # Before the year 1: nothing is that old.
            return cls(keep_last, "")
        return cls(keep_last, encode_value(oldest, model="PageVersion", field="crawled_at")["S"])

    def keeps_all_of(self, count: int) -> bool:
        """Whether a page with `count` versions keeps all of them, at any age."""
        return self.oldest is None and self.keep_last is not None and count <= self.keep_last

    def removable(self, heads: Sequence[VersionHead], current_version_id: str | None) -> list[VersionHead]:
        """Returns the versions that may go, of all versions of a page, newest first."""
        return [
            head
            for rank, head in enumerate(heads)
            if not (
                (self.keep_last is not None and rank < self.keep_last)
                or (self.oldest is not None and head.crawled_at >= self.oldest)
                or head.version_id == current_version_id
            )
        ]


class Retention:
    """Prunes the versions of a site. by_site lists its pages; reads by full key decide."""

    def __init__(
        self,
        gateway: Gateway,
        table: Table[PageVersion],
        versions: VersionStore,
        pages: PageStore,
        clock: Clock,
    ) -> None:
        self._config = gateway.config
        self._listing = SiteListing(gateway, table)
        self._versions = versions
        self._pages = pages
        self._clock = clock

    async def prune(
        self,
        site_id: str,
        keep_last: int | None,
        max_age_days: float | None,
        dry_run: bool,
        allow_mass_deletion: bool,
    ) -> PruneReport:
        """Removes old versions; see StorageBackend.prune_versions."""
        rule = RetentionRule.of(keep_last, max_age_days, self._clock.now())
        total = removable = removed = 0
        async with aclosing(self._removable(site_id, rule)) as pages:
            async for count, heads in pages:
                total += count
                removable += len(heads)
        if dry_run:
            return PruneReport(total, removable, dry_run)
        if not allow_mass_deletion:
            check_deleted_share("versions", removable, total, self._config.max_deleted_share)
        if removable:
            async with aclosing(self._removable(site_id, rule)) as pages:
                async for _, heads in pages:
                    removed += sum(await gather_bounded(self._delete, heads, _DELETIONS_IN_FLIGHT))
        return PruneReport(total, removed, dry_run)

    async def _removable(
        self, site_id: str, rule: RetentionRule
    ) -> AsyncGenerator[tuple[int, list[VersionHead]], None]:
        """Yields for each page of a site how many versions it has, and which of them may go."""
        async with aclosing(self._listing.version_counts(site_id)) as pages:
            async for page_id, count in pages:
                if rule.keeps_all_of(count):
                    yield count, []
                    continue
                heads = await self._versions.heads.of_page(page_id, site_id)
                page = await self._pages.get(site_id, page_id)
                yield len(heads), rule.removable(heads, page.current_version_id if page is not None else None)

    async def _delete(self, head: VersionHead) -> bool:
        return await self._versions.delete(head.key)
