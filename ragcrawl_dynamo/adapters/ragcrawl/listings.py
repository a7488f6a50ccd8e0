"""Sorts listings in the orders of ragcrawl, and selects their first records."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, TypeVar

from ragcrawl_dynamo import FrontierItem, InvalidArgumentError, Page, Site
from ragcrawl_dynamo.adapters._slices import closing

T = TypeVar("T")

# Records among which the first ones are looked for at once.
_AT_ONCE = 1000


def check_range(offset: int, limit: int | None) -> None:
    """Checks that a listing begins at a position and has a length.

    Raises:
        InvalidArgumentError: One of them is negative.
    """
    for name, count in (("offset", offset), ("limit", limit)):
        if count is not None and count < 0:
            raise InvalidArgumentError(name, f"must be at least 0, not {count}")


async def first_by(
    order: Callable[[T], Any], records: AsyncIterator[T], offset: int, limit: int | None
) -> list[T]:
    """Reads all records; returns up to `limit` of them, all if None, from position `offset` of the order on.

    Only the first `offset + limit` records of the order are kept in memory.
    """
    first: list[T] = []
    more: list[T] = []
    async with closing(records) as remaining:
        async for record in remaining:
            more.append(record)
            if limit is not None and len(more) == _AT_ONCE:
                first = heapq.nsmallest(offset + limit, [*first, *more], key=order)
                more.clear()
    ordered = sorted([*first, *more], key=order)
    return ordered[offset:] if limit is None else ordered[offset : offset + limit]


def newest_site(site: Site) -> tuple[float, str]:
    """Returns a sort key: the newest site comes first."""
    return _latest(site.created_at), site.site_id


def last_seen_page(page: Page) -> tuple[float, str]:
    """Returns a sort key: the page that was seen last comes first."""
    return _latest(page.last_seen), page.page_id


def next_item(item: FrontierItem) -> tuple[float, datetime, str]:
    """Returns a sort key: the highest priority comes first, then the oldest item."""
    return -item.priority, item.discovered_at, item.item_id


def _latest(moment: datetime) -> float:
    return -moment.timestamp()
