from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import BaseModel, ValidationError

import ragcrawl_dynamo
from ragcrawl_dynamo import (
    CrawlRun,
    CrawlStats,
    FrontierItem,
    FrontierStatus,
    Page,
    PageVersion,
    RunStatus,
    Site,
)
from tests.support.factories import hours, make_item, make_page, make_run

# As in ragcrawl 0.0.2: users who move from there keep their field names.
FIELDS = {
    Site: "site_id name seeds allowed_domains allowed_subdomains config created_at updated_at last_crawl_at "
    "last_sync_at total_pages total_runs is_active",
    CrawlRun: "run_id site_id status error_message created_at started_at completed_at config_snapshot seeds "
    "is_sync parent_run_id has_first_links stats frontier_size max_depth_reached",
    CrawlStats: "pages_discovered pages_crawled pages_failed pages_skipped pages_changed pages_unchanged "
    "pages_new pages_deleted total_bytes_downloaded total_fetch_time_ms total_extraction_time_ms "
    "avg_fetch_latency_ms errors_by_type errors_by_domain status_codes domains_crawled "
    # Some of the hosts whose number is stored.
    "domains_sample",
    Page: "page_id site_id url canonical_url current_version_id content_hash etag last_modified first_seen "
    "last_seen last_crawled last_changed depth referrer_url status_code is_tombstone error_count last_error "
    "version_count "
    # Where a redirect leads.
    "redirect_url",
    PageVersion: "version_id page_id site_id run_id markdown html plain_text content_hash raw_hash url "
    "canonical_url title description content_type status_code language headings_outline word_count "
    "char_count outlinks internal_link_count external_link_count etag last_modified crawled_at created_at "
    "fetch_latency_ms extraction_latency_ms is_tombstone extra",
    FrontierItem: "item_id run_id site_id url normalized_url url_hash depth referrer_url priority status "
    "retry_count last_error discovered_at scheduled_at started_at completed_at domain "
    # What leases need.
    "attempt lease_token lease_owner lease_expires_at "
    # What requests of other crawlers need.
    "unique_key payload",
}


@pytest.mark.parametrize("model", FIELDS, ids=lambda model: model.__name__)
def test_model_has_exactly_these_fields(model: type[Site]) -> None:
    assert list(model.model_fields) == FIELDS[model].split()


MODELS = [
    model
    for model in map(vars(ragcrawl_dynamo).get, ragcrawl_dynamo.__all__)
    if isinstance(model, type) and issubclass(model, BaseModel)
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_model_describes_every_field_in_its_schema(model: type[BaseModel]) -> None:
    fields = model.model_json_schema()["properties"]
    assert list(fields) == list(model.model_fields)
    assert [name for name, field in fields.items() if not field.get("description", "").endswith(".")] == []


def test_models_that_are_public_include_settings_and_records() -> None:
    assert {model.__name__ for model in MODELS} >= {
        "DynamoDBConfig",
        "StorageConfig",
        *(m.__name__ for m in FIELDS),
    }


def test_crawl_stats_count_hosts_that_are_passed_by_name() -> None:
    stats = CrawlStats.model_validate({"domains_crawled": {f"h{i:03}" for i in range(150)}})
    assert stats.domains_crawled == 150
    assert stats.domains_sample == [f"h{i:03}" for i in range(100)]
    stats.domains_crawled = 3
    assert (stats.domains_crawled, len(stats.domains_sample)) == (3, 100)
    with pytest.raises(ValidationError, match="domains_sample"):
        stats.domains_sample = ["h"] * 101


def test_model_takes_a_naive_datetime_as_utc() -> None:
    assert make_page(first_seen=datetime(2026, 7, 1, 12)).first_seen == datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_model_converts_an_aware_datetime_to_utc() -> None:
    there = timezone(timedelta(hours=-5))
    page = make_page(first_seen=datetime(2026, 7, 1, 12, tzinfo=there))
    assert page.first_seen.isoformat() == "2026-07-01T17:00:00+00:00"


def test_model_refuses_a_datetime_outside_of_years_1_to_9999() -> None:
    with pytest.raises(ValidationError, match="years 1 to 9999"):
        make_page(first_seen=datetime.min.replace(tzinfo=timezone(timedelta(hours=1))))


def test_model_refuses_an_unknown_field() -> None:
    with pytest.raises(ValidationError, match="pgae_id"):
        Page.model_validate({"pgae_id": "x", "site_id": "s", "url": "u"})


def test_model_checks_an_assignment() -> None:
    run = make_run()
    with pytest.raises(ValidationError, match="status"):
        run.status = "done"  # type: ignore[assignment] # that is what is tested


def test_frontier_status_is_final() -> None:
    assert [status for status in FrontierStatus if status.is_final] == ["completed", "failed", "skipped"]


def is_now(moment: datetime | None) -> bool:
    """Whether a moment is aware, in UTC, and within the last seconds."""
    return (
        moment is not None
        and moment.tzinfo is UTC
        and abs(datetime.now(UTC) - moment) < timedelta(seconds=30)
    )


def test_crawl_run_marks_its_start() -> None:
    run = make_run()
    run.mark_started()
    assert run.status is RunStatus.RUNNING
    assert is_now(run.started_at)
    assert run.completed_at is None


@pytest.mark.parametrize(("partial", "status"), [(False, RunStatus.COMPLETED), (True, RunStatus.PARTIAL)])
def test_crawl_run_marks_its_completion(partial: bool, status: RunStatus) -> None:
    run = make_run()
    run.mark_completed(partial=partial)
    assert run.status is status
    assert is_now(run.completed_at)
    assert run.error_message is None


def test_crawl_run_marks_its_failure_and_its_cancellation() -> None:
    failed, cancelled = make_run(), make_run()
    failed.mark_failed("no network")
    cancelled.mark_cancelled()
    assert (failed.status, failed.error_message) == (RunStatus.FAILED, "no network")
    assert (cancelled.status, cancelled.error_message) == (RunStatus.CANCELLED, None)
    assert is_now(failed.completed_at)
    assert is_now(cancelled.completed_at)


def test_crawl_run_knows_its_duration() -> None:
    start = datetime.now(UTC) - hours(1)
    assert make_run().duration_seconds is None
    assert make_run(started_at=start, completed_at=start + timedelta(seconds=1.5)).duration_seconds == 1.5
    running = make_run(started_at=start).duration_seconds
    assert running is not None
    assert 3600 <= running < 3630


@pytest.mark.parametrize(
    ("age", "max_age_hours", "is_needed"),
    [
        (None, 1.0, True),
        (None, None, True),
        (2.0, None, True),
        (2.0, 1.0, True),
        (2.0, 2.5, False),
        (0.5, 0.0, True),
    ],
)
def test_page_needs_recrawl_by_its_age(
    age: float | None, max_age_hours: float | None, is_needed: bool
) -> None:
    page = make_page(last_crawled=None if age is None else datetime.now(UTC) - hours(age))
    assert page.needs_recrawl(max_age_hours) is is_needed
    assert page.needs_recrawl(max_age_hours, force=True)


def test_page_that_is_gone_needs_recrawl_only_by_force() -> None:
    page = make_page(is_tombstone=True)
    assert not page.needs_recrawl()
    assert page.needs_recrawl(force=True)


def test_frontier_item_marks_its_progress() -> None:
    item = make_item()
    item.mark_in_progress()
    assert item.status is FrontierStatus.IN_PROGRESS
    assert is_now(item.started_at)
    assert item.completed_at is None


def test_frontier_item_marks_its_end() -> None:
    completed, failed, skipped = make_item(), make_item(retry_count=2), make_item()
    completed.mark_completed()
    failed.mark_failed("timeout")
    skipped.mark_skipped("robots.txt")
    ends = [(item.status, item.last_error, item.retry_count) for item in (completed, failed, skipped)]
    assert ends == [("completed", None, 0), ("failed", "timeout", 3), ("skipped", "robots.txt", 0)]
    assert all(is_now(item.completed_at) for item in (completed, failed, skipped))
