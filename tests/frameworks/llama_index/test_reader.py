"""RagcrawlReader: documents of a site, in both ways of LlamaIndex, beside LlamaIndex itself."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import MetadataMode

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, InvalidArgumentError
from ragcrawl_dynamo.integrations.llama_index import RagcrawlReader
from tests.frameworks.pages import JSON, commit
from tests.support.factories import make_page


async def loaded(reader: RagcrawlReader) -> list[str]:
    """The ids of the pages, in all ways."""
    ids = [document.id_ for document in await reader.aload_data()]
    assert [document.id_ for document in await reader.alazy_load_data()] == ids
    assert [document.id_ for document in await asyncio.to_thread(reader.load_data)] == ids
    return ids


async def test_reader_makes_a_document_of_each_page(backend: DynamoDBBackend) -> None:
    await commit(backend, "json", markdown=JSON, title="json", language="en")
    reader = RagcrawlReader(backend, "site")
    assert isinstance(reader, BaseReader)
    (document,) = await reader.aload_data()
    assert (document.id_, document.text) == ("json", JSON)
    assert document.metadata == {
        "source": "https://example.com/json",
        "url": "https://example.com/json",
        "title": "json",
        "site": "site",
        "page_id": "json",
        "version_id": "v1",
        "crawled_at": "2026-01-01T00:00:00+00:00",
        "language": "en",
        "headings": "# json\n## Basic Usage",
    }
    assert await asyncio.to_thread(reader.load_data) == [document]


async def test_reader_embeds_the_title_and_lets_a_language_model_cite(backend: DynamoDBBackend) -> None:
    await commit(backend, "json", markdown=JSON, title="json", language="en")
    (document,) = await RagcrawlReader(backend, "site").aload_data()
    assert document.get_metadata_str(MetadataMode.EMBED) == "title: json"
    shown = document.get_metadata_str(MetadataMode.LLM)
    assert shown == "source: https://example.com/json\ntitle: json"


async def test_reader_leaves_out_unknown_metadata_and_pages_that_are_gone(backend: DynamoDBBackend) -> None:
    await commit(backend, "a", markdown="", plain_text="Text.")
    await commit(backend, "b")
    await backend.commit_page(make_page("b", status_code=404))
    await commit(backend, "c", markdown="", plain_text="")
    first, empty = await RagcrawlReader(backend, "site").aload_data()
    assert (first.text, empty.text) == ("Text.", "")
    assert first.metadata.keys() == {"source", "url", "site", "page_id", "version_id", "crawled_at"}


async def test_reader_filters_by_url_and_time(backend: DynamoDBBackend) -> None:
    for page_id in ("guide/a", "guide/b", "other"):
        await commit(backend, page_id)
    prefix = "https://example.com/guide/"
    assert await loaded(RagcrawlReader(backend, "site")) == ["guide/a", "guide/b", "other"]
    assert await loaded(RagcrawlReader(backend, "site", url_prefix=prefix)) == ["guide/a", "guide/b"]
    page = await backend.get_page("site", "guide/b")
    assert page is not None
    assert page.last_changed is not None
    since = page.last_changed
    assert await loaded(RagcrawlReader(backend, "site", changed_since=since)) == ["guide/b", "other"]
    later = RagcrawlReader(backend, "site", changed_since=since + timedelta(days=1))
    assert await loaded(later) == []


async def test_reader_opens_settings(backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig) -> None:
    for i in range(12):
        await commit(backend, f"p{i:02}")
    assert await loaded(RagcrawlReader(dynamodb_config, "site")) == [f"p{i:02}" for i in range(12)]


async def test_lazy_load_data_that_is_not_exhausted_leaves_no_thread(backend: DynamoDBBackend) -> None:
    for i in range(12):
        await commit(backend, f"p{i:02}")

    def load_one() -> str:
        documents: Any = RagcrawlReader(backend, "site").lazy_load_data()
        first: str = next(documents).id_
        documents.close()
        return first

    assert await asyncio.to_thread(load_one) == "p00"
    assert [thread.name for thread in threading.enumerate() if thread.name == "ragcrawl_dynamo"] == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("source", {"source": "http://localhost"}),
        ("url_prefix", {"url_prefix": 1}),
        ("changed_since", {"changed_since": 1}),
    ],
)
def test_reader_refuses_arguments_of_a_wrong_type(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        RagcrawlReader(**{"source": DynamoDBConfig(), "site_id": "site", **arguments})
