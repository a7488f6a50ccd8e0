"""Loads a site as documents of LangChain, and keeps a vector store of LangChain up to date with it.

It needs the extra `langchain`, which installs langchain-core alone. Splitters and vector stores are those of
your choice:

    loader = RagcrawlLoader(store, "docs", url_prefix="https://docs.example/guide/")
    documents = await loader.aload()

    splitter = RecursiveCharacterTextSplitter.from_language(Language.MARKDOWN, chunk_size=1000)
    await sync_vectorstore(store, "docs", "search", vectorstore, splitter)

The metadata of a document have types that all vector stores take. Values that are not known are left out:

| name | value |
|---|---|
| `source` | a link: of a document the URL of the page, of a chunk `url#anchor` of its section |
| `url` `title` `language` | of the page |
| `site` `page_id` `version_id` | the ids of the version |
| `crawled_at` | when the version was fetched, as text (ISO 8601, UTC) |
| `headings` | of a document: its headings as Markdown, one a line |
| `section` | of a chunk: the headings above it, as "Title > Section" |
| `position` | of a chunk: its number in the version, from 0 |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import BaseDocumentTransformer, Document

from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.integrations._index_writer import SyncReport
from ragcrawl_dynamo.integrations._metadata import chunk_metadata, page_metadata
from ragcrawl_dynamo.integrations._site_reader import SiteReader, Source
from ragcrawl_dynamo.integrations.chunks import Chunk, Passage, text_of
from ragcrawl_dynamo.integrations.sync import sync_index
from ragcrawl_dynamo.models import PageVersion

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

__all__ = ["DocumentSplitter", "RagcrawlLoader", "VectorStoreIndex", "sync_vectorstore"]

logger: logging.Logger = logging.getLogger(__name__)

DocumentSplitter: TypeAlias = BaseDocumentTransformer | Callable[[Document], Iterable[Document]]
"""A text splitter of LangChain, or a function that splits one document."""


class RagcrawlLoader(BaseLoader):
    """Loads the current versions of a site as documents, one for each page, ordered by page_id.

    The text of a document is the Markdown of the page, or else its plain text. Eight versions are in memory
    at a time.

    `lazy_load` and `load` are for synchronous programs: they open a backend of their own, with the settings
    of `source`, in another thread. `alazy_load` and `aload` use an open `source` itself.

    Args:
        source: An open store or backend, or settings.
        site_id: The site.
        url_prefix: Only pages whose URL begins with it; None for all.
        changed_since: Only pages that were created or changed at that moment or later; None for all.

    Raises:
        InvalidArgumentError: An argument has a wrong type.
    """

    def __init__(
        self,
        source: Source,
        site_id: str,
        *,
        url_prefix: str | None = None,
        changed_since: datetime | None = None,
    ) -> None:
        self._reader = SiteReader.checked(source, site_id, url_prefix, changed_since)

    def lazy_load(self) -> Iterator[Document]:
        """Yields the documents, one after the other."""
        for version in self._reader.versions_in_thread():
            yield _document(version)

    async def alazy_load(self) -> AsyncIterator[Document]:
        """Yields the documents, one after the other."""
        async with aclosing(self._reader.versions()) as versions:
            async for version in versions:
                yield _document(version)


class VectorStoreIndex:
    """A vector store of LangChain as a ChunkIndex, for `clear_index` and for `sync_index` itself.

    The vector store has to replace what it has under an id if `add_documents` gets the id again, as LangChain
    asks for, and to ignore unknown ids in `delete`.
    """

    def __init__(self, vectorstore: VectorStore) -> None:
        self._vectorstore = vectorstore

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        """Embeds and stores chunks; see ChunkIndex."""
        documents = [_chunk_document(chunk) for chunk in chunks]
        await self._vectorstore.aadd_documents(documents, ids=[chunk.id for chunk in chunks])

    async def delete(self, ids: Sequence[str]) -> None:
        """Removes chunks; see ChunkIndex."""
        if await self._vectorstore.adelete(list(ids)) is False:
            # Some stores return it for ids that they do not have.
            logger.warning(
                "%s.delete returned False: it may not have deleted all of %d chunks",
                *(type(self._vectorstore).__name__, len(ids)),
            )


async def sync_vectorstore(
    store: DynamoDBBackend,
    site_id: str,
    consumer: str,
    vectorstore: VectorStore,
    splitter: DocumentSplitter,
    *,
    batch_size: int = 128,
    follow: bool = False,
    poll_seconds: float = 10.0,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[SyncReport], object] | None = None,
) -> SyncReport:
    """Brings a vector store up to date with a site, with the guarantees of `sync_index`.

    Args:
        store: The open store or backend.
        site_id: The site.
        consumer: The name of the index. Each vector store, or collection, needs its own.
        vectorstore: Any vector store of LangChain; see VectorStoreIndex.
        splitter: A text splitter of LangChain, or a function that splits one document. It runs in a thread.
        batch_size: The largest number of chunks that are embedded and stored at once.
        follow: Continues with each further change, until `stop` is set.
        poll_seconds: The longest pause between two reads while nothing changes, in seconds.
        stop: Ends the sync once it is set.
        on_progress: Called after each batch, as by `sync_index`.

    Returns:
        A report of the pages and chunks that were changed.

    Raises:
        InvalidArgumentError: As by `sync_index`, like all other errors.
    """

    def split(version: PageVersion) -> Iterator[Passage]:
        document = _document(version)
        pieces = (
            splitter.transform_documents([document])
            if isinstance(splitter, BaseDocumentTransformer)
            else splitter(document)
        )
        for piece in pieces:
            start = piece.metadata.get("start_index", -1)
            yield Passage(piece.page_content, start if start >= 0 else None, piece.metadata)

    return await sync_index(
        store,
        site_id,
        consumer,
        VectorStoreIndex(vectorstore),
        split,
        batch_size=batch_size,
        follow=follow,
        poll_seconds=poll_seconds,
        stop=stop,
        on_progress=on_progress,
    )


def _document(version: PageVersion) -> Document:
    return Document(id=version.page_id, page_content=text_of(version), metadata=page_metadata(version))


def _chunk_document(chunk: Chunk) -> Document:
    return Document(id=chunk.id, page_content=chunk.text, metadata=chunk_metadata(chunk))
