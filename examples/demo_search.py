"""A search index of chunks in one SQLite file, with sqlite-vec, and two embedders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import apsw
import numpy as np
import sqlite_vec
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, HashingVectorizer
from sklearn.preprocessing import normalize

from ragcrawl_dynamo.integrations import Chunk

Vectors: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

# Words, those of names too: "JSONDecodeError" is "json", "decode" and "error".
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
PIECE = 4


class Embedder(Protocol):
    """Turns texts into vectors of length 1.

    Attributes:
        name: The name of the embedder. An index has the vectors of only one embedder.
        dimensions: The number of dimensions of its vectors.
    """

    name: str
    dimensions: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embeds the texts of chunks. A vector must depend only on its text, and on no other chunk."""
        ...

    def embed_question(self, question: str, rarity: Vectors) -> Vectors:
        """Embeds a question.

        Args:
            question: The question.
            rarity: For each dimension, the inverse document frequency in the index.
        """
        ...


def terms(text: str) -> list[str]:
    """Returns the words of a text without stop words, and their pieces of four letters."""
    words = [word for match in WORD.findall(text) if (word := match.lower()) not in ENGLISH_STOP_WORDS]
    marked = [f"<{word}>" for word in words]
    return words + [word[i : i + PIECE] for word in marked for i in range(len(word) - PIECE + 1)]


class HashedWords:
    """Hashes words and pieces of words. It needs no model, but does not know synonyms.

    Inverse document frequencies depend on all chunks: as a part of vectors, they would change with each edit.
    So only the terms of the question are weighted with them, with their values at that moment.
    """

    name = "hashed words"
    dimensions = 1024

    def __init__(self) -> None:
        self._vectorizer = HashingVectorizer(analyzer=terms, n_features=self.dimensions, norm=None)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embeds the texts of chunks."""
        counts = self._vectorizer.transform(texts)
        # A term that occurs ten times says more than one that occurs once, but not ten times as much.
        counts.data = np.sign(counts.data) * (1 + np.log(np.maximum(np.abs(counts.data), 1)))
        vectors: Vectors = normalize(counts).toarray().astype(np.float32)
        return vectors

    def embed_question(self, question: str, rarity: Vectors) -> Vectors:
        """Embeds a question."""
        vector: Vectors = self._vectorizer.transform([question]).toarray()[0] * rarity
        return vector.astype(np.float32)


class SentenceModel:
    """A model of sentence-transformers, by its name or folder."""

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise SystemExit(
                "--embedder needs sentence-transformers: .venv-rag/bin/pip install sentence-transformers"
            ) from error
        self.name = name
        self._model = SentenceTransformer(name)
        self.dimensions = len(self.embed([""])[0])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embeds the texts of chunks."""
        vectors: Vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return vectors

    def embed_question(self, question: str, rarity: Vectors) -> Vectors:
        """Embeds a question."""
        vector: Vectors = self.embed([question])[0]
        return vector


@dataclass(frozen=True)
class Answer:
    """A chunk that answers a question.

    Attributes:
        similarity: From 0 to 1, the cosine between chunk and question.
        section: The title of the page, and the headings above the chunk.
        link: A link to the section.
        text: The text.
    """

    similarity: float
    section: str
    link: str
    text: str

    @property
    def page(self) -> str:
        """The name of the page: the last part of its URL, without ".html"."""
        return self.link.partition("#")[0].rpartition("/")[2].removesuffix(".html")


class SqliteIndex:
    """Stores chunks with their vectors in a file, and finds those that are nearest to a question.

    Attributes:
        is_new: Whether the file did not exist, or had vectors of another embedder.
    """

    def __init__(self, path: Path, embedder: Embedder) -> None:
        self._embedder = embedder
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = apsw.Connection(str(path))
        self._database.enable_load_extension(True)
        self._database.load_extension(sqlite_vec.loadable_path())
        self._database.execute("CREATE TABLE IF NOT EXISTS embedder (name TEXT, frequencies BLOB)")
        row = self._database.execute("SELECT name FROM embedder").fetchone()
        self.is_new = row is None or row[0] != embedder.name
        if self.is_new:
            self._create()

    def _create(self) -> None:
        dimensions = self._embedder.dimensions
        with self._database:
            self._database.execute("DROP TABLE IF EXISTS chunks")
            self._database.execute("DELETE FROM embedder")
            self._database.execute(
                "CREATE VIRTUAL TABLE chunks USING vec0(id TEXT PRIMARY KEY, "
                f"vector FLOAT[{dimensions}] DISTANCE_METRIC=cosine, +section TEXT, +link TEXT, +text TEXT)"
            )
            frequencies = np.zeros(dimensions, np.int64).tobytes()
            self._database.execute("INSERT INTO embedder VALUES (?, ?)", (self._embedder.name, frequencies))

    def upsert(self, chunks: Sequence[Chunk]) -> None:
        """Embeds and stores chunks."""
        sections = [" > ".join(dict.fromkeys((chunk.title or chunk.url, *chunk.section))) for chunk in chunks]
        # The text of a chunk may not say what the page and the section are about.
        texts = [
            "\n".join((section, chunk.metadata.get("description") or "", chunk.text))
            for section, chunk in zip(sections, chunks, strict=True)
        ]
        vectors = self._embedder.embed(texts)
        with self._database:
            self._remove([chunk.id for chunk in chunks])
            self._database.executemany(
                "INSERT INTO chunks (id, vector, section, link, text) VALUES (?, ?, ?, ?, ?)",
                [
                    (chunk.id, vector.tobytes(), section, chunk.anchor_url, chunk.text)
                    for chunk, vector, section in zip(chunks, vectors, sections, strict=True)
                ],
            )
            self._count(vectors, 1)

    def delete(self, ids: Sequence[str]) -> None:
        """Removes chunks."""
        with self._database:
            self._remove(ids)

    def search(self, question: str, limit: int = 5) -> list[Answer]:
        """Returns the chunks that are nearest to a question."""
        rarity = np.log((1 + len(self)) / (1 + self.frequencies())) + 1
        vector = self._embedder.embed_question(question, rarity.astype(np.float32))
        rows = self._database.execute(
            "SELECT distance, section, link, text FROM chunks "
            "WHERE vector MATCH ? AND k = ? ORDER BY distance",
            (vector.tobytes(), limit),
        )
        return [Answer(1 - distance, *texts) for distance, *texts in rows]

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM chunks").get)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def frequencies(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Returns the number of chunks in which each dimension is not 0."""
        return np.frombuffer(self._database.execute("SELECT frequencies FROM embedder").get, np.int64)

    def _remove(self, ids: Sequence[str]) -> None:
        stored = [
            np.frombuffer(vector, np.float32)
            for chunk_id in ids
            for (vector,) in self._database.execute("SELECT vector FROM chunks WHERE id = ?", (chunk_id,))
        ]
        self._database.executemany("DELETE FROM chunks WHERE id = ?", [(chunk_id,) for chunk_id in ids])
        if stored:
            self._count(np.stack(stored), -1)

    def _count(self, vectors: Vectors, sign: int) -> None:
        """Adds vectors to the counts, or removes them."""
        frequencies = self.frequencies() + sign * np.count_nonzero(vectors, axis=0)
        self._database.execute("UPDATE embedder SET frequencies = ?", (frequencies.tobytes(),))
