"""The five records and their parts, with the field names of ragcrawl 0.0.2.

Datetimes are timezone-aware and in UTC. A naive datetime is read as UTC, an aware one is converted. Free JSON
has the type `dict[str, JsonValue]`. It is stored as native DynamoDB attributes, so that the AWS console and
other languages can read it.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

__all__ = [
    "CrawlRun",
    "CrawlStats",
    "FrontierItem",
    "FrontierStatus",
    "Page",
    "PageVersion",
    "RunStatus",
    "Site",
]


def utc_now() -> datetime:
    """Returns the present moment as an aware UTC datetime."""
    return datetime.now(UTC)


def _as_utc(value: datetime) -> datetime:
    if value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie within years 1 to 9999 once converted to UTC") from None


UtcDatetime = Annotated[datetime, AfterValidator(_as_utc)]


class Entity(BaseModel):
    """The base class of all models. It refuses unknown fields, and checks assignments like constructors."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", validate_assignment=True)


class RunStatus(StrEnum):
    """The status of a run."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARTIAL = "partial"


class FrontierStatus(StrEnum):
    """The status of a frontier item. COMPLETED, FAILED and SKIPPED are final."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether an item with this status stays as it is until a caller changes it."""
        return self in (FrontierStatus.COMPLETED, FrontierStatus.FAILED, FrontierStatus.SKIPPED)


class Site(Entity):
    """A website to crawl, with its configuration."""

    site_id: str
    name: str
    seeds: list[str]
    allowed_domains: list[str] = Field(default_factory=list)
    allowed_subdomains: bool = True
    config: dict[str, JsonValue] = Field(default_factory=dict)
    created_at: UtcDatetime = Field(default_factory=utc_now)
    updated_at: UtcDatetime = Field(default_factory=utc_now)
    last_crawl_at: UtcDatetime | None = None
    last_sync_at: UtcDatetime | None = None
    total_pages: int = 0
    total_runs: int = 0
    is_active: bool = True


# How many hosts, and how many types of errors, the stats of a run name. A run may have a million hosts, and
# an item of DynamoDB takes 400 KB.
MAX_NAMED = 100


class CrawlStats(Entity):
    """The counters of one run. Times are in milliseconds, sizes in bytes.

    `domains_crawled` is the number of hosts with a completed item, and `domains_sample` names up to 100 of
    them; `Frontier.iter_hosts` has all of them. If several names are passed as `domains_crawled`, as ragcrawl
    does, they are counted. `complete_run` stores the 100 hosts with the most failed items in
    `errors_by_domain`, and the 100 most frequent types of errors in `errors_by_type`.
    """

    pages_discovered: int = 0
    pages_crawled: int = 0
    pages_failed: int = 0
    pages_skipped: int = 0
    pages_changed: int = 0
    pages_unchanged: int = 0
    pages_new: int = 0
    pages_deleted: int = 0
    total_bytes_downloaded: int = 0
    total_fetch_time_ms: float = 0.0
    total_extraction_time_ms: float = 0.0
    avg_fetch_latency_ms: float = 0.0
    errors_by_type: dict[str, int] = Field(default_factory=dict)
    errors_by_domain: dict[str, int] = Field(default_factory=dict)
    status_codes: dict[int, int] = Field(default_factory=dict)
    domains_crawled: int = 0
    domains_sample: list[str] = Field(default_factory=list, max_length=MAX_NAMED)

    @model_validator(mode="before")
    @classmethod
    def _count_names(cls, fields: Any) -> Any:
        """Counts hosts that are passed by name."""
        if isinstance(fields, dict) and isinstance(
            fields.get("domains_crawled"), list | tuple | set | frozenset
        ):
            names = sorted(set(fields["domains_crawled"]))
            return {**fields, "domains_crawled": len(names), "domains_sample": names[:MAX_NAMED]}
        return fields


class CrawlRun(Entity):
    """One execution of a crawl or a sync."""

    run_id: str
    site_id: str
    status: RunStatus = RunStatus.PENDING
    error_message: str | None = None
    created_at: UtcDatetime = Field(default_factory=utc_now)
    started_at: UtcDatetime | None = None
    completed_at: UtcDatetime | None = None
    config_snapshot: dict[str, JsonValue] = Field(default_factory=dict)
    seeds: list[str] = Field(default_factory=list)
    is_sync: bool = False
    parent_run_id: str | None = None
    stats: CrawlStats = Field(default_factory=CrawlStats)
    frontier_size: int = 0
    max_depth_reached: int = 0


class Page(Entity):
    """The present state of one URL of a site: how fresh it is, and which version is current.

    `url` is the normalized URL. A page for which the server answers 404 or 410 is a tombstone.
    """

    page_id: str
    site_id: str
    url: str
    canonical_url: str | None = None
    current_version_id: str | None = None
    content_hash: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    first_seen: UtcDatetime = Field(default_factory=utc_now)
    last_seen: UtcDatetime = Field(default_factory=utc_now)
    last_crawled: UtcDatetime | None = None
    last_changed: UtcDatetime | None = None
    depth: int = Field(default=0, ge=0)
    referrer_url: str | None = None
    status_code: int | None = None
    is_tombstone: bool = False
    error_count: int = 0
    last_error: str | None = None
    version_count: int = 0


class PageVersion(Entity):
    """The content of a page at one fetch.

    Its body consists of `markdown`, `html`, `plain_text`, `outlinks` and `headings_outline`.
    """

    version_id: str
    page_id: str
    site_id: str
    run_id: str
    markdown: str = ""
    html: str | None = None
    plain_text: str | None = None
    content_hash: str
    raw_hash: str | None = None
    url: str
    canonical_url: str | None = None
    title: str | None = None
    description: str | None = None
    content_type: str | None = None
    status_code: int
    language: str | None = None
    headings_outline: list[dict[str, JsonValue]] = Field(default_factory=list)
    word_count: int = 0
    char_count: int = 0
    outlinks: list[str] = Field(default_factory=list)
    internal_link_count: int = 0
    external_link_count: int = 0
    etag: str | None = None
    last_modified: str | None = None
    crawled_at: UtcDatetime = Field(default_factory=utc_now)
    created_at: UtcDatetime = Field(default_factory=utc_now)
    fetch_latency_ms: float | None = None
    extraction_latency_ms: float | None = None
    is_tombstone: bool = False
    extra: dict[str, JsonValue] = Field(default_factory=dict)


# The fields of a version that are its body. They are stored apart from its head, compressed together.
CONTENT_FIELDS = frozenset({"markdown", "html", "plain_text", "outlinks", "headings_outline"})


class FrontierItem(Entity):
    """One URL for a run to crawl. Items with a higher `priority` are crawled sooner.

    The queue sets four fields. `attempt` counts the leases of the item. `lease_token` is the random part of
    the fencing token of the latest lease, `lease_owner` is the worker that got this lease, and
    `lease_expires_at` is the moment at which it ends, while it runs.

    Some requests consist of more than a URL. For them, `unique_key` replaces the normalized URL: requests
    with the same key are the same item. `payload` holds the rest of the request as text, which the queue does
    not read. `domain` is the host, with the port if it is not the default one, or what the run's
    `politeness_key` returns.
    """

    item_id: str
    run_id: str
    site_id: str
    url: str
    normalized_url: str
    url_hash: str
    depth: int = Field(default=0, ge=0)
    referrer_url: str | None = None
    priority: float = 0.0
    status: FrontierStatus = FrontierStatus.PENDING
    retry_count: int = 0
    last_error: str | None = None
    discovered_at: UtcDatetime = Field(default_factory=utc_now)
    scheduled_at: UtcDatetime | None = None
    started_at: UtcDatetime | None = None
    completed_at: UtcDatetime | None = None
    domain: str
    attempt: int = 0
    lease_token: str | None = None
    lease_owner: str | None = None
    lease_expires_at: UtcDatetime | None = None
    unique_key: str | None = Field(default=None, min_length=1)
    payload: str | None = None
