"""Replaces the chunks of pages in an index, so that a process may be killed at any point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ragcrawl_dynamo._indexing.chunk_records import ChunkRecord, ChunkRecords
from ragcrawl_dynamo._indexing.lease import IndexLease
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.integrations._user_code import named_pages, noted
from ragcrawl_dynamo.integrations.chunks import Chunk, chunk_id
from ragcrawl_dynamo.integrations.index import ChunkIndex, batches, call


@dataclass(slots=True)
class SyncReport:
    """The result of a sync.

    Attributes:
        indexed: Pages whose chunks were embedded and stored.
        removed: Pages that are gone, and whose chunks were deleted.
        unchanged: Pages whose chunks the index had already.
        embedded_chunks: Chunks that were passed to `upsert`.
        deleted_chunks: Ids that were passed to `delete`.
    """

    indexed: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded_chunks: int = 0
    deleted_chunks: int = 0


@dataclass(frozen=True, slots=True)
class Replacement:
    """Names the chunks of a page that the index shall have, and those that it may have now.

    Attributes:
        record: The page's chunk record, as it is stored.
        version_id: The version to index; None to delete all chunks of the page.
        chunks: The chunks of the version.
    """

    record: ChunkRecord
    version_id: str | None
    chunks: Sequence[Chunk] = ()

    def intent(self, fence: int) -> ChunkRecord:
        """Returns the record to write before the index changes: chunks that may be there, and new ones."""
        counts = dict(self.record.counts)
        if self.version_id is not None:
            counts[self.version_id] = max(counts.get(self.version_id, 0), len(self.chunks))
        return replace(self.record, counts=counts, complete=None, fence=fence)

    def result(self, generation: int) -> ChunkRecord:
        """Returns the record to write after the index has changed."""
        counts = {} if self.version_id is None else {self.version_id: len(self.chunks)}
        return replace(self.record, counts=counts, complete=self.version_id, generation=generation)

    def stale_ids(self, site_id: str) -> list[str]:
        """Returns the ids of chunks that may be in the index and are not chunks of the version."""
        return [
            chunk_id(site_id, self.record.page_id, version_id, position)
            for version_id, count in self.record.counts.items()
            for position in range(len(self.chunks) if version_id == self.version_id else 0, count)
        ]


class IndexWriter:
    """Changes one index, and keeps its chunk records.

    Attributes:
        site_id: The site.
        consumer: The name of the index.
        report: The result so far.
        batch_size: The largest number of chunks in one call of the index.
    """

    def __init__(
        self, records: ChunkRecords, site_id: str, consumer: str, index: ChunkIndex, batch_size: int
    ) -> None:
        self.site_id = site_id
        self.consumer = consumer
        self.report = SyncReport()
        self.batch_size = batch_size
        self._records = records
        self._index = index
        self._tasks = Tasks()

    async def replace(self, lease: IndexLease, replacements: Sequence[Replacement]) -> None:
        """Stores the chunks of the versions of pages, all different, and deletes all others of these pages.

        Raises:
            ConflictError: Another process has taken the lease.
        """
        pending = list(replacements)
        while pending:
            intended = await self._write_intents(lease, pending)
            chunks = [chunk for replacement in intended for chunk in replacement.chunks]
            for batch in batches(chunks, self.batch_size):
                await lease.check()
                urls: dict[str, str | None] = {chunk.page_id: chunk.url for chunk in batch}
                await self._to_its_end("upsert", batch, urls)
                self.report.embedded_chunks += len(batch)
            stale = {
                id_: replacement.record.page_id
                for replacement in intended
                for id_ in replacement.stale_ids(self.site_id)
            }
            for ids in batches(list(stale), self.batch_size):
                await lease.check()
                await self._to_its_end("delete", ids, dict.fromkeys(stale[id_] for id_ in ids))
                self.report.deleted_chunks += len(ids)
            pending = await self._write_results(lease, intended)

    async def _write_intents(
        self, lease: IndexLease, replacements: Sequence[Replacement]
    ) -> list[Replacement]:
        """Records which chunks may be in the index from now on; returns replacements with these records."""
        intended: dict[str, Replacement] = {}
        pending = {replacement.record.page_id: replacement for replacement in replacements}
        while pending:
            for page in pending.values():
                check_fence(lease, page.record)
            intents = [page.intent(lease.state.fence) for page in pending.values()]
            written, refused = await self._records.put_all(self.site_id, self.consumer, intents)
            for record in written:
                intended[record.page_id] = replace(pending.pop(record.page_id), record=record)
            # A write of an earlier sync came late: the chunks that it recorded may be in the index too.
            pending = {record.page_id: replace(pending[record.page_id], record=record) for record in refused}
        return [intended[replacement.record.page_id] for replacement in replacements]

    async def _write_results(
        self, lease: IndexLease, replacements: Sequence[Replacement]
    ) -> list[Replacement]:
        """Records which chunks are in the index; returns the replacements to repeat, with stored records."""
        results = [replacement.result(lease.state.generation) for replacement in replacements]
        written, refused = await self._records.put_all(self.site_id, self.consumer, results)
        self.report.indexed += sum(record.complete is not None for record in written)
        self.report.removed += sum(record.complete is None for record in written)
        stored = {record.page_id: record for record in refused}
        return [
            replace(replacement, record=stored[replacement.record.page_id])
            for replacement in replacements
            if replacement.record.page_id in stored
        ]

    async def _to_its_end(
        self, method: str, argument: Sequence[Any], pages: Mapping[str, str | None]
    ) -> None:
        """Calls the index. If the caller is cancelled, it waits until the call has ended.

        Otherwise the call could store chunks later that no record has. An error gets a note with the pages.
        """
        name = f"{type(self._index).__name__}.{method}"
        try:
            with noted(f"raised by {name} for {len(argument)} chunks of {named_pages(pages)}"):
                await self._tasks.uninterrupted(call(getattr(self._index, method), argument))
        finally:
            await self._tasks.join()


def check_fence(lease: IndexLease, record: ChunkRecord) -> None:
    """Refuses a record that was written under a later lease.

    Raises:
        ConflictError: Another process has taken the lease.
    """
    if record.fence > lease.state.fence:
        raise lease.lost()
