"""The types that users see. mypy, which checks this file too, refuses an assertion that does not hold."""

from collections.abc import AsyncIterator
from importlib.metadata import version
from importlib.resources import files
from typing import assert_type

from ragcrawl_dynamo import (
    AddResult,
    ChangeKind,
    ChangeSlice,
    Claim,
    CommitOutcome,
    CommitResult,
    CrawlRun,
    CrawlStats,
    Destination,
    DynamoDBBackend,
    Frontier,
    FrontierItem,
    FrontierStats,
    HostStatus,
    LinkFields,
    OperationMetrics,
    Page,
    PageChange,
    PageVersion,
    RunState,
    Site,
    Slice,
    StatsDeltas,
    StorageBackend,
    Worker,
    WorkSummary,
    create_storage_backend,
)
from ragcrawl_dynamo._frontier.enqueue import SET_BY_QUEUE


async def what_each_method_returns(backend: StorageBackend) -> None:
    """Checked, never run."""
    assert_type(create_storage_backend(), StorageBackend)
    assert_type(await backend.health_check(), bool)
    async with backend as entered:
        assert_type(entered, StorageBackend)
    assert_type(await backend.get_site("s"), Site | None)
    assert_type(await backend.list_sites(), Slice[Site])
    assert_type(backend.iter_sites(), AsyncIterator[Site])
    assert_type(await backend.delete_site("s"), bool)
    assert_type(await backend.get_run("s", "r"), CrawlRun | None)
    assert_type(await backend.find_run("r"), CrawlRun | None)
    assert_type(backend.metrics(), dict[tuple[str, str], OperationMetrics])
    assert_type(await backend.list_runs("s"), Slice[CrawlRun])
    assert_type(await backend.get_latest_run("s"), CrawlRun | None)
    assert_type(await backend.add_run_stats("s", "r", pages_crawled=1), CrawlRun)
    assert_type(await backend.save_pages_bulk([]), int)
    assert_type(await backend.get_pages_bulk("site", []), list[Page])
    assert_type(await backend.get_page("s", "p"), Page | None)
    assert_type(await backend.get_page_by_url("s", "u"), Page | None)
    assert_type(await backend.list_pages("s"), Slice[Page])
    assert_type([page async for page in backend.iter_pages("s")], list[Page])
    assert_type(await backend.count_pages("s"), int)
    assert_type(await backend.get_pages_needing_recrawl("s"), list[Page])
    assert_type(await backend.get_version("site", "p", "v"), PageVersion | None)
    assert_type(await backend.get_current_version("s", "p"), PageVersion | None)
    assert_type(await backend.list_versions("site", "p"), Slice[PageVersion])
    assert_type((await backend.list_versions("site", "p")).cursor, str | None)
    assert_type(await backend.get_frontier_items("r"), Slice[FrontierItem])
    assert_type(await backend.update_frontier_status("r", "i", "failed"), FrontierItem)
    assert_type(await backend.clear_frontier("r"), int)
    assert_type(await backend.complete_run("s", "r"), CrawlRun)
    assert_type(await backend.mark_seen("s", []), int)
    assert_type(await backend.get_unseen_pages("s", "r"), list[Page])
    result = await backend.commit_page(Page(page_id="p", site_id="s", url="u", status_code=404))
    assert_type(result, CommitResult)
    assert_type(result.outcome, CommitOutcome)
    changes = await backend.list_changes("s")
    assert_type(changes, ChangeSlice)
    assert_type(changes.cursor, str)
    assert_type(changes[0], PageChange)
    assert_type(changes[0].kind, ChangeKind)
    assert_type(changes[0].version, PageVersion | None)
    assert_type([change async for change in backend.iter_changes("s", "indexer")], list[PageChange])
    frontier = backend.frontier("s", "r")
    assert_type(frontier, Frontier)
    assert_type(await frontier.add(["https://example.com/"]), list[AddResult])
    claims = await frontier.claim()
    assert_type(claims, list[Claim])
    assert_type(claims[0].item, FrontierItem)
    assert_type(claims[0].token, str)
    assert_type(await frontier.stats(), FrontierStats)
    assert_type(await frontier.is_finished(), bool)
    assert_type(await frontier.state(), RunState)
    assert_type(await frontier.requeue_failed(), int)
    assert_type([host async for host in frontier.iter_hosts()], list[HostStatus])
    async with frontier.worker() as worker:
        assert_type(worker, Worker)
        summary = await worker.run(lambda claim: frontier.complete(claim))
        assert_type(summary, WorkSummary)
        assert_type(summary.pages_per_second, float)
    assert_type(await frontier.fail(claims[0], "slow"), bool)


async def what_a_type_checker_refuses(backend: StorageBackend, frontier: Frontier) -> None:
    """Checked, never run. Strict mypy reports an ignore that ignores nothing."""
    frontier.link("u", depth=1, priority=0.5, scheduled_at=None, unique_key="k", payload="p")
    frontier.link("u", prioritty=0.5)  # type: ignore[call-arg]
    frontier.link("u", depth="1")  # type: ignore[arg-type]
    frontier.link("u", item_id="i")  # type: ignore[call-arg]
    await backend.add_run_stats("s", "r", pages_crawled=1, status_codes={200: 1}, total_fetch_time_ms=0.5)
    await backend.add_run_stats("s", "r", pages_crwaled=1)  # type: ignore[call-arg]
    await backend.add_run_stats("s", "r", pages_crawled="1")  # type: ignore[arg-type]
    await backend.add_run_stats("s", "r", status_codes={"200": 1})  # type: ignore[dict-item]
    await backend.add_run_stats("s", "r", avg_fetch_latency_ms=1.0)  # type: ignore[call-arg]


async def what_a_type_checker_refuses_of_the_older_forms(backend: DynamoDBBackend) -> None:
    """Checked, never run: the methods that still accept these calls have the types of the present form."""
    assert_type(await backend.get_run("s", "r"), CrawlRun | None)
    assert_type(await backend.get_version("s", "p", "v"), PageVersion | None)
    assert_type(backend.frontier("s", "r", host_delay=1.0), Frontier)
    await backend.get_run("r")  # type: ignore[call-arg]
    await backend.get_version("p", "v")  # type: ignore[call-arg]
    await backend.get_version("p", "v", site_id="s")  # type: ignore[misc, call-arg]
    await backend.list_versions("p", 10)  # type: ignore[arg-type]
    await backend.list_pages("s", 10)  # type: ignore[call-arg]
    backend.iter_pages("s", True)  # type: ignore[call-arg]
    backend.iter_changes("s", "indexer", 10)  # type: ignore[call-arg]
    create_storage_backend({})  # type: ignore[arg-type]


async def a_concrete_backend_keeps_its_type(backend: DynamoDBBackend) -> None:
    """Checked, never run."""
    async with backend as entered:
        assert_type(entered, DynamoDBBackend)
    assert_type(backend.find_destination(), Destination)


def test_types_are_marked_by_py_typed() -> None:
    assert files("ragcrawl_dynamo").joinpath("py.typed").is_file()


def test_types_of_keywords_are_the_fields_of_the_models() -> None:
    not_added = {"avg_fetch_latency_ms", "domains_sample"}
    assert StatsDeltas.__annotations__.keys() == CrawlStats.model_fields.keys() - not_added
    assert LinkFields.__annotations__.keys() == FrontierItem.model_fields.keys() - {"url"} - SET_BY_QUEUE


def test_types_stubs_match_the_installed_client() -> None:
    stubs, client = (version(name).split(".")[:2] for name in ("types-aiobotocore-dynamodb", "aiobotocore"))
    assert stubs == client
