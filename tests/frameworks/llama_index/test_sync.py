"""sync_vector_store, on three vector stores of LlamaIndex and with its node parsers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter, SentenceWindowNodeParser
from llama_index.core.schema import BaseNode, MetadataMode, TextNode

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, InvalidArgumentError
from ragcrawl_dynamo.integrations import SyncReport, clear_index, reset_index, sync_index
from ragcrawl_dynamo.integrations.llama_index import NodeIndex, Transformation, sync_vector_store
from ragcrawl_dynamo.testing import ManualClock
from tests.frameworks.llama_index.stores import (
    HashEmbedding,
    LlamaIndexIndex,
    QdrantIndex,
    SimpleIndex,
    TableIndex,
    TableVectorStore,
    texts_of,
)
from tests.frameworks.pages import commit_guide
from tests.support.clocked import clock
from tests.support.deaths import MortalIndex, killed_at_every_step
from tests.support.engines import on_dynamodb_local, on_moto
from tests.support.indexes import chunks_of_site, edit, fill, paragraphs, remove, split, write

__all__ = ["clock"]

# Only the store on this machine gives these warnings.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

URL = "https://example.com/guide"

each_index = pytest.mark.parametrize("new_index", [SimpleIndex, TableIndex, QdrantIndex])


def by_paragraph(nodes: Sequence[BaseNode]) -> Sequence[BaseNode]:
    return [TextNode(text=text) for node in nodes for text in node.get_content().split("\n\n")]


@pytest.mark.parametrize(
    "transformations",
    [
        [MarkdownNodeParser()],
        [MarkdownNodeParser(), SentenceSplitter(chunk_size=100, chunk_overlap=10)],
        [by_paragraph],
    ],
    ids=["headings", "sentences", "function"],
)
async def test_sync_vector_store_cites_the_section_of_each_node(
    backend: DynamoDBBackend, transformations: Sequence[Transformation]
) -> None:
    index = TableIndex()
    await commit_guide(backend)
    report = await sync_vector_store(
        backend, "site", "search", index.vector_store, transformations, index.model, batch_size=2
    )
    nodes = index.table.rows
    assert report == SyncReport(indexed=1, embedded_chunks=len(nodes))
    assert index.embedded == len(nodes)
    cited = {
        word: (node.metadata.get("section"), node.metadata["source"])
        for node in nodes
        for word in ("first", "Install", "run()")
        if word in node.get_content()
    }
    assert cited == {
        "first": ("Guide", f"{URL}#guide"),
        "Install": ("Guide > Setup", f"{URL}#setup"),
        "run()": ("Guide > Usage", f"{URL}#guide"),
    }
    for node in nodes:
        assert node.ref_doc_id == "guide"
        assert "headings" not in node.metadata
        assert {"url", "site", "page_id", "version_id", "crawled_at", "position"} <= node.metadata.keys()


async def test_sync_vector_store_embeds_title_and_section_and_keeps_the_text_of_the_parser(
    backend: DynamoDBBackend,
) -> None:
    index = TableIndex()
    await commit_guide(backend)
    parser = SentenceWindowNodeParser.from_defaults(window_size=1)
    await sync_vector_store(backend, "site", "search", index.vector_store, [parser], index.model)
    (node,) = [node for node in index.table.rows if "Then call" in node.get_content()]
    assert "Install it. " in node.metadata["window"]
    embedded = node.get_content(MetadataMode.EMBED)
    assert embedded.splitlines()[:3] == ["title: The guide", "section: Guide > Setup", ""]
    assert embedded in index.model.texts
    shown = node.get_metadata_str(MetadataMode.LLM).splitlines()
    assert shown == [f"source: {URL}#setup", "title: The guide", "section: Guide > Setup"]


async def test_sync_vector_store_answers_queries_of_llama_index(backend: DynamoDBBackend) -> None:
    index = QdrantIndex()
    await commit_guide(backend)
    await sync_vector_store(
        backend, "site", "search", index.vector_store, [MarkdownNodeParser()], index.model
    )
    searched = VectorStoreIndex.from_vector_store(index.vector_store, embed_model=index.model)
    (text,) = [text for text in index.model.texts if "run()" in text]
    (result,) = searched.as_retriever(similarity_top_k=1).retrieve(text)
    assert result.node.metadata["section"] == "Guide > Usage"
    assert result.node.ref_doc_id == "guide"
    answer = searched.as_query_engine(llm=MockLLM(), similarity_top_k=1).query(text)
    assert f"source: {URL}#guide" in str(answer)


@each_index
async def test_sync_vector_store_follows_the_site(
    backend: DynamoDBBackend, new_index: Callable[[], LlamaIndexIndex]
) -> None:
    index = new_index()

    async def sync(**options: Any) -> SyncReport:
        target = index.vector_store, [by_paragraph], index.model
        return await sync_vector_store(backend, "site", "search", *target, **options)

    await fill(backend)
    assert await sync() == SyncReport(indexed=6, embedded_chunks=17)
    assert index.texts() == await chunks_of_site(backend)
    await edit(backend)
    report = await sync(batch_size=3)
    assert report == SyncReport(indexed=3, removed=1, embedded_chunks=8, deleted_chunks=3 + 1 + 2)
    assert index.texts() == await chunks_of_site(backend)
    assert index.embedded == 17 + 8
    assert await sync() == SyncReport()
    await clear_index(backend, "site", "search", index)
    assert index.texts() == {}


@on_moto
@each_index
async def test_sync_vector_store_replaces_nodes_that_are_there(
    backend: DynamoDBBackend, new_index: Callable[[], LlamaIndexIndex]
) -> None:
    index = new_index()
    await fill(backend)
    await sync_index(backend, "site", "search", index, split)
    await reset_index(backend, "site", "search")
    await sync_index(backend, "site", "search", index, split)
    assert index.embedded == 2 * 17
    assert index.texts() == await chunks_of_site(backend)


@on_moto
async def test_sync_vector_store_stores_nothing_twice_if_the_store_fails_to_delete(
    backend: DynamoDBBackend,
) -> None:
    class FailingOnce(TableVectorStore):
        _fails: bool = PrivateAttr(default=False)

        def fail_once(self) -> None:
            self._fails = True

        def delete_nodes(
            self, node_ids: list[str] | None = None, filters: Any = None, **delete_kwargs: Any
        ) -> None:
            if self._fails:
                self._fails = False
                raise OSError("the store failed")
            super().delete_nodes(node_ids)

    vector_store = FailingOnce()
    index = NodeIndex(vector_store, HashEmbedding())
    await fill(backend)
    await sync_index(backend, "site", "search", index, split)
    await reset_index(backend, "site", "search")
    vector_store.fail_once()
    await sync_index(backend, "site", "search", index, split)
    assert texts_of(vector_store) == await chunks_of_site(backend)


@on_moto
async def test_sync_vector_store_keeps_its_nodes_if_the_model_fails(backend: DynamoDBBackend) -> None:
    class FailingModel(HashEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            raise OSError("no key")

    index = TableIndex()
    await fill(backend)
    await sync_index(backend, "site", "search", index, split)
    await reset_index(backend, "site", "search")
    with pytest.raises(OSError, match="no key"):
        await sync_index(backend, "site", "search", NodeIndex(index.vector_store, FailingModel()), split)
    assert index.texts() == await chunks_of_site(backend)


@on_moto
async def test_sync_vector_store_with_async_clients(backend: DynamoDBBackend) -> None:
    """The clients may have no other methods."""

    class AsyncStore(TableVectorStore):
        async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
            return super().add(nodes)

        async def adelete_nodes(
            self, node_ids: list[str] | None = None, filters: Any = None, **delete_kwargs: Any
        ) -> None:
            super().delete_nodes(node_ids)

        def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
            raise AssertionError("the client is async")

        def delete_nodes(
            self, node_ids: list[str] | None = None, filters: Any = None, **delete_kwargs: Any
        ) -> None:
            raise AssertionError("the client is async")

    class AsyncModel(HashEmbedding):
        async def _aget_text_embedding(self, text: str) -> list[float]:
            return super()._get_text_embedding(text)

        def _get_text_embedding(self, text: str) -> list[float]:
            raise AssertionError("the client is async")

    vector_store, model = AsyncStore(), AsyncModel()
    await fill(backend)
    for _ in range(2):
        await sync_vector_store(
            backend, "site", "search", vector_store, [by_paragraph], model, use_async=True
        )
        await edit(backend)
    await sync_vector_store(backend, "site", "search", vector_store, [by_paragraph], model, use_async=True)
    assert texts_of(vector_store) == await chunks_of_site(backend)


@on_moto
async def test_sync_vector_store_refuses_a_store_that_cannot_delete_nodes(backend: DynamoDBBackend) -> None:
    class WithoutDelete(TableVectorStore):
        pass

    for name in ("delete_nodes", "adelete_nodes"):
        setattr(WithoutDelete, name, getattr(TableVectorStore.__base__, name))
    with pytest.raises(InvalidArgumentError, match="WithoutDelete has no delete_nodes"):
        await sync_vector_store(backend, "site", "search", WithoutDelete(), [], HashEmbedding())


async def resync(backend: DynamoDBBackend, index: MortalIndex, site_id: str) -> None:
    await sync_index(backend, site_id, "search", index, split, batch_size=4)


@on_dynamodb_local
@pytest.mark.parametrize(("new_index", "after"), [(TableIndex, False), (QdrantIndex, True)])
async def test_sync_vector_store_that_is_killed_at_any_step_is_completed_by_the_next_one(
    dynamodb_config: DynamoDBConfig,
    clock: ManualClock,
    new_index: Callable[[], LlamaIndexIndex],
    after: bool,
) -> None:
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        arguments = backend, dynamodb_config, clock, new_index, resync
        assert await killed_at_every_step(*arguments, after=after) > 15


class FlakyStore(TableVectorStore):
    """Fails now and then, before or after the call takes effect."""

    _chance: random.Random | None = PrivateAttr(default=None)

    def fail_by(self, chance: random.Random | None) -> None:
        self._chance = chance

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        self._maybe_fail()
        ids = super().add(nodes)
        self._maybe_fail()
        return ids

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: Any = None, **delete_kwargs: Any
    ) -> None:
        self._maybe_fail()
        super().delete_nodes(node_ids)
        self._maybe_fail()

    def _maybe_fail(self) -> None:
        if self._chance is not None and self._chance.random() < 0.15:
            raise OSError("the store failed")


@on_moto
@pytest.mark.parametrize("seed", range(2))
async def test_sync_vector_store_after_any_failures_of_the_store_has_the_chunks_of_the_site(
    backend: DynamoDBBackend, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 # the same history every time
    vector_store = FlakyStore()
    index = NodeIndex(vector_store, HashEmbedding())
    failures = 0
    for _ in range(20):
        name = f"p{chance.randrange(4)}"
        if chance.random() < 0.7:
            await write(backend, name, paragraphs(f"{name} {chance.randrange(3)}", chance.randrange(6)))
        else:
            await remove(backend, name)
        vector_store.fail_by(chance)
        try:
            await sync_index(backend, "site", "search", index, split, batch_size=3)
        except OSError:
            failures += 1
    assert failures > 3
    vector_store.fail_by(None)
    await sync_index(backend, "site", "search", index, split)
    assert texts_of(vector_store) == await chunks_of_site(backend)
