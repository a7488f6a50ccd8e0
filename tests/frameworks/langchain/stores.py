"""A vector store of LangChain in memory, and embeddings that need no model."""

from __future__ import annotations

from hashlib import sha256

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from ragcrawl_dynamo.integrations.langchain import VectorStoreIndex


class HashEmbeddings(Embeddings):
    """The same vector for the same text; counts the texts."""

    def __init__(self) -> None:
        self.embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [byte / 255 for byte in sha256(text.encode()).digest()]


class InMemoryIndex(VectorStoreIndex):
    """The index of such a store, whose contents tests can look at."""

    def __init__(self) -> None:
        self.embeddings = HashEmbeddings()
        self.vectorstore = InMemoryVectorStore(self.embeddings)
        super().__init__(self.vectorstore)

    @property
    def embedded(self) -> int:
        return self.embeddings.embedded

    def texts(self) -> dict[str, str]:
        return {chunk_id: stored["text"] for chunk_id, stored in self.vectorstore.store.items()}
