"""RagcrawlFetcher: documents of a site, alone and in pipelines of Haystack."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from haystack import Pipeline
from haystack.components.preprocessors import DocumentSplitter

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, InvalidArgumentError
from ragcrawl_dynamo.integrations.haystack import RagcrawlFetcher
from tests.frameworks.pages import JSON, commit
from tests.support.factories import make_page


async def fetched(fetcher: RagcrawlFetcher, since: datetime | None = None) -> list[str]:
    """The ids of the pages, in both ways."""
    documents = (await fetcher.run_async(changed_since=since))["documents"]
    assert (await asyncio.to_thread(fetcher.run, changed_since=since))["documents"] == documents
    return [document.id for document in documents]


async def test_fetcher_makes_a_document_of_each_page(backend: DynamoDBBackend) -> None:
    await commit(backend, "json", markdown=JSON, title="json", language="en")
    (document,) = (await RagcrawlFetcher(backend, "site").run_async())["documents"]
    assert (document.id, document.content) == ("json", JSON)
    assert document.meta == {
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


async def test_fetcher_leaves_out_unknown_metadata_and_pages_that_are_gone(backend: DynamoDBBackend) -> None:
    await commit(backend, "a", markdown="", plain_text="Text.")
    await commit(backend, "b")
    await backend.commit_page(make_page("b", status_code=404))
    (document,) = (await RagcrawlFetcher(backend, "site").run_async())["documents"]
    assert document.content == "Text."
    assert document.meta.keys() == {"source", "url", "site", "page_id", "version_id", "crawled_at"}


async def test_fetcher_filters_by_url_and_time(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    for page_id in ("guide/a", "guide/b", "other"):
        await commit(backend, page_id)
    prefix = "https://example.com/guide/"
    assert await fetched(RagcrawlFetcher(dynamodb_config, "site")) == ["guide/a", "guide/b", "other"]
    assert await fetched(RagcrawlFetcher(backend, "site", url_prefix=prefix)) == ["guide/a", "guide/b"]
    page = await backend.get_page("site", "guide/b")
    assert page is not None
    assert page.last_changed is not None
    since = page.last_changed
    fetcher = RagcrawlFetcher(backend, "site")
    assert await fetched(fetcher, since) == ["guide/b", "other"]
    assert await fetched(fetcher, since + timedelta(days=1)) == []


async def test_fetcher_begins_a_pipeline(backend: DynamoDBBackend) -> None:
    await commit(backend, "json", markdown=JSON)
    pipeline = Pipeline()
    pipeline.add_component("fetcher", RagcrawlFetcher(backend, "site"))
    pipeline.add_component("splitter", DocumentSplitter(split_by="line", split_length=1))
    pipeline.connect("fetcher.documents", "splitter.documents")
    for result in (await pipeline.run_async({}), await asyncio.to_thread(pipeline.run, {})):
        assert "".join(part.content for part in result["splitter"]["documents"]) == JSON


async def test_fetcher_is_saved_without_secrets_and_loaded(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await commit(backend, "guide/a")
    await commit(backend, "other")
    pipeline = Pipeline()
    fetcher = RagcrawlFetcher(backend, "site", url_prefix="https://example.com/guide/")
    pipeline.add_component("fetcher", fetcher)
    saved = pipeline.dumps()
    assert dynamodb_config.endpoint_url is not None
    assert dynamodb_config.endpoint_url in saved
    assert "access_key" not in saved
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", secret_of(dynamodb_config.access_key_id))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_of(dynamodb_config.secret_access_key))
    loaded = Pipeline.loads(saved, allowed_modules=["ragcrawl_dynamo.*"])
    result = await asyncio.to_thread(loaded.run, {})
    assert [document.id for document in result["fetcher"]["documents"]] == ["guide/a"]


def secret_of(secret: Any) -> str:
    text: str = secret.get_secret_value()
    return text


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("source", {"source": "http://localhost"}), ("url_prefix", {"url_prefix": 1})],
)
def test_fetcher_refuses_arguments_of_a_wrong_type(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        RagcrawlFetcher(**{"source": DynamoDBConfig(), "site_id": "site", **arguments})


def test_fetcher_refuses_a_moment_of_a_wrong_type() -> None:
    fetcher: Any = RagcrawlFetcher(DynamoDBConfig(), "site")
    with pytest.raises(InvalidArgumentError, match="changed_since"):
        fetcher.run(changed_since=1)
