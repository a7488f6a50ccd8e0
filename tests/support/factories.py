"""Makes records with sensible fields, and hypothesis strategies for records with any fields."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st

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

START = datetime(2026, 1, 1, tzinfo=UTC)


def make_site(site_id: str = "site", **fields: Any) -> Site:
    return Site(**{"site_id": site_id, "name": "A site", "seeds": ["https://example.com/"], **fields})


def make_run(run_id: str = "run", site_id: str = "site", **fields: Any) -> CrawlRun:
    return CrawlRun(**{"run_id": run_id, "site_id": site_id, **fields})


def make_page(page_id: str = "page", site_id: str = "site", **fields: Any) -> Page:
    return Page(**{"page_id": page_id, "site_id": site_id, "url": f"https://example.com/{page_id}", **fields})


def make_version(
    version_id: str = "v1", page_id: str = "page", site_id: str = "site", **fields: Any
) -> PageVersion:
    defaults: dict[str, Any] = {
        "run_id": "run",
        "markdown": "# Title\n\nText.",
        "content_hash": "c0ffee",
        "url": f"https://example.com/{page_id}",
        "status_code": 200,
    }
    return PageVersion(version_id=version_id, page_id=page_id, site_id=site_id, **{**defaults, **fields})


def make_item(
    item_id: str = "item", run_id: str = "run", site_id: str = "site", **fields: Any
) -> FrontierItem:
    url = f"https://example.com/{item_id}"
    defaults: dict[str, Any] = {
        "url": url,
        "normalized_url": url,
        "url_hash": "beef",
        "domain": "example.com",
    }
    return FrontierItem(item_id=item_id, run_id=run_id, site_id=site_id, **{**defaults, **fields})


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def dense_text(kilobytes: int, seed: str = "") -> str:
    """Returns text that compresses to that size and not below; the same for the same seed."""
    return Random(seed).randbytes(1024 * kilobytes).hex()  # noqa: S311 # the same text every time


# Any Unicode but lone surrogates, which no UTF-8 text holds.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
moments = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))
storable_floats = st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda value: not value or 1e-130 <= abs(value) < 9.9e125
)
storable_ints = st.integers(-(10**38) + 1, 10**38 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | storable_ints | storable_floats | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts.filter(bool), inner, max_size=4),
    max_leaves=12,
)
json_maps = st.dictionaries(texts.filter(bool), json_values, max_size=4)
counts = st.integers(0, 10**12)
maybe_text = st.none() | texts
maybe_moment = st.none() | moments

sites = st.builds(
    Site,
    site_id=ids,
    name=texts,
    seeds=st.lists(texts, max_size=3),
    allowed_domains=st.lists(texts, max_size=3),
    allowed_subdomains=st.booleans(),
    config=json_maps,
    created_at=moments,
    updated_at=moments,
    last_crawl_at=maybe_moment,
    last_sync_at=maybe_moment,
    total_pages=counts,
    total_runs=counts,
    is_active=st.booleans(),
)
all_stats = st.builds(
    CrawlStats,
    pages_crawled=counts,
    total_fetch_time_ms=storable_floats,
    avg_fetch_latency_ms=storable_floats,
    errors_by_type=st.dictionaries(texts.filter(bool), counts, max_size=3),
    errors_by_domain=st.dictionaries(texts.filter(bool), counts, max_size=3),
    status_codes=st.dictionaries(st.integers(-999, 999), counts, max_size=3),
    domains_crawled=counts,
    domains_sample=st.lists(texts, max_size=3),
)
runs = st.builds(
    CrawlRun,
    run_id=ids,
    site_id=ids,
    status=st.sampled_from(RunStatus),
    error_message=maybe_text,
    created_at=moments,
    started_at=maybe_moment,
    completed_at=maybe_moment,
    config_snapshot=json_maps,
    seeds=st.lists(texts, max_size=3),
    is_sync=st.booleans(),
    parent_run_id=maybe_text,
    has_first_links=st.booleans(),
    stats=all_stats,
    frontier_size=counts,
    max_depth_reached=counts,
)
pages = st.builds(
    Page,
    page_id=ids,
    site_id=ids,
    url=texts,
    canonical_url=maybe_text,
    current_version_id=maybe_text,
    content_hash=maybe_text,
    etag=maybe_text,
    last_modified=maybe_text,
    first_seen=moments,
    last_seen=moments,
    last_crawled=maybe_moment,
    last_changed=maybe_moment,
    depth=counts,
    referrer_url=maybe_text,
    status_code=st.none() | st.integers(100, 599),
    is_tombstone=st.booleans(),
    error_count=counts,
    last_error=maybe_text,
    version_count=counts,
    redirect_url=maybe_text,
)
versions = st.builds(
    PageVersion,
    version_id=ids,
    page_id=ids,
    site_id=ids,
    run_id=texts,
    markdown=texts,
    html=maybe_text,
    plain_text=maybe_text,
    content_hash=texts,
    raw_hash=maybe_text,
    url=texts,
    title=maybe_text,
    description=maybe_text,
    status_code=st.integers(100, 599),
    language=maybe_text,
    headings_outline=st.lists(json_maps, max_size=3),
    word_count=counts,
    outlinks=st.lists(texts, max_size=4),
    crawled_at=moments,
    created_at=moments,
    fetch_latency_ms=st.none() | storable_floats,
    extraction_latency_ms=st.none() | storable_floats,
    is_tombstone=st.booleans(),
    extra=json_maps,
)
frontier_items = st.builds(
    FrontierItem,
    item_id=ids,
    run_id=ids,
    site_id=ids,
    url=texts,
    normalized_url=texts,
    url_hash=texts,
    depth=counts,
    referrer_url=maybe_text,
    priority=storable_floats,
    status=st.sampled_from(FrontierStatus),
    retry_count=counts,
    last_error=maybe_text,
    discovered_at=moments,
    scheduled_at=maybe_moment,
    started_at=maybe_moment,
    completed_at=maybe_moment,
    domain=texts,
)
