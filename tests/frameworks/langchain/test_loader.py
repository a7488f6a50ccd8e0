"""RagcrawlLoader: documents of a site, in both ways of LangChain, beside LangChain itself."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from langchain_core.document_loaders import BaseLoader

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, InvalidArgumentError
from ragcrawl_dynamo.integrations.langchain import RagcrawlLoader
from tests.frameworks.pages import JSON, commit
from tests.support.factories import make_page


async def loaded(loader: RagcrawlLoader) -> list[str]:
    """The ids of the pages, in both ways."""
    ids = [str(document.id) for document in await loader.aload()]
    assert [document.id for document in await asyncio.to_thread(loader.load)] == ids
    return ids


async def test_loader_makes_a_document_of_each_page(backend: DynamoDBBackend) -> None:
    outline: list[Any] = [{"level": 2, "text": "Basic Usage", "anchor": "basic-usage"}]
    await commit(backend, "json", markdown=JSON, title="json", language="en", headings_outline=outline)
    loader = RagcrawlLoader(backend, "site")
    assert isinstance(loader, BaseLoader)
    (document,) = await loader.aload()
    assert (document.id, document.page_content) == ("json", JSON)
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
    assert await asyncio.to_thread(loader.load) == [document]


async def test_loader_leaves_out_unknown_metadata_and_pages_that_are_gone(backend: DynamoDBBackend) -> None:
    await commit(backend, "a", markdown="", plain_text="Text.")
    await commit(backend, "b")
    await backend.commit_page(make_page("b", status_code=404))
    (document,) = await RagcrawlLoader(backend, "site").aload()
    assert document.page_content == "Text."
    assert document.metadata.keys() == {"source", "url", "site", "page_id", "version_id", "crawled_at"}


async def test_loader_filters_by_url_and_time(backend: DynamoDBBackend) -> None:
    for page_id in ("guide/a", "guide/b", "other"):
        await commit(backend, page_id)
    prefix = "https://example.com/guide/"
    assert await loaded(RagcrawlLoader(backend, "site")) == ["guide/a", "guide/b", "other"]
    assert await loaded(RagcrawlLoader(backend, "site", url_prefix=prefix)) == ["guide/a", "guide/b"]
    page = await backend.get_page("site", "guide/b")
    assert page is not None
    assert page.last_changed is not None
    since = page.last_changed
    assert await loaded(RagcrawlLoader(backend, "site", changed_since=since)) == ["guide/b", "other"]
    later = RagcrawlLoader(backend, "site", changed_since=since + timedelta(days=1))
    assert await loaded(later) == []


async def test_loader_opens_settings(backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig) -> None:
    for i in range(30):
        await commit(backend, f"p{i:02}")
    assert await loaded(RagcrawlLoader(dynamodb_config, "site")) == [f"p{i:02}" for i in range(30)]


async def test_lazy_load_that_is_not_exhausted_leaves_no_thread(backend: DynamoDBBackend) -> None:
    for i in range(30):
        await commit(backend, f"p{i:02}")

    def load_one() -> str | None:
        documents: Any = RagcrawlLoader(backend, "site").lazy_load()
        first: str | None = next(documents).id
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
def test_loader_refuses_arguments_of_a_wrong_type(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        RagcrawlLoader(**{"source": DynamoDBConfig(), "site_id": "site", **arguments})
