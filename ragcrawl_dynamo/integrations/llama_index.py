"""Loads a site as documents of LlamaIndex, and keeps a vector store of LlamaIndex up to date with it.

It needs the extra `llama-index`, which installs llama-index-core alone. Node parsers, embedding models and
vector stores are those of your choice:

    reader = RagcrawlReader(store, "docs", url_prefix="https://docs.example/guide/")
    documents = await reader.aload_data()

    parsers = [MarkdownNodeParser(), SentenceSplitter(chunk_size=512)]
    await sync_vector_store(store, "docs", "search", vector_store, parsers, embed_model)

The metadata of documents and nodes have types that all vector stores take. Values that are not known are left
out:

| name | value |
|---|---|
| `source` | a link: of a document the URL of the page, of a node `url#anchor` of its section |
| `url` `title` `language` | of the page |
| `site` `page_id` `version_id` | the ids of the version |
| `crawled_at` | when the version was fetched, as text (ISO 8601, UTC) |
| `headings` | of a document: its headings as Markdown, one a line |
| `section` | of a node: the headings above it, as "Title > Section" |
| `position` | of a node: its number in the version, from 0 |

The title and the section are embedded with the text. A language model gets `source` too, so that it can cite.
The others are for filters; they are in `excluded_embed_metadata_keys` and `excluded_llm_metadata_keys`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import (
    BaseNode,
    Document,
    MetadataMode,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.integrations._index_writer import SyncReport
from ragcrawl_dynamo.integrations._metadata import chunk_metadata, page_metadata
from ragcrawl_dynamo.integrations._site_reader import SiteReader, Source
from ragcrawl_dynamo.integrations.chunks import Chunk, Passage, text_of
from ragcrawl_dynamo.integrations.sync import sync_index
from ragcrawl_dynamo.models import PageVersion

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

__all__ = ["NodeIndex", "RagcrawlReader", "Transformation", "sync_vector_store"]

Transformation: TypeAlias = Callable[[Sequence[BaseNode]], Sequence[BaseNode]]
"""A node parser or metadata extractor of LlamaIndex, or a function that converts nodes to nodes."""

# The metadata that an embedding model and a language model shall not get.
_NOT_FOR_LLMS = frozenset(
    {"url", "site", "page_id", "version_id", "crawled_at", "language", "headings", "position"}
)
_NOT_TO_EMBED = _NOT_FOR_LLMS | {"source"}

# The key in the metadata of a passage under which it keeps its node.
_NODE = "_node"


class RagcrawlReader(BaseReader):
    """Loads the current versions of a site as documents, one for each page, ordered by page_id.

    The id of a document is the page_id. Its text is the Markdown of the page, or else its plain text.

    `lazy_load_data` and `load_data` are for synchronous programs: they open a backend of their own, with the
    settings of `source`, in another thread. `alazy_load_data` and `aload_data` use an open `source` itself.

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

    def lazy_load_data(self, *args: Any, **load_kwargs: Any) -> Iterator[Document]:
        """Yields the documents, one after the other. Eight versions are in memory at a time."""
        for version in self._reader.versions_in_thread():
            yield _document(version)

    async def alazy_load_data(self, *args: Any, **load_kwargs: Any) -> Iterable[Document]:
        """Returns all documents: LlamaIndex leaves no way to wait between them."""
        return await self.aload_data()

    async def aload_data(self, *args: Any, **load_kwargs: Any) -> list[Document]:
        """Returns all documents."""
        async with aclosing(self._reader.versions()) as versions:
            return [_document(version) async for version in versions]


class NodeIndex:
    """A vector store of LlamaIndex as a ChunkIndex, for `clear_index` and for `sync_index` itself.

    Most vector stores of LlamaIndex do not replace a node whose id they have: they refuse it, ignore it or
    store it twice. So nodes are deleted by their ids before they are added. That needs a vector store with
    `delete_nodes`.

    The calls run in threads, since few models and stores have async methods of their own. With `use_async`
    the async methods are called in the event loop, for clients that have no others.

    Args:
        vector_store: The vector store.
        embed_model: Embeds the text of nodes with their title and section.
        use_async: Calls the async methods of both.

    Raises:
        InvalidArgumentError: The vector store cannot delete nodes by their ids.
    """

    def __init__(
        self, vector_store: BasePydanticVectorStore, embed_model: BaseEmbedding, *, use_async: bool = False
    ) -> None:
        methods = [getattr(type(vector_store), name, None) for name in ("delete_nodes", "adelete_nodes")]
        if methods == [BasePydanticVectorStore.delete_nodes, BasePydanticVectorStore.adelete_nodes]:
            raise InvalidArgumentError(
                "vector_store",
                f"{type(vector_store).__name__} has no delete_nodes, which deletes nodes by their ids: use a "
                f"vector store that has it",
            )
        self._vector_store = vector_store
        self._embed_model = embed_model
        self._use_async = use_async

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        """Embeds and stores chunks; see ChunkIndex."""
        nodes = [_node(chunk) for chunk in chunks]
        ids = [node.node_id for node in nodes]
        # Embedded first, so that the stored nodes stay if the model fails.
        await self._embed(nodes)
        try:
            await self.delete(ids)
        except Exception:
            # Some stores cannot delete anything until their first node has created the table.
            await self._add(nodes)
            await self.delete(ids)
        await self._add(nodes)

    async def delete(self, ids: Sequence[str]) -> None:
        """Removes chunks; see ChunkIndex."""
        if self._use_async:
            await self._vector_store.adelete_nodes(list(ids))
        else:
            await asyncio.to_thread(self._vector_store.delete_nodes, list(ids))

    async def _embed(self, nodes: Sequence[BaseNode]) -> None:
        texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
        if self._use_async:
            embeddings = await self._embed_model.aget_text_embedding_batch(texts)
        else:
            embeddings = await asyncio.to_thread(self._embed_model.get_text_embedding_batch, texts)
        for node, embedding in zip(nodes, embeddings, strict=True):
            node.embedding = embedding

    async def _add(self, nodes: Sequence[BaseNode]) -> None:
        if self._use_async:
            await self._vector_store.async_add(nodes)
        else:
            await asyncio.to_thread(self._vector_store.add, nodes)


async def sync_vector_store(
    store: DynamoDBBackend,
    site_id: str,
    consumer: str,
    vector_store: BasePydanticVectorStore,
    transformations: Sequence[Transformation],
    embed_model: BaseEmbedding,
    *,
    use_async: bool = False,
    batch_size: int = 128,
    follow: bool = False,
    poll_seconds: float = 10.0,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[SyncReport], object] | None = None,
) -> SyncReport:
    """Brings a vector store up to date with a site, with the guarantees of `sync_index`.

    The id of a node is that of its chunk, and its source (`ref_doc_id`) is the page_id.

    Args:
        store: The open store or backend.
        site_id: The site.
        consumer: The name of the index. Each vector store, or collection, needs its own.
        vector_store: A vector store of LlamaIndex; see NodeIndex.
        transformations: Make nodes of the document of a page, one after the other. They run in a thread.
        embed_model: Embeds the nodes; see NodeIndex.
        use_async: Calls the async methods of the vector store and the model; see NodeIndex.
        batch_size: The largest number of nodes that are embedded and stored at once. The model may embed them
            in smaller batches (`embed_batch_size`).
        follow: Continues with each further change, until `stop` is set.
        poll_seconds: The longest pause between two reads while nothing changes, in seconds.
        stop: Ends the sync once it is set.
        on_progress: Called after each batch, as by `sync_index`.

    Returns:
        A report of the pages and chunks that were changed.

    Raises:
        InvalidArgumentError: The vector store cannot delete nodes by their ids; or as by `sync_index`, which
            also says what else is raised.
    """

    def split(version: PageVersion) -> Iterator[Passage]:
        nodes: Sequence[BaseNode] = [_document(version)]
        for transformation in transformations:
            nodes = transformation(nodes)
        for node in nodes:
            yield Passage(node.get_content(MetadataMode.NONE), metadata={_NODE: node})

    return await sync_index(
        store,
        site_id,
        consumer,
        NodeIndex(vector_store, embed_model, use_async=use_async),
        split,
        batch_size=batch_size,
        follow=follow,
        poll_seconds=poll_seconds,
        stop=stop,
        on_progress=on_progress,
    )


def _document(version: PageVersion) -> Document:
    return Document(
        id_=version.page_id,
        text=text_of(version),
        metadata=page_metadata(version),
        excluded_embed_metadata_keys=sorted(_NOT_TO_EMBED),
        excluded_llm_metadata_keys=sorted(_NOT_FOR_LLMS),
    )


def _node(chunk: Chunk) -> BaseNode:
    """Returns the node of a chunk, as the node parser made it, with the id and the metadata of the chunk."""
    metadata = dict(chunk.metadata)
    made: BaseNode = metadata.pop(_NODE, None) or TextNode(text=chunk.text, metadata=metadata)
    node = made.model_copy()
    node.id_ = chunk.id
    node.metadata = chunk_metadata(replace(chunk, metadata=made.metadata))
    node.excluded_embed_metadata_keys = sorted({*made.excluded_embed_metadata_keys, *_NOT_TO_EMBED})
    node.excluded_llm_metadata_keys = sorted({*made.excluded_llm_metadata_keys, *_NOT_FOR_LLMS})
    # The others lead to ids that the node parser chose.
    source = RelatedNodeInfo(node_id=chunk.page_id, node_type=ObjectType.DOCUMENT)
    node.relationships = {NodeRelationship.SOURCE: source}
    return node
