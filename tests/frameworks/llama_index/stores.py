"""Vector stores of LlamaIndex in memory, which differ in how they take a node twice, and embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from ragcrawl_dynamo.integrations.llama_index import NodeIndex

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode


class HashEmbedding(BaseEmbedding):
    """The same vector for the same text; keeps the texts."""

    embed_batch_size: int = 3
    _texts: list[str] = PrivateAttr(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return self._texts

    def _get_text_embedding(self, text: str) -> list[float]:
        self._texts.append(text)
        return self._get_query_embedding(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return [byte / 255 for byte in sha256(query.encode()).digest()]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class TableVectorStore(BasePydanticVectorStore):
    """Behaves as the stores of LanceDB and Postgres do.

    A node that is added twice is there twice, and nothing can be deleted before the first node has created
    the table.
    """

    stores_text: bool = True
    _rows: list[BaseNode] | None = PrivateAttr(default=None)

    @property
    def client(self) -> None:
        return None

    @property
    def rows(self) -> list[BaseNode]:
        return self._rows or []

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        assert all(node.embedding for node in nodes)
        self._rows = [*self.rows, *nodes]
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        raise AssertionError("all nodes of a page at once")

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: Any = None, **delete_kwargs: Any
    ) -> None:
        assert node_ids is not None
        if self._rows is None:
            raise LookupError("no table")
        self._rows = [node for node in self._rows if node.node_id not in node_ids]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> Any:
        raise NotImplementedError


class LlamaIndexIndex(NodeIndex):
    """The index of a vector store, whose contents tests can look at."""

    def __init__(self, vector_store: BasePydanticVectorStore) -> None:
        self.model = HashEmbedding()
        self.vector_store = vector_store
        super().__init__(vector_store, self.model)

    @property
    def embedded(self) -> int:
        return len(self.model.texts)

    def texts(self) -> dict[str, str]:
        raise NotImplementedError


class SimpleIndex(LlamaIndexIndex):
    """The store of LlamaIndex's core, which keeps no text. The vectors show the texts they were made of."""

    def __init__(self) -> None:
        self.simple = SimpleVectorStore()
        super().__init__(self.simple)

    def texts(self) -> dict[str, str]:
        by_vector = {tuple(self.model.get_query_embedding(text)): text for text in self.model.texts}
        return {id_: by_vector[tuple(vector)] for id_, vector in self.simple.data.embedding_dict.items()}


class TableIndex(LlamaIndexIndex):
    def __init__(self) -> None:
        self.table = TableVectorStore()
        super().__init__(self.table)

    def texts(self) -> dict[str, str]:
        return texts_of(self.table)


class QdrantIndex(LlamaIndexIndex):
    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        super().__init__(QdrantVectorStore(client=self.client, collection_name="pages"))

    def texts(self) -> dict[str, str]:
        return {node.node_id: node.get_content() for node in self.vector_store.get_nodes()}


def texts_of(table: TableVectorStore) -> dict[str, str]:
    """By id, the text of each node; fails if one is there twice."""
    texts = {node.node_id: node.get_content() for node in table.rows}
    assert len(texts) == len(table.rows)
    return texts
