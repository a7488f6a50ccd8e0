"""sync_document_store, on Haystack's document store in memory and with its splitters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from haystack import Document, component
from haystack.components.preprocessors import (
    DocumentPreprocessor,
    DocumentSplitter,
    MarkdownHeaderSplitter,
    RecursiveDocumentSplitter,
)
from haystack.components.retrievers import InMemoryBM25Retriever

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.integrations import SyncReport, clear_index, reset_index, sync_index
from ragcrawl_dynamo.integrations.haystack import DocumentComponent, sync_document_store
from ragcrawl_dynamo.testing import ManualClock
from tests.frameworks.haystack.stores import InMemoryIndex, StrictIndex
from tests.frameworks.pages import commit_guide
from tests.support.clocked import clock
from tests.support.deaths import MortalIndex, killed_at_every_step
from tests.support.engines import on_dynamodb_local
from tests.support.indexes import chunks_of_site, edit, fill, split

__all__ = ["clock"]

URL = "https://example.com/guide"

each_index = pytest.mark.parametrize("new_index", [InMemoryIndex, StrictIndex])


@component
class ParagraphSplitter:
    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        texts = [text for document in documents for text in (document.content or "").split("\n\n")]
        return {"documents": [Document(content=text) for text in texts]}


@pytest.mark.parametrize(
    "splitter",
    [
        MarkdownHeaderSplitter(),
        DocumentSplitter(split_by="passage", split_length=1),
        DocumentSplitter(split_by="line", split_length=2, split_overlap=1),
        DocumentPreprocessor(split_by="passage", split_length=1, remove_extra_whitespaces=False),
        RecursiveDocumentSplitter(split_length=60, split_unit="char", separators=["\n\n", "\n", " "]),
    ],
    ids=["headers", "passages", "lines", "cleaned", "recursive"],
)
async def test_sync_document_store_cites_the_section_of_each_document(
    backend: DynamoDBBackend, splitter: DocumentComponent
) -> None:
    index = InMemoryIndex()
    await commit_guide(backend)
    report = await sync_document_store(
        backend, "site", "search", index.document_store, splitter, index.embedder
    )
    documents = index.document_store.filter_documents()
    assert report == SyncReport(indexed=1, embedded_chunks=len(documents))
    cited = {
        word: (document.meta.get("section"), document.meta["source"])
        for document in documents
        for word in ("first", "Install", "run()")
        if word in (document.content or "")
    }
    assert cited == {
        "first": ("Guide", f"{URL}#guide"),
        "Install": ("Guide > Setup", f"{URL}#setup"),
        "run()": ("Guide > Usage", f"{URL}#guide"),
    }
    for document in documents:
        assert document.meta["title"] == "The guide"
        assert not {"headings", "_split_overlap"} & document.meta.keys()
        assert {"url", "site", "page_id", "version_id", "crawled_at", "position"} <= document.meta.keys()


async def test_sync_document_store_without_an_embedder_answers_queries(backend: DynamoDBBackend) -> None:
    index = InMemoryIndex()
    await commit_guide(backend)
    splitter = DocumentSplitter(split_by="passage", split_length=1)
    await sync_document_store(backend, "site", "search", index.document_store, splitter)
    retriever = InMemoryBM25Retriever(index.document_store, top_k=1)
    (document,) = retriever.run(query="how to install")["documents"]
    assert (document.meta["section"], document.embedding) == ("Guide > Setup", None)


@each_index
async def test_sync_document_store_follows_the_site(
    backend: DynamoDBBackend, new_index: Callable[[], InMemoryIndex]
) -> None:
    index = new_index()

    async def sync(**options: Any) -> SyncReport:
        target = index.document_store, ParagraphSplitter(), index.embedder
        return await sync_document_store(backend, "site", "search", *target, **options)

    await fill(backend)
    assert await sync() == SyncReport(indexed=6, embedded_chunks=17)
    assert index.texts() == await chunks_of_site(backend)
    await edit(backend)
    report = await sync(batch_size=3)
    assert report == SyncReport(indexed=3, removed=1, embedded_chunks=8, deleted_chunks=3 + 1 + 2)
    assert index.texts() == await chunks_of_site(backend)
    assert index.embedded == 17 + 8
    assert await sync() == SyncReport()
    await reset_index(backend, "site", "search")
    await sync()
    assert index.texts() == await chunks_of_site(backend)
    await clear_index(backend, "site", "search", index)
    assert index.texts() == {}


async def resync(backend: DynamoDBBackend, index: MortalIndex, site_id: str) -> None:
    await sync_index(backend, site_id, "search", index, split, batch_size=4)


@on_dynamodb_local
@pytest.mark.parametrize(("new_index", "after"), [(StrictIndex, False), (InMemoryIndex, True)])
async def test_sync_document_store_that_is_killed_at_any_step_is_completed_by_the_next_one(
    dynamodb_config: DynamoDBConfig,
    clock: ManualClock,
    new_index: Callable[[], InMemoryIndex],
    after: bool,
) -> None:
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        arguments = backend, dynamodb_config, clock, new_index, resync
        assert await killed_at_every_step(*arguments, after=after) > 15
