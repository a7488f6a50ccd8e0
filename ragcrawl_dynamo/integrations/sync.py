"""Brings an index up to date with a site, by the change feed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from ragcrawl_dynamo._changes.change import FeedCursor, PageChange
from ragcrawl_dynamo._changes.consumers import Following, is_worth_saving
from ragcrawl_dynamo._indexing.chunk_records import ChunkRecord
from ragcrawl_dynamo._indexing.lease import IndexLease
from ragcrawl_dynamo._schema.keys import page_key
from ragcrawl_dynamo._utils.concurrency import wait_for_event
from ragcrawl_dynamo._utils.validation import check_callable, check_count, check_kind
from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.errors import ChangesExpiredError
from ragcrawl_dynamo.integrations._index_writer import IndexWriter, Replacement, SyncReport, check_fence
from ragcrawl_dynamo.integrations._user_code import check_index, check_splitter, split_version
from ragcrawl_dynamo.integrations.index import ChunkIndex, Splitter
from ragcrawl_dynamo.models import Page, PageVersion

__all__ = ["clear_index", "reset_index", "sync_index"]

logger: logging.Logger = logging.getLogger(__name__)

# Changes that are read at once. The cursor moves after each slice.
_CHANGES_PER_SLICE = 100

# The largest number of chunks in one call of the index.
_MOST_CHUNKS = 10_000

# Seconds of the first pause after a change. It doubles with each sync that finds no change.
_FIRST_PAUSE = 1.0


async def sync_index(
    backend: DynamoDBBackend,
    site_id: str,
    consumer: str,
    index: ChunkIndex,
    split: Splitter,
    *,
    batch_size: int = 128,
    follow: bool = False,
    poll_seconds: float = 10.0,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[SyncReport], object] | None = None,
) -> SyncReport:
    """Brings an index up to date with a site: it then has the chunks of all current versions, and no others.

    The first sync of a consumer takes all pages. Each later one takes the pages that commits and
    `tombstone_pages` have changed since. Only pages with a new version are split and embedded. New chunks are
    stored before those of earlier versions are deleted, so that a search finds the page at any moment.

    It relies on the index for two things only: `upsert` replaces by id, and `delete` removes by id. Which
    chunks are in the index is recorded with the site, before and after the index takes them. So a sync can be
    killed at any point, and the next one leaves nothing twice and nothing stale. That holds if the splitter
    was changed in between, and if versions were pruned.

    One process at a time changes an index: another one waits for it. If the first is killed, the other one
    waits until its lease of 60 s has ended. The end of a lease does not stop a process that is suspended in
    a call of the index, and resumes in it later. The wait is logged at level info.

    A sync with nothing to do takes two read units, and one for each process that commits to the site. A page
    that changed takes two write units and one read unit for its chunk record, besides what its change and
    its content take (see `list_changes`).

    An error of the splitter or the index ends the sync. A note of it (`__notes__`) names the pages.

    If the cursor is older than the changes that are kept, all pages are compared with the index, and those
    that are gone are deleted from it. Unchanged pages are not embedded again.

    Args:
        backend: The open backend or store.
        site_id: The site. If there is neither the site nor a page of it, a warning is logged.
        consumer: The name of the index. Each index needs its own. It is independent of the consumers of
            `iter_changes`.
        index: The index.
        split: Splits a version; see Splitter.
        batch_size: The largest number of chunks that are embedded and stored at once.
        follow: Continues with each further change, until `stop` is set.
        poll_seconds: The longest pause between two reads while nothing changes, in seconds.
        stop: Ends the sync once it is set, after at most 100 more changes.
        on_progress: Called after each batch with the result so far, in the event loop. An error of it ends
            the sync.

    Returns:
        A report of the pages and chunks that were changed since the call began.

    Raises:
        InvalidArgumentError: `batch_size` is not from 1 to 10,000, or `on_progress` is no plain function; or
            as by `iter_changes`. Also if the splitter returns something else than texts or Passages, or if
            `index` has no `upsert` or `delete`.
        InvalidKeyError: The name is empty or too long.
        ConflictError: Another process took the lease, because this process was suspended for long.
        CorruptContentError: A stored body is incomplete or differs from what was saved.
    """
    following = Following.checked(follow, poll_seconds, stop)
    check_callable("on_progress", on_progress)
    check_splitter(split)
    sync = _Sync(backend, split, _writer(backend, site_id, consumer, index, batch_size), on_progress)
    clock, pause, is_checked = backend._rooms.clock, _FIRST_PAUSE, False
    while not following.stop.is_set():
        had_changes = await sync.run(following.stop)
        if sync.is_without_commits and not is_checked:
            await _warn_of_unknown_site(backend, site_id)
        is_checked = True
        if not follow:
            break
        pause = min(_FIRST_PAUSE if had_changes else pause, following.longest_pause)
        await wait_for_event(following.stop, clock, pause)
        pause *= 2
    return sync.writer.report


async def reset_index(backend: DynamoDBBackend, site_id: str, consumer: str) -> None:
    """Makes the next sync embed all pages again, as after the index was lost or the splitter was changed.

    The next sync replaces chunks that are still in the index, and deletes those that are not replaced.

    Args:
        backend: The open backend or store.
        site_id: The site.
        consumer: The name of the index.
    """
    _check_target(backend, site_id, consumer)
    await _warn_of_unknown_site(backend, site_id)
    async with backend._rooms.index_leases.held(site_id, consumer) as lease:
        await lease.save(cursor=None, generation=lease.state.generation + 1)


async def clear_index(
    backend: DynamoDBBackend, site_id: str, consumer: str, index: ChunkIndex, *, batch_size: int = 128
) -> SyncReport:
    """Deletes all chunks of a site from an index. Call it before `delete_site`. A sync fills the index again.

    Args:
        backend: The open backend or store.
        site_id: The site.
        consumer: The name of the index.
        index: The index.
        batch_size: The largest number of ids in one call of `delete`.

    Returns:
        A report of the chunks that were deleted.
    """
    writer = _writer(backend, site_id, consumer, index, batch_size)
    await _warn_of_unknown_site(backend, site_id)
    rooms = backend._rooms
    async with rooms.index_leases.held(site_id, consumer) as lease:
        # The new generation comes first: if the call is interrupted, no page counts as complete.
        await lease.save(cursor=None)
        async with aclosing(rooms.chunk_records.iterate(site_id, consumer)) as parts:
            async for records in parts:
                await writer.replace(lease, [Replacement(record, None) for record in records])
    return writer.report


def _check_target(backend: DynamoDBBackend, site_id: str, consumer: str) -> None:
    check_kind("backend", backend, DynamoDBBackend)
    check_kind("site_id", site_id, str)
    check_kind("consumer", consumer, str)


async def _warn_of_unknown_site(backend: DynamoDBBackend, site_id: str) -> None:
    """Logs a warning if there is neither a site with this id nor a page of it, such as of a mistyped id."""
    if await backend.get_site(site_id) is None and not await backend.list_pages(site_id, limit=1):
        logger.warning(
            "there is no site %r and no page of it, so there is nothing to index: check the site_id and "
            "table_prefix %r, unless the first crawl is still to come",
            *(site_id, backend.config.table_prefix),
        )


def _writer(
    backend: DynamoDBBackend, site_id: str, consumer: str, index: ChunkIndex, batch_size: int
) -> IndexWriter:
    _check_target(backend, site_id, consumer)
    check_index(index)
    check_count("batch_size", batch_size, _MOST_CHUNKS)
    return IndexWriter(backend._rooms.chunk_records, site_id, consumer, index, batch_size)


class _Sync:
    """Syncs one index."""

    def __init__(
        self,
        backend: DynamoDBBackend,
        split: Splitter,
        writer: IndexWriter,
        on_progress: Callable[[SyncReport], object] | None,
    ) -> None:
        self.writer = writer
        self._rooms = backend._rooms
        self._site_id = writer.site_id
        self._consumer = writer.consumer
        self._split = split
        self._on_progress = on_progress
        self._reported = SyncReport()
        # Whether no process has committed to the site, as far as its changes are kept.
        self.is_without_commits = False

    async def run(self, stop: asyncio.Event) -> bool:
        """Handles the changes up to now, or until an event is set; returns whether there were any."""
        if not await self._has_changes():
            return False
        async with self._rooms.index_leases.held(self._site_id, self._consumer) as lease:
            saved = position = self._position(lease.state.cursor)
            while not stop.is_set():
                try:
                    part = await self._rooms.changes.read(self._site_id, _CHANGES_PER_SLICE, position)
                except ChangesExpiredError as error:
                    logger.warning(
                        "the cursor of index %r has expired, so the index is compared with all pages: %s",
                        self._consumer,
                        error,
                    )
                    position = None
                    continue
                await self._apply(lease, part.changes)
                if (position is None or position.listing is not None) and part.cursor.listing is None:
                    # All pages that have content were listed. Other pages in the index are gone.
                    await self._remove_gone_pages(lease)
                position = part.cursor
                if is_worth_saving(saved, position):
                    await lease.save(cursor=self._rooms.changes.encode(self._site_id, position))
                    saved = position
                self.is_without_commits = not position.next_numbers
                if part.is_end:
                    break
        return True

    async def _has_changes(self) -> bool:
        """Returns whether there is anything to do, so that a sync without changes writes no lease."""
        state = await self._rooms.index_leases.read(self._site_id, self._consumer)
        if (position := self._position(state.cursor)) is None or position.listing is not None:
            return True
        try:
            part = await self._rooms.changes.read(self._site_id, 1, position)
        except ChangesExpiredError:
            return True
        self.is_without_commits = not part.cursor.next_numbers
        return bool(part.changes) or is_worth_saving(position, part.cursor)

    def _position(self, cursor: str | None) -> FeedCursor | None:
        return None if cursor is None else self._rooms.changes.decode(self._site_id, cursor)

    async def _apply(self, lease: IndexLease, changes: Sequence[PageChange]) -> None:
        """Brings the pages of changes, all different, up to date in the index."""
        page_ids = [change.page.page_id for change in changes]
        records = await self._rooms.chunk_records.get_many(self._site_id, self._consumer, page_ids)
        generation = lease.state.generation
        to_load: list[PageChange] = []
        for change in changes:
            record = records[change.page.page_id]
            check_fence(lease, record)
            if record.has(_version_id(change.page), generation):
                self.writer.report.unchanged += 1
            else:
                to_load.append(change)
        pending: list[Replacement] = []
        async with aclosing(self._rooms.changes.contents.loaded(to_load)) as loaded:
            async for change in loaded:
                record = records[change.page.page_id]
                if change.version is None and not record.counts:
                    continue
                pending.append(await self._replacement(record, change.version))
                if sum(len(replacement.chunks) for replacement in pending) >= self.writer.batch_size:
                    await self._replace(lease, pending)
                    pending = []
        await self._replace(lease, pending)

    async def _replacement(self, record: ChunkRecord, version: PageVersion | None) -> Replacement:
        if version is None:
            return Replacement(record, None)
        chunks = await asyncio.to_thread(lambda: split_version(self._split, version))
        return Replacement(record, version.version_id, chunks)

    async def _remove_gone_pages(self, lease: IndexLease) -> None:
        """Deletes the chunks of pages that have no content any more, or were deleted."""
        async with aclosing(self._rooms.chunk_records.iterate(self._site_id, self._consumer)) as parts:
            async for records in parts:
                keys = [page_key(self._site_id, record.page_id) for record in records]
                pages = {page.page_id: page for page in await self._rooms.pages.get_many(keys)}
                gone = [
                    Replacement(record, None)
                    for record in records
                    if record.page_id not in pages or _version_id(pages[record.page_id]) is None
                ]
                await self._replace(lease, gone)

    async def _replace(self, lease: IndexLease, replacements: Sequence[Replacement]) -> None:
        await self.writer.replace(lease, replacements)
        if self._on_progress is not None and self.writer.report != self._reported:
            self._reported = replace(self.writer.report)
            self._on_progress(replace(self.writer.report))


def _version_id(page: Page) -> str | None:
    """Returns the id of the version of a page that an index shall have; None for none."""
    return None if page.is_tombstone else page.current_version_id
