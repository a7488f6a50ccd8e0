"""sync_vectorstore, on LangChain's vector store in memory and with its splitters."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_text_splitters import (
    Language,
    MarkdownHeaderTextSplitter,
    RecursiveCharacterTextSplitter,
)

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.integrations import SyncReport, clear_index, sync_index
from ragcrawl_dynamo.integrations.langchain import DocumentSplitter, sync_vectorstore
from ragcrawl_dynamo.testing import ManualClock
from tests.frameworks.langchain.stores import InMemoryIndex
from tests.frameworks.pages import commit_guide
from tests.support.clocked import clock
from tests.support.deaths import MortalIndex, killed_at_every_step
from tests.support.engines import on_dynamodb_local
from tests.support.indexes import edit, fill, split

__all__ = ["clock"]


def by_header(document: Document) -> list[Document]:
    return MarkdownHeaderTextSplitter([("#", "title"), ("##", "part")]).split_text(document.page_content)


@pytest.mark.parametrize(
    "splitter",
    [
        RecursiveCharacterTextSplitter.from_language(Language.MARKDOWN, chunk_size=60, chunk_overlap=0),
        RecursiveCharacterTextSplitter.from_language(
            Language.MARKDOWN, chunk_size=60, chunk_overlap=20, add_start_index=True
        ),
        by_header,
    ],
)
async def test_sync_vectorstore_cites_the_section_of_each_chunk(
    backend: DynamoDBBackend, splitter: DocumentSplitter
) -> None:
    index = InMemoryIndex()
    await commit_guide(backend)
    report = await sync_vectorstore(backend, "site", "search", index.vectorstore, splitter)
    assert report == SyncReport(indexed=1, embedded_chunks=index.embedded)
    documents = index.vectorstore.similarity_search("", k=100)
    cited = {
        next(word for word in ("first", "Install", "run()") if word in document.page_content): (
            document.metadata.get("section"),
            document.metadata["source"],
        )
        for document in documents
        if any(word in document.page_content for word in ("first", "Install", "run()"))
    }
    url = "https://example.com/guide"
    assert cited == {
        "first": ("Guide", f"{url}#guide"),
        "Install": ("Guide > Setup", f"{url}#setup"),
        "run()": ("Guide > Usage", f"{url}#guide"),
    }
    for document in documents:
        assert document.metadata["title"] == "The guide"
        assert {"url", "site", "page_id", "version_id", "crawled_at", "position"} <= document.metadata.keys()


async def test_sync_vectorstore_follows_the_site(backend: DynamoDBBackend) -> None:
    index = InMemoryIndex()
    splitter = RecursiveCharacterTextSplitter(chunk_size=40, chunk_overlap=10)

    async def wanted() -> dict[tuple[str, str], int]:
        documents = splitter.split_documents(
            [
                Document(version.markdown, metadata={"page": version.page_id})
                async for version in backend.iter_versions("site")
            ]
        )
        return counted((document.metadata["page"], document.page_content) for document in documents)

    def stored() -> dict[tuple[str, str], int]:
        documents = index.vectorstore.similarity_search("", k=1000)
        return counted((document.metadata["page_id"], document.page_content) for document in documents)

    await fill(backend)
    await sync_vectorstore(backend, "site", "search", index.vectorstore, splitter)
    assert stored() == await wanted()
    embedded = index.embedded
    await edit(backend)
    await sync_vectorstore(backend, "site", "search", index.vectorstore, splitter, batch_size=3)
    assert stored() == await wanted()
    assert index.embedded < 2 * embedded
    embedded = index.embedded
    assert await sync_vectorstore(backend, "site", "search", index.vectorstore, splitter) == SyncReport()
    assert index.embedded == embedded
    await clear_index(backend, "site", "search", index)
    assert stored() == {}


def counted(values: Any) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


async def resync(backend: DynamoDBBackend, index: MortalIndex, site_id: str) -> None:
    await sync_index(backend, site_id, "search", index, split, batch_size=4)


@on_dynamodb_local
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_sync_vectorstore_that_is_killed_at_any_step_is_completed_by_the_next_one(
    dynamodb_config: DynamoDBConfig, clock: ManualClock, after: bool
) -> None:
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        arguments = backend, dynamodb_config, clock, InMemoryIndex, resync
        assert await killed_at_every_step(*arguments, after=after) > 15
