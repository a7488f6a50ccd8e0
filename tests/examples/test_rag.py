"""The demo of a search index (examples/rag.py, examples/demo_search.py). `make test-rag` runs them."""

import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from examples.demo_search import HashedWords, SentenceModel, SqliteIndex, terms
from ragcrawl_dynamo import Page, PageVersion
from ragcrawl_dynamo.integrations import Chunk, chunks_of
from ragcrawl_dynamo.testing import local_dynamodb
from tests.support.http_server import http_server
from tests.support.processes import run_command

ROOT = Path(__file__).parents[2]

# It finds 24 of the 30 on Python 3.11 and 3.12, and 23 on 3.13: each version has other texts.
LEAST_FOUND = 22


async def run_rag(index: Path, *args: str) -> str:
    """The output of the demo; fails where it fails or warns."""
    code, output, errors = await run_command(
        *(sys.executable, "-W", "error::ResourceWarning", "-m", "examples.rag", "--index", f"{index}", *args),
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "140", "NO_COLOR": "1"},
    )
    assert code == 0, errors
    assert "Warning" not in errors
    return output


def steps(output: str) -> dict[str, list[int]]:
    """By the name of each step, the pages embedded and removed, and the chunks embedded."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    return {row[0]: [int(cell.replace(",", "")) for cell in row[4:7]] for row in rows if len(row) >= 7}


@pytest.mark.timeout(300)
async def test_example_rag_embeds_only_edited_pages_and_finds_the_right_pages(tmp_path: Path) -> None:
    output = await run_rag(tmp_path / "rag.sqlite", "--engine", "moto")
    first, nothing, edited = steps(output).values()
    pages, chunks = first[0], first[2]
    assert pages >= 190
    assert chunks > 10 * pages
    assert first[1] == 0
    assert nothing == [0, 0, 0]
    assert edited[:2] == [3, 1]
    assert 3 <= edited[2] < chunks / 50
    assert " chunks in the index, embedded by hashed words" in output
    # Before the edits, no page has a squirrel; after them, nothing of the page that was deleted.
    before, after = output.split("after the edits:", 1)
    news = "the mascot of the module is now a squirrel"
    assert news not in before
    assert after.count(news) == 3
    assert "colorsys.html#" in before
    assert "colorsys" not in after
    match = re.search(r"recall@5: ([\d.]+), (\d+) of 30 questions", output)
    assert match is not None
    assert int(match[2]) >= LEAST_FOUND
    assert float(match[1]) == pytest.approx(int(match[2]) / 30, abs=0.01)
    # Another call answers from the index, without a crawl.
    output = await run_rag(tmp_path / "rag.sqlite", "--ask", "which lines allocate the most memory?")
    assert "tracemalloc.html#-" in output
    assert "engine" not in output


@pytest.fixture
async def site() -> AsyncIterator[str]:
    pages = {
        "/": "<title>Home</title><p>Welcome. <a href=/guide>To</a> <a href=/logo.png>Logo</a> <a href=/gone>",
        "/guide": "<title>Guide</title><h1 id=top>Guide</h1><p>For all.<h2 id=pip>Install</h2>Use a wheel.",
    }

    async def serve(request: web.Request) -> web.Response:
        if request.path == "/logo.png":
            return web.Response(body=b"\x89PNG", content_type="image/png")
        if request.path not in pages:
            return web.Response(status=404)
        return web.Response(text=pages[request.path], content_type="text/html")

    async with http_server(serve) as url:
        yield f"{url}/"


async def test_example_rag_keeps_an_index_of_any_site_and_fills_it_again_if_it_is_lost(
    site: str, tmp_path: Path
) -> None:
    index = tmp_path / "rag.sqlite"
    async with local_dynamodb() as endpoint:
        where = ("--endpoint-url", endpoint, "--url", site, "--delay", "0.01")
        output = await run_rag(index, *where)
        assert steps(output)["first crawl"] == [2, 0, 3]
        assert steps(await run_rag(index, *where, "--ask", "a guide"))["first crawl"] == [0, 0, 0]
        index.unlink()
        output = await run_rag(index, *where, "--ask", "how do I install a wheel?")
        assert steps(output)["first crawl"] == [2, 0, 3]
        assert f"{site}guide#pip" in output


def chunks(name: str, *texts: str) -> list[Chunk]:
    page = Page(page_id=name, site_id="site", url=f"https://docs.example.org/{name}.html")
    version = PageVersion.of(page, "run", title=name, markdown="\n\n".join(texts))
    return chunks_of(version, texts)


def counted_anew(index: SqliteIndex) -> Any:
    vectors = [
        np.frombuffer(vector, np.float32)
        for (vector,) in index._database.execute("SELECT vector FROM chunks")
    ]
    return np.count_nonzero(np.stack(vectors), axis=0)


def test_demo_search_replaces_and_deletes_chunks_and_counts_their_terms(tmp_path: Path) -> None:
    with closing(SqliteIndex(tmp_path / "index.sqlite", HashedWords())) as index:
        animals = chunks("animals", "The cat sleeps.", "A dog barks at a cat.", "Horses eat grass.")
        index.upsert(animals)
        index.upsert(chunks("cars", "Cars need fuel.", "A horse needs none."))
        index.upsert(animals[:2])
        assert len(index) == 5
        assert (index.frequencies() == counted_anew(index)).all()
        assert [answer.text for answer in index.search("barking dogs", 1)] == ["A dog barks at a cat."]
        index.delete([animals[1].id, "unknown"])
        assert len(index) == 4
        assert (index.frequencies() == counted_anew(index)).all()
        (answer,) = index.search("barking dogs", 1)
        assert answer.text != "A dog barks at a cat."
        (answer,) = index.search("what do cars need?", 1)
        assert (answer.page, answer.section) == ("cars", "cars")
    with closing(SqliteIndex(tmp_path / "index.sqlite", HashedWords())) as index:
        assert (index.is_new, len(index)) == (False, 4)


def test_demo_search_of_a_rare_word_counts_more_than_that_of_a_frequent_one(tmp_path: Path) -> None:
    with closing(SqliteIndex(tmp_path / "index.sqlite", HashedWords())) as index:
        index.upsert(chunks("many", *(f"python number{i}" for i in range(50))))
        index.upsert(chunks("one", "snake number", "python zebra"))
        assert index.search("python snake", 1)[0].text == "snake number"


def test_demo_search_terms_are_words_of_names_too() -> None:
    words = terms("The JSONDecodeError of sha_256")
    assert words[:5] == ["json", "decode", "error", "sha", "256"]
    assert "<err" in words


def test_demo_search_with_a_sentence_model_begins_a_new_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SentenceTransformer:
        """Stands for a model: counts letters."""

        def __init__(self, name: str) -> None:
            self.name = name

        def encode(self, texts: list[str], **options: Any) -> Any:
            assert options["normalize_embeddings"]
            vectors = np.array(
                [[1 + text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32
            )
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SystemExit, match="pip install sentence-transformers"):
        SentenceModel("letters")
    module = ModuleType("sentence_transformers")
    monkeypatch.setattr(module, "SentenceTransformer", SentenceTransformer, raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    path = tmp_path / "index.sqlite"
    with closing(SqliteIndex(path, HashedWords())) as index:
        index.upsert(chunks("letters", "aaaa"))
    with closing(SqliteIndex(path, SentenceModel("letters"))) as index:
        assert (index.is_new, len(index)) == (True, 0)
        index.upsert(chunks("letters", "aaaa", "cccc", "ffff"))
        assert index.search("fff", 1)[0].text == "ffff"
