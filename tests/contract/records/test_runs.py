import pytest

from ragcrawl_dynamo import (
    AmbiguousIdError,
    CrawlStats,
    DynamoDBBackend,
    InvalidArgumentError,
    InvalidCursorError,
    NotFoundError,
    RunStatus,
)
from tests.support.factories import START, dense_text, hours, make_run

STATS = CrawlStats(
    pages_crawled=12,
    total_fetch_time_ms=1234.5,
    errors_by_type={"TimeoutError": 2, "a.b#c": 1},
    errors_by_domain={"example.com": 3},
    status_codes={200: 10, 404: 2},
    domains_crawled=2,
    domains_sample=["bücher.example", "example.com"],
)


async def test_save_run_stores_sets_and_integer_keys(backend: DynamoDBBackend) -> None:
    run = make_run(
        status=RunStatus.PARTIAL,
        stats=STATS,
        config_snapshot={"user_agent": "x", "max": 1e3},
        seeds=["https://example.com/"],
        started_at=START,
        error_message="",
    )
    await backend.save_run(run)
    assert await backend.get_run(run.site_id, run.run_id) == run


async def test_get_run_by_run_id_alone(backend: DynamoDBBackend) -> None:
    run = make_run("run #1/ü", "site #2", stats=STATS)
    await backend.save_run(run)
    assert await backend.find_run("run #1/ü") == run
    assert await backend.find_run("run") is None
    assert await backend.get_run("site", "run #1/ü") is None


async def test_get_run_needs_the_site_if_two_sites_share_the_id(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run("same", "one"))
    await backend.save_run(make_run("same", "two"))
    with pytest.raises(AmbiguousIdError, match="pass site_id"):
        await backend.find_run("same")
    run = await backend.get_run("two", "same")
    assert run is not None
    assert run.site_id == "two"


async def test_list_runs_newest_first(backend: DynamoDBBackend) -> None:
    for i in (3, 1, 4, 0, 2):
        await backend.save_run(make_run(f"run{9 - i}", created_at=START + hours(i)))
    await backend.save_run(make_run("other", "other-site"))
    newest_first = [f"run{9 - i}" for i in (4, 3, 2, 1, 0)]
    assert [run.run_id for run in await backend.list_runs("site")] == newest_first
    assert [run.run_id async for run in backend.iter_runs("site")] == newest_first
    first = await backend.list_runs("site", limit=2)
    second = await backend.list_runs("site", limit=2, cursor=first.cursor)
    third = await backend.list_runs("site", limit=2, cursor=second.cursor)
    assert [run.run_id for run in [*first, *second, *third]] == newest_first
    assert third.cursor is None
    latest = await backend.get_latest_run("site")
    assert latest is not None
    assert latest.run_id == "run5"


async def test_list_runs_has_all_runs_of_one_moment(backend: DynamoDBBackend) -> None:
    for i in range(4):
        await backend.save_run(make_run(f"run{i}", created_at=START))
    first = await backend.list_runs("site", limit=3)
    rest = await backend.list_runs("site", limit=3, cursor=first.cursor)
    assert sorted(run.run_id for run in [*first, *rest]) == ["run0", "run1", "run2", "run3"]


async def test_get_latest_run_of_a_site_without_runs_is_none(backend: DynamoDBBackend) -> None:
    assert await backend.get_latest_run("site") is None
    assert await backend.list_runs("site") == []


async def test_list_runs_refuses_a_cursor_of_another_site(backend: DynamoDBBackend) -> None:
    for i in range(2):
        await backend.save_run(make_run(f"run{i}"))
    cursor = (await backend.list_runs("site", limit=1)).cursor
    assert cursor is not None
    with pytest.raises(InvalidCursorError, match="another listing"):
        await backend.list_runs("other", cursor=cursor)


async def test_add_run_stats_adds_to_every_kind_of_counter(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run(stats=STATS))
    await backend.add_run_stats(
        "site",
        "run",
        pages_crawled=3,
        pages_failed=1,
        total_fetch_time_ms=0.5,
        errors_by_type={"a.b#c": 1, "New": 5},
        status_codes={200: 1, 500: 1},
        domains_crawled=5,
    )
    run = await backend.get_run("site", "run")
    assert run is not None
    assert run.stats == CrawlStats(
        pages_crawled=15,
        pages_failed=1,
        total_fetch_time_ms=1235.0,
        errors_by_type={"TimeoutError": 2, "a.b#c": 2, "New": 5},
        errors_by_domain={"example.com": 3},
        status_codes={200: 11, 404: 2, 500: 1},
        domains_crawled=7,
        domains_sample=["bücher.example", "example.com"],
    )


async def test_add_run_stats_returns_the_updated_run(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run())
    returned = await backend.add_run_stats("site", "run", pages_crawled=1, domains_crawled=1)
    assert returned == await backend.get_run("site", "run")
    assert returned.stats.pages_crawled == 1
    assert await backend.add_run_stats("site", "run") == returned


async def test_add_run_stats_of_an_absent_run_raises(backend: DynamoDBBackend) -> None:
    with pytest.raises(NotFoundError, match="run 'run' of site 'site' does not exist"):
        await backend.add_run_stats("site", "run", pages_crawled=1)
    assert await backend.get_run("site", "run") is None


@pytest.mark.parametrize(
    ("deltas", "field"),
    [
        ({"pages_crwaled": 1}, "pages_crwaled"),
        ({"pages_crawled": "many"}, "pages_crawled"),
        ({"status_codes": {"ok": 1}}, "status_codes"),
        ({"avg_fetch_latency_ms": 1.0}, "avg_fetch_latency_ms"),
        ({"domains_crawled": {"a.example"}}, "domains_crawled"),
        ({"domains_sample": ["a.example"]}, "domains_sample"),
        ({"errors_by_type": {f"E{i:04}": 1 for i in range(200)}}, "deltas"),
    ],
)
async def test_add_run_stats_names_the_invalid_field(
    backend: DynamoDBBackend, deltas: dict[str, object], field: str
) -> None:
    await backend.save_run(make_run())
    with pytest.raises(InvalidArgumentError) as caught:
        await backend.add_run_stats("site", "run", **deltas)  # type: ignore[arg-type]
    assert caught.value.field.startswith(field)


async def test_save_run_stores_thousands_of_seeds(backend: DynamoDBBackend) -> None:
    """Uncompressed, its seeds and configuration would take more than the 400 KB of an item."""
    urls = [f"https://docs.example.com/{dense_text(1, str(i))[:48]}" for i in range(5000)]
    run = make_run(seeds=urls, config_snapshot={"seeds": urls})
    await backend.save_run(run)
    assert await backend.get_run("site", "run") == run
    assert await backend.find_run("run") == run
    assert list(await backend.list_runs("site")) == [run]
    counted = await backend.add_run_stats("site", "run", pages_crawled=2)
    assert (counted.seeds, counted.stats.pages_crawled) == (urls, 2)
    started = await backend.start_run(run)
    assert (started.seeds, started.status) == (urls, RunStatus.RUNNING)
    completed = await backend.complete_run("site", "run")
    assert (completed.config_snapshot, completed.status) == ({"seeds": urls}, RunStatus.COMPLETED)
