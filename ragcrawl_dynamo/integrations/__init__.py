r"""Keeps a search index of chunks up to date with a site, for any vector store.

An index is an object with two methods (see ChunkIndex), and a splitter is a function:

    class Index:
        async def upsert(self, chunks: Sequence[Chunk]) -> None: ...
        async def delete(self, ids: Sequence[str]) -> None: ...

    def split(version: PageVersion) -> list[str]:
        return text_of(version).split("\n\n")

    await sync_index(store, "docs", "search", Index(), split)

`ragcrawl_dynamo.integrations.langchain` does the same for each vector store of LangChain.
"""

from ragcrawl_dynamo.integrations._index_writer import SyncReport
from ragcrawl_dynamo.integrations.chunks import (
    Chunk,
    Heading,
    Passage,
    chunk_id,
    chunks_of,
    headings_of,
    text_of,
)
from ragcrawl_dynamo.integrations.index import ChunkIndex, Splitter
from ragcrawl_dynamo.integrations.sync import clear_index, reset_index, sync_index

__all__ = [
    "Chunk",
    "ChunkIndex",
    "Heading",
    "Passage",
    "Splitter",
    "SyncReport",
    "chunk_id",
    "chunks_of",
    "clear_index",
    "headings_of",
    "reset_index",
    "sync_index",
    "text_of",
]
