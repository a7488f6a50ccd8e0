"""Fetches a site as documents of Haystack, and keeps a document store of Haystack up to date with it.

It needs the extra `haystack`, which installs haystack-ai. Splitters, embedders and document stores are those
of your choice:

    fetcher = RagcrawlFetcher(config, "docs", url_prefix="https://docs.example/guide/")
    documents = fetcher.run()["documents"]

    splitter = DocumentSplitter(split_by="word", split_length=200)
    await sync_document_store(store, "docs", "search", document_store, splitter, embedder)

The metadata of documents have types that all document stores take. Values that are not known are left out:

| name | value |
|---|---|
| `source` | a link: of a page its URL, of a chunk `url#anchor` of its section |
| `url` `title` `language` | of the page |
| `site` `page_id` `version_id` | the ids of the version |
| `crawled_at` | when the version was fetched, as text (ISO 8601, UTC) |
| `headings` | of a page: its headings as Markdown, one a line |
| `section` | of a chunk: the headings above it, as "Title > Section" |
| `position` | of a chunk: its number in the version, from 0 |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.errors import MissingDocumentError
from haystack.document_stores.types import DuplicatePolicy

from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.integrations._index_writer import SyncReport
from ragcrawl_dynamo.integrations._metadata import chunk_metadata, page_metadata
from ragcrawl_dynamo.integrations._site_reader import SiteReader, Source
from ragcrawl_dynamo.integrations.chunks import Chunk, Passage, text_of
from ragcrawl_dynamo.integrations.sync import sync_index
from ragcrawl_dynamo.models import PageVersion

if TYPE_CHECKING:
    from haystack.document_stores.types import DocumentStore

__all__ = ["DocumentComponent", "DocumentStoreIndex", "RagcrawlFetcher", "sync_document_store"]

# A splitter's list of the documents that a document overlaps with. Their ids are not those that are stored.
_OVERLAPS = "_split_overlap"


class DocumentComponent(Protocol):
    """A component of Haystack that makes documents of documents, such as a splitter or an embedder."""

    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Returns the documents under the key `documents`."""
        ...


@component
class RagcrawlFetcher:
    """A component that fetches the current versions of a site as documents, one for each page.

    The documents are ordered by page_id, which is their id. Their text is the Markdown of the page, or else
    its plain text.

    A pipeline that is saved has the settings of `source` without keys and secrets. Loaded again, it finds
    credentials in the standard AWS way.

    Args:
        source: An open store or backend, or settings.
        site_id: The site.
        url_prefix: Only pages whose URL begins with it; None for all.

    Raises:
        InvalidArgumentError: An argument has a wrong type.
    """

    def __init__(self, source: Source, site_id: str, *, url_prefix: str | None = None) -> None:
        SiteReader.checked(source, site_id, url_prefix, None)
        self._source = source
        self._site_id = site_id
        self._url_prefix = url_prefix

    @component.output_types(documents=list[Document])
    def run(self, changed_since: datetime | None = None) -> dict[str, list[Document]]:
        """Fetches with a backend of its own, with the settings of `source`, in another thread.

        Args:
            changed_since: Only pages that were created or changed at that moment or later; None for all.

        Returns:
            The documents, under the key `documents`.
        """
        return {"documents": [*map(_document, self._reader(changed_since).versions_in_thread())]}

    @component.output_types(documents=list[Document])
    async def run_async(self, changed_since: datetime | None = None) -> dict[str, list[Document]]:
        """Fetches with the open `source` itself; see `run`."""
        async with aclosing(self._reader(changed_since).versions()) as versions:
            return {"documents": [_document(version) async for version in versions]}

    def to_dict(self) -> dict[str, Any]:
        """Returns the component as a pipeline saves it."""
        config = self._source.config if isinstance(self._source, DynamoDBBackend) else self._source
        secrets = {"access_key_id", "secret_access_key", "session_token"}
        settings = config.model_dump(mode="json", exclude=secrets, exclude_defaults=True)
        return default_to_dict(self, source=settings, site_id=self._site_id, url_prefix=self._url_prefix)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagcrawlFetcher:
        """Returns the component that a pipeline has saved."""
        parameters = data["init_parameters"]
        config = DynamoDBConfig.model_validate(parameters["source"])
        return default_from_dict(cls, {**data, "init_parameters": {**parameters, "source": config}})

    def _reader(self, changed_since: datetime | None) -> SiteReader:
        return SiteReader.checked(self._source, self._site_id, self._url_prefix, changed_since)


class DocumentStoreIndex:
    """A document store of Haystack as a ChunkIndex, for `clear_index` and for `sync_index` itself.

    Its methods run in threads.

    Args:
        document_store: The document store.
        embedder: Embeds the documents; None for a store that is searched without embeddings.
    """

    def __init__(self, document_store: DocumentStore, embedder: DocumentComponent | None = None) -> None:
        self._document_store = document_store
        self._embedder = embedder

    def upsert(self, chunks: Sequence[Chunk]) -> None:
        """Embeds and stores chunks; see ChunkIndex."""
        documents = [_chunk_document(chunk) for chunk in chunks]
        if self._embedder is not None:
            documents = _run(self._embedder, documents)
        self._document_store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)

    def delete(self, ids: Sequence[str]) -> None:
        """Removes chunks; see ChunkIndex."""
        try:
            self._document_store.delete_documents(list(ids))
        except MissingDocumentError:
            # Few stores raise it, and it does not say which of the others were deleted.
            for chunk_id in ids:
                with suppress(MissingDocumentError):
                    self._document_store.delete_documents([chunk_id])


async def sync_document_store(
    store: DynamoDBBackend,
    site_id: str,
    consumer: str,
    document_store: DocumentStore,
    splitter: DocumentComponent,
    embedder: DocumentComponent | None = None,
    *,
    batch_size: int = 128,
    follow: bool = False,
    poll_seconds: float = 10.0,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[SyncReport], object] | None = None,
) -> SyncReport:
    """Brings a document store up to date with a site, with the guarantees of `sync_index`.

    Args:
        store: The open store or backend.
        site_id: The site.
        consumer: The name of the index. Each document store needs its own.
        document_store: Any document store of Haystack.
        splitter: A component that splits documents, such as `DocumentSplitter`. It runs in a thread.
        embedder: A component that embeds documents; None for a store that is searched without embeddings.
        batch_size: The largest number of documents that are embedded and stored at once.
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
        for piece in _run(splitter, [_document(version)]):
            metadata = {name: value for name, value in piece.meta.items() if name != _OVERLAPS}
            yield Passage(piece.content or "", metadata=metadata)

    return await sync_index(
        store,
        site_id,
        consumer,
        DocumentStoreIndex(document_store, embedder),
        split,
        batch_size=batch_size,
        follow=follow,
        poll_seconds=poll_seconds,
        stop=stop,
        on_progress=on_progress,
    )


def _run(component_: DocumentComponent, documents: list[Document]) -> list[Document]:
    # Some components load their model here, and refuse to run before. It does nothing the second time.
    if warm_up := getattr(component_, "warm_up", None):
        warm_up()
    made: list[Document] = component_.run(documents=documents)["documents"]
    return made


def _document(version: PageVersion) -> Document:
    return Document(id=version.page_id, content=text_of(version), meta=page_metadata(version))


def _chunk_document(chunk: Chunk) -> Document:
    return Document(id=chunk.id, content=chunk.text, meta=chunk_metadata(chunk))
