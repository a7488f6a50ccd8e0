"""ragcrawl's jobs, unchanged: a crawl, a sync, and a crawl whose process is killed."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ragcrawl.config.crawler_config import CrawlerConfig, RobotsMode
from ragcrawl.config.output_config import OutputConfig, OutputMode
from ragcrawl.config.sync_config import SyncConfig
from ragcrawl.core.crawl_job import CrawlJob
from ragcrawl.core.sync_job import SyncJob
from ragcrawl.export.json_exporter import JSONLExporter
from ragcrawl.models import Document, Page, PageVersion
from ragcrawl.output.multi_page import MultiPagePublisher
from ragcrawl.storage import create_storage_backend

from ragcrawl_dynamo import DynamoDBBackend
from ragcrawl_dynamo.adapters.ragcrawl.settings import backend_config
from tests.adapters.processes import check_bad_day, finish, kill_when, start
from tests.adapters.ragcrawl.settings import ragcrawl_config
from tests.adapters.site import Site
from tests.support.aws import SimulatedAWS
from tests.support.engines import on_dynamodb_local

if TYPE_CHECKING:
    from ragcrawl.config.storage_config import StorageConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def crawl(site: Site, storage: StorageConfig, **settings: Any) -> None:
    config = CrawlerConfig(
        seeds=[site.url],
        site_id="docs",
        allowed_domains=["localhost"],
        max_depth=20,
        robots_mode=RobotsMode.OFF,
        storage=storage,
        **settings,
    )
    result = await CrawlJob(config).run()
    assert result.success, result.error


@on_dynamodb_local
async def test_ragcrawl_jobs_run_unchanged(site: Site, storage: StorageConfig) -> None:
    site.pages = 15
    await crawl(site, storage)
    config = backend_config(ragcrawl_config(storage))
    async with DynamoDBBackend(config) as backend:
        pages = [page async for page in backend.iter_pages("docs")]
        assert {page.url for page in pages} == site.urls
        run = await backend.get_latest_run("docs")
        assert run is not None
        assert (run.status, run.stats.pages_crawled, run.config_snapshot["max_depth"]) == (
            "completed",
            15,
            20,
        )
        assert "local" not in str(run.config_snapshot["storage"])
        assert abs((datetime.now().astimezone() - run.created_at).total_seconds()) < 600
        site.edition = "second"
        site.gone = {7}
        for _ in range(2):
            synced = await SyncJob(SyncConfig(site_id="docs", storage=storage)).run()
            assert synced.success, synced.error
        gone = await backend.get_page_by_url("docs", site.url[:-1] + "7")
        assert gone is not None
        assert gone.is_tombstone
        first = await backend.get_page_by_url("docs", site.url)
        assert first is not None
        assert (first.version_count, len(await backend.list_versions("docs", first.page_id))) == (
            2,
            2,
        )
        current = await backend.get_current_version("docs", first.page_id)
        assert current is not None
        assert "second edition" in current.markdown


async def start_job(site: Site, storage: StorageConfig, endpoint: str, *options: str) -> Process:
    prefix = ragcrawl_config(storage).table_prefix
    where = ("--endpoint-url", endpoint, "--table-prefix", prefix)
    return await start("ragcrawl_crawl.py", site.url, *where, *options)


async def crawl_with_a_kill(
    site: Site, storage: StorageConfig, backend: DynamoDBBackend, endpoint: str
) -> None:
    """Kills a crawl half-way, and crawls the site again: then every page is stored, with its content."""
    site.seconds = 0.05

    async def is_half() -> bool:
        return await backend.count_pages("docs") >= site.pages // 2

    await kill_when(await start_job(site, storage, endpoint), is_half)
    assert await backend.count_pages("docs") < site.pages
    hits_at_kill = site.hits_by_url()
    await finish(await start_job(site, storage, endpoint))
    hits = site.hits_by_url()
    assert hits == {url: hits_at_kill.get(url, 0) + 1 for url in site.urls}
    pages = [page async for page in backend.iter_pages("docs")]
    assert sorted(page.url for page in pages) == sorted(site.urls)
    for page in pages:
        versions = await backend.list_versions("docs", page.page_id)
        assert page.current_version_id == versions[0].version_id
        assert "first edition" in versions[0].markdown
        assert {version.content_hash for version in versions} == {page.content_hash}
        assert len(versions) <= hits[page.url]


@on_dynamodb_local
async def test_ragcrawl_job_that_was_killed_is_finished_by_a_restart(
    site: Site, storage: StorageConfig, dynamodb_endpoint: str
) -> None:
    async with DynamoDBBackend(backend_config(ragcrawl_config(storage))) as backend:
        await crawl_with_a_kill(site, storage, backend, dynamodb_endpoint)


@on_dynamodb_local
async def test_ragcrawl_jobs_of_two_processes_crawl_one_site_at_once(
    site: Site, storage: StorageConfig, dynamodb_endpoint: str
) -> None:
    """DuckDB locks its file. ragcrawl's queues are in memory, so both processes fetch all pages."""
    site.pages, site.seconds = 15, 0.05
    jobs = [await start_job(site, storage, dynamodb_endpoint) for _ in range(2)]
    await asyncio.gather(*map(finish, jobs))
    assert set(site.hits_by_url().values()) == {2}
    async with DynamoDBBackend(backend_config(ragcrawl_config(storage))) as backend:
        assert [run.stats.pages_crawled async for run in backend.iter_runs("docs")] == [15, 15]
        pages = [page async for page in backend.iter_pages("docs")]
        assert {page.url for page in pages} == site.urls
        for page in pages:
            version = await backend.get_current_version("docs", page.page_id)
            assert version is not None
            assert "first edition" in version.markdown


def to_document(page: Page, version: PageVersion) -> Document:
    """Converts stored pages and versions into the documents of ragcrawl's publishers and exporters."""
    shared = Document.model_fields.keys() & (PageVersion.model_fields.keys() | Page.model_fields.keys())
    fields = {name: value for record in (page, version) for name, value in record if name in shared}
    return Document(doc_id=page.page_id, source_url=page.url, normalized_url=page.url, **fields)


@on_dynamodb_local
async def test_ragcrawl_jobs_call_their_hooks_and_their_pages_can_be_published(
    site: Site, storage: StorageConfig, tmp_path: Path
) -> None:
    site.pages = 7
    called: Counter[str] = Counter()
    hooks: dict[str, Any] = {
        "on_page": lambda document: called.update(["page"]),
        "redaction_hook": lambda text: text.replace("edition", "[redacted]"),
        "on_change_detected": lambda document, page: called.update(["change"]),
    }
    await crawl(site, storage, extract_html=True, extract_plain_text=True, **hooks)
    site.edition = "second"
    await crawl(site, storage, **hooks)
    assert called == {"page": 14, "change": 7}
    sync = SyncConfig(
        site_id="docs",
        storage=storage,
        deletion_threshold=1,
        max_age_hours=0,
        on_change_detected=lambda page, version: called.update(["synced"]),
        on_deletion_detected=lambda page: called.update(["deleted"]),
    )
    site.edition, site.gone = "third", {5}
    result = await SyncJob(sync).run()
    assert result.success, result.error
    assert (called["synced"], called["deleted"]) == (6, 1)
    store = create_storage_backend(storage)
    store.initialize()
    documents = []
    for page in store.list_pages("docs"):
        version = store.get_current_version(page.page_id)
        assert version is not None
        documents.append(to_document(page, version))
    store.close()
    assert {document.normalized_url[-1] for document in documents} == set("012346")
    assert all("third edition" in document.markdown for document in documents)
    output = OutputConfig(mode=OutputMode.MULTI, root_dir=str(tmp_path))
    assert len(MultiPagePublisher(output).publish(documents)) >= 6
    JSONLExporter().export_documents(documents, tmp_path / "pages.jsonl")


@pytest.mark.aws
@on_dynamodb_local
async def test_ragcrawl_jobs_on_a_simulated_aws_lose_nothing(
    site: Site, storage: StorageConfig, aws: SimulatedAWS
) -> None:
    site.pages = 31
    async with DynamoDBBackend(backend_config(ragcrawl_config(storage))) as backend:
        await crawl_with_a_kill(site, storage, backend, aws.url)
        site.edition = "second"
        # The sync asks for pages by a read that is a second late at most.
        await asyncio.sleep(1.0)
        await finish(await start_job(site, storage, aws.url, "--sync"))
        for page in [page async for page in backend.iter_pages("docs")]:
            version = await backend.get_current_version("docs", page.page_id)
            assert version is not None
            assert "second edition" in version.markdown
    check_bad_day(aws)
