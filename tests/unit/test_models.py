from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import BaseModel, ValidationError

import ragcrawl_dynamo
from ragcrawl_dynamo import CrawlRun, CrawlStats, FrontierItem, FrontierStatus, Page, PageVersion, Site
from tests.support.factories import make_page, make_run

# As in ragcrawl 0.0.2: users who move from there keep their field names.
FIELDS = {
    Site: "site_id name seeds allowed_domains allowed_subdomains config created_at updated_at last_crawl_at "
    "last_sync_at total_pages total_runs is_active",
    CrawlRun: "run_id site_id status error_message created_at started_at completed_at config_snapshot seeds "
    "is_sync parent_run_id stats frontier_size max_depth_reached",
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
    assert [each for each in FrontierStatus if each.is_final] == ["completed", "failed", "skipped"]
