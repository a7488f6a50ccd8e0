"""Document stores of Haystack in memory, and an embedder without a model."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from haystack import Document, component
from haystack.document_stores.errors import MissingDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore

from ragcrawl_dynamo.integrations.haystack import DocumentStoreIndex


@component
class HashEmbedder:
    """The same vector for the same text; counts the texts. It has to be warmed up, as those with models."""

    def __init__(self) -> None:
        self.embedded = 0
        self._is_warm = False

    def warm_up(self) -> None:
        self._is_warm = True

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        assert self._is_warm
        self.embedded += len(documents)
        return {
            "documents": [
                replace(document, embedding=vector(document.content or "")) for document in documents
            ]
        }


def vector(text: str) -> list[float]:
    return [byte / 255 for byte in sha256(text.encode()).digest()]


class StrictDocumentStore(InMemoryDocumentStore):
    """Follows the protocol of Haystack: deleting a document that is not there raises."""

    def delete_documents(self, document_ids: list[str]) -> None:
        for document_id in document_ids:
            if document_id not in self.storage:
                raise MissingDocumentError(document_id)
            super().delete_documents([document_id])


class InMemoryIndex(DocumentStoreIndex):
    """The index of a document store, whose contents tests can look at."""

    def __init__(self, document_store: InMemoryDocumentStore | None = None) -> None:
        self.embedder = HashEmbedder()
        self.document_store = document_store or InMemoryDocumentStore()
        super().__init__(self.document_store, self.embedder)

    @property
    def embedded(self) -> int:
        return self.embedder.embedded

    def texts(self) -> dict[str, str]:
        documents = self.document_store.filter_documents()
        assert all(document.embedding == vector(document.content or "") for document in documents)
        return {document.id: document.content or "" for document in documents}


class StrictIndex(InMemoryIndex):
    def __init__(self) -> None:
        super().__init__(StrictDocumentStore())
