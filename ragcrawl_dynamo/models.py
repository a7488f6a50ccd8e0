"""Defines the five records and their parts, with the field names of ragcrawl 0.0.2.

Datetimes are timezone-aware and in UTC. A naive datetime is read as UTC, an aware one is converted. Free JSON
has the type `dict[str, JsonValue]`. It is stored as native DynamoDB attributes, so that the AWS console and
other languages can read it. Only seeds, domains and configurations of sites and runs are compressed, if they
take more than 32 KB.
"""

import unicodedata
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Self

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

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True
    )


class RunStatus(StrEnum):
    """The status of a run."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARTIAL = "partial"

    @property
    def is_final(self) -> bool:
        """Whether a run with this status has ended."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)


class FrontierStatus(StrEnum):
    """The status of a frontier item. COMPLETED, FAILED and SKIPPED are final."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether the status is final: the queue does not change an item that has it."""
        return self in (FrontierStatus.COMPLETED, FrontierStatus.FAILED, FrontierStatus.SKIPPED)


class Site(Entity):
    """A website to crawl. Your crawler reads its configuration; this package only stores it.

    You set every field, unless its description says who does.
    """

    site_id: str
    """The id of the site, of your choice."""
    name: str
    """The name that people read."""
    seeds: list[str]
    """The URLs at which a crawl begins."""
    allowed_domains: list[str] = Field(default_factory=list)
    """The domains that a crawl does not leave."""
    allowed_subdomains: bool = True
    """Whether a crawl may follow links to subdomains of `allowed_domains`."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """Any further configuration, as JSON."""
    created_at: UtcDatetime = Field(default_factory=utc_now)
    """When the site was created; now by default."""
    updated_at: UtcDatetime = Field(default_factory=utc_now)
    """When you last changed the site; now by default."""
    last_crawl_at: UtcDatetime | None = None
    """When a run of the site was last completed. `complete_run` sets it."""
    last_sync_at: UtcDatetime | None = None
    """When a run with `is_sync` was last completed. `complete_run` sets it."""
    total_pages: int = 0
    """How many pages of the site `complete_run` counted last, without tombstones."""
    total_runs: int = 0
    """How many runs of the site `complete_run` counted last."""
    is_active: bool = True
    """Whether the site is to be crawled."""


# How many hosts, and how many types of errors, the stats of a run name. A run may have a million hosts, and
# an item of DynamoDB takes 400 KB.
MAX_NAMED = 100


class CrawlStats(Entity):
    """The counters of one run.

    Each commit adds to them about a second later, and `add_run_stats` adds what you count yourself.
    `complete_run` counts all of them again, from the items of the run's frontier; some are counted only then.
    """

    pages_discovered: int = 0
    """How many items the frontier has. Only `complete_run` counts them."""
    pages_crawled: int = 0
    """How many items are completed."""
    pages_failed: int = 0
    """How many items are given up as failed. Only `complete_run` counts them."""
    pages_skipped: int = 0
    """How many items are skipped. Only `complete_run` counts them."""
    pages_changed: int = 0
    """How many commits found changed content, or a page that had been gone."""
    pages_unchanged: int = 0
    """How many commits found unchanged content."""
    pages_new: int = 0
    """How many commits found a new page."""
    pages_deleted: int = 0
    """How many commits found that a page is gone which was there before."""
    total_bytes_downloaded: int = 0
    """The size of the committed content in bytes: of `html`, or of `markdown` if there is no `html`."""
    total_fetch_time_ms: float = 0.0
    """The sum of `fetch_latency_ms` of all commits, in milliseconds."""
    total_extraction_time_ms: float = 0.0
    """The sum of `extraction_latency_ms` of all commits, in milliseconds."""
    avg_fetch_latency_ms: float = 0.0
    """The average `fetch_latency_ms` of the commits that have one, in milliseconds: those with content.

    It is 0 if none has. Only `complete_run` sets it.
    """
    errors_by_type: dict[str, int] = Field(default_factory=dict)
    """Failed items by type of error: the 100 most frequent types. Only `complete_run` counts them."""
    errors_by_domain: dict[str, int] = Field(default_factory=dict)
    """Failed items by host: the 100 hosts with the most. Only `complete_run` counts them."""
    status_codes: dict[int, int] = Field(default_factory=dict)
    """Commits by HTTP status."""
    domains_crawled: int = 0
    """How many hosts have a completed item. Names, as ragcrawl passes them, are counted."""
    domains_sample: list[str] = Field(default_factory=list, max_length=MAX_NAMED)
    """The names of up to 100 of these hosts; `Frontier.iter_hosts` has all. Only `complete_run` sets it."""

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
    """One execution of a crawl or a sync. You set every field, unless its description says who does."""

    run_id: str
    """The id of the run, of your choice. No run of another site may have it."""
    site_id: str
    """The site that is crawled."""
    status: RunStatus = RunStatus.PENDING
    """The state of the run. You set it until `complete_run` sets a final one."""
    error_message: str | None = None
    """Why the run failed."""
    created_at: UtcDatetime = Field(default_factory=utc_now)
    """When the run was created; now by default. Runs are listed in this order."""
    started_at: UtcDatetime | None = None
    """When the run started. `get_unseen_pages` returns pages that were last seen before it."""
    completed_at: UtcDatetime | None = None
    """When the run was completed. `complete_run` sets it."""
    config_snapshot: dict[str, JsonValue] = Field(default_factory=dict)
    """The configuration of the site when the run started, as JSON."""
    seeds: list[str] = Field(default_factory=list)
    """The URLs at which the run begins."""
    is_sync: bool = False
    """Whether the run updates the pages of earlier runs."""
    parent_run_id: str | None = None
    """The run that this one continues or updates."""
    has_first_links: bool = False
    """Whether the frontier got all links that the run begins with. `Store.crawl` sets it."""
    stats: CrawlStats = Field(default_factory=CrawlStats)
    """The counters of the run. Commits and `complete_run` set them."""
    frontier_size: int = 0
    """How many items the frontier had in the end. `complete_run` counts them."""
    max_depth_reached: int = 0
    """The greatest `depth` of an item of the frontier. `complete_run` sets it."""

    @property
    def duration_seconds(self) -> float | None:
        """The seconds from the start of the run to its end, or to now if it has not ended.

        None if the run has not started.
        """
        if self.started_at is None:
            return None
        return ((self.completed_at or utc_now()) - self.started_at).total_seconds()

    def mark_started(self) -> None:
        """Makes the run running, since now. This and the methods below store nothing: save the run."""
        self.status = RunStatus.RUNNING
        self.started_at = utc_now()

    def mark_completed(self, partial: bool = False) -> None:
        """Makes the run completed, or partial if some pages failed, and sets its end to now.

        `complete_run` does the same in the tables, and counts the stats.
        """
        self._end(RunStatus.PARTIAL if partial else RunStatus.COMPLETED)

    def mark_failed(self, error: str) -> None:
        """Makes the run failed, with a reason, and sets its end to now."""
        self.error_message = error
        self._end(RunStatus.FAILED)

    def mark_cancelled(self) -> None:
        """Makes the run cancelled, and sets its end to now."""
        self._end(RunStatus.CANCELLED)

    def _end(self, status: RunStatus) -> None:
        self.status = status
        self.completed_at = utc_now()


class Page(Entity):
    """The present state of one URL of a site: how fresh it is, and which version is current.

    `save_page` stores every field as you set it. `commit_page` sets some of them itself, and they say so. A
    page for which the server answers 404 or 410 is a tombstone.
    """

    page_id: str
    """The id of the page within its site, of your choice, such as a hash of the URL."""
    site_id: str
    """The site of the page."""
    url: str
    """The URL as the caller gave it; `get_page_by_url` compares normalized forms."""
    canonical_url: str | None = None
    """The URL that the document names as its canonical one."""
    current_version_id: str | None = None
    """The version with the present content. `commit_page` sets it; None if there never was content."""
    content_hash: str | None = None
    """The `content_hash` of the current version. `commit_page` sets it."""
    etag: str | None = None
    """The header ETag of the last fetch, which the next one can send as If-None-Match."""
    last_modified: str | None = None
    """The header Last-Modified of the last fetch, which the next one can send as If-Modified-Since."""
    first_seen: UtcDatetime = Field(default_factory=utc_now)
    """When the page was first seen; now by default. `commit_page` keeps that of a stored page."""
    last_seen: UtcDatetime = Field(default_factory=utc_now)
    """When the page was last known to exist; now by default. `commit_page` and `mark_seen` set it."""
    last_crawled: UtcDatetime | None = None
    """When the page was last fetched. `commit_page` sets it; None if it never was."""
    last_changed: UtcDatetime | None = None
    """When the page was last created, changed, gone or back. `commit_page` and `tombstone_pages` set it."""
    depth: int = Field(default=0, ge=0)
    """How many links lead from a seed to the page."""
    referrer_url: str | None = None
    """The URL of the page that links to it."""
    status_code: int | None = None
    """The HTTP status of the last fetch. `commit_page` takes that of the version, if it gets one. After a 304
    it is that of the stored content, such as 200.
    """
    is_tombstone: bool = False
    """Whether the page is gone. `commit_page` and `tombstone_pages` set it."""
    error_count: int = 0
    """How many fetches have failed since the last commit. You count them; `commit_page` sets it to 0."""
    last_error: str | None = None
    """Why the last fetch failed. `commit_page` removes it."""
    version_count: int = 0
    """How many versions commits have saved, pruned ones included. `commit_page` counts them."""
    redirect_url: str | None = None
    """The URL to which this page redirects, if the latest fetch said so. You set it; commits clear it."""

    def needs_recrawl(self, max_age_hours: float | None = None, force: bool = False) -> bool:
        """Returns whether the page is to be crawled again, as `get_pages_needing_recrawl` chooses pages.

        Args:
            max_age_hours: A page that was crawled within that many hours is not. None sets no limit.
            force: Says True for every page, also for one that is gone.
        """
        if force:
            return True
        if self.is_tombstone:
            return False
        if self.last_crawled is None or max_age_hours is None:
            return True
        return (utc_now() - self.last_crawled).total_seconds() > max_age_hours * 3600


class PageVersion(Entity):
    """The content of a page at one fetch. You set every field; the backend changes none.

    Its body consists of `markdown`, `html`, `plain_text`, `outlinks` and `headings_outline`.
    """

    version_id: str
    """The id of the version within its page, of your choice."""
    page_id: str
    """The page. Sites that crawl the same URL may share its id."""
    site_id: str
    """The site of the page."""
    run_id: str
    """The run that fetched it."""
    markdown: str = ""
    """The content as Markdown."""
    html: str | None = None
    """The document as HTML; None if it is not kept."""
    plain_text: str | None = None
    """The content as plain text; None if it is not kept."""
    content_hash: str
    """A hash of the content, of your choice. An equal one means that the content did not change."""
    raw_hash: str | None = None
    """A hash of the document as the server sent it."""
    url: str
    """The URL that was fetched."""
    canonical_url: str | None = None
    """The URL that the document names as its canonical one."""
    title: str | None = None
    """The title of the document."""
    description: str | None = None
    """The description that the document gives."""
    content_type: str | None = None
    """The header Content-Type of the fetch."""
    status_code: int
    """The HTTP status of the fetch."""
    language: str | None = None
    """The language of the content, such as "en"."""
    headings_outline: list[dict[str, JsonValue]] = Field(default_factory=list)
    """The headings of the document in their order, each as JSON."""
    word_count: int = 0
    """The number of words in the content."""
    char_count: int = 0
    """The number of characters in the content."""
    outlinks: list[str] = Field(default_factory=list)
    """The URLs to which the document links."""
    internal_link_count: int = 0
    """How many of the links stay on the site."""
    external_link_count: int = 0
    """How many of the links leave the site."""
    etag: str | None = None
    """The header ETag of the fetch."""
    last_modified: str | None = None
    """The header Last-Modified of the fetch."""
    crawled_at: UtcDatetime = Field(default_factory=utc_now)
    """When the document was fetched; now by default. Versions are listed in this order."""
    created_at: UtcDatetime = Field(default_factory=utc_now)
    """When the version was made; now by default."""
    fetch_latency_ms: float | None = None
    """How long the fetch took, in milliseconds."""
    extraction_latency_ms: float | None = None
    """How long it took to extract the content, in milliseconds."""
    is_tombstone: bool = False
    """Whether the page was gone at this fetch."""
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    """Any other data about the document, as JSON."""

    @classmethod
    def of(
        cls,
        page: Page,
        run_id: str,
        *,
        markdown: str = "",
        html: str | None = None,
        plain_text: str | None = None,
        **fields: Any,
    ) -> Self:
        """Returns a version with the content of a page; its ids, hash and counts are derived.

        `content_hash` is the SHA-256 hash of the normalized text: Unicode form NFC, each run of white space
        as one space. The text is `markdown` if there is any, or else `plain_text`, or else `html`.
        `version_id` is derived from the page, the run and the hash, so that a repeated fetch in a run gives
        the same id. `word_count` and `char_count` count `plain_text` if there is any, or else the text that
        is hashed.

        Args:
            page: The page. It gives the ids, the URLs, the status, the ETag and Last-Modified.
            run_id: The run that fetched it.
            markdown: The content as markdown.
            html: The content as HTML.
            plain_text: The content as text.
            **fields: Other fields of the version, and those to set otherwise.

        Raises:
            ValidationError: A field is unknown or has a wrong type.
        """
        text = markdown or plain_text or html or ""
        normalized = " ".join(unicodedata.normalize("NFC", text).split())
        content_hash = sha256(normalized.encode("utf-8", "surrogatepass")).hexdigest()
        parts = "\0".join((page.site_id, page.page_id, run_id, str(fields.get("content_hash", content_hash))))
        counted = plain_text or text
        derived = {
            "version_id": sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:32],
            "content_hash": content_hash,
            "word_count": len(counted.split()),
            "char_count": len(counted),
            "status_code": page.status_code or 200,
            "crawled_at": page.last_crawled or utc_now(),
            **{name: getattr(page, name) for name in _SHARED_FIELDS},
        }
        content = {"markdown": markdown, "html": html, "plain_text": plain_text}
        return cls(**{"run_id": run_id, **derived, **content, **fields})


# The fields of a version that are those of its page.
_SHARED_FIELDS = ("page_id", "site_id", "url", "canonical_url", "etag", "last_modified")

# The fields of a version that are its body. They are stored apart from its head, compressed together.
CONTENT_FIELDS = frozenset({"markdown", "html", "plain_text", "outlinks", "headings_outline"})


class FrontierItem(Entity):
    """One URL for a run to crawl.

    You set every field, unless its description says that the queue does. `Frontier.link` builds an item for
    `Frontier.add`. `save_frontier_item` bypasses the queue, and stores every field as you set it.
    """

    item_id: str
    """The id of the item: a hash of its `unique_key`, or else of its `normalized_url`. The queue sets it."""
    run_id: str
    """The run."""
    site_id: str
    """The site of the run."""
    url: str
    """The URL to fetch, as it was added; a relative one is resolved."""
    normalized_url: str
    """The normal form of the URL, by which links are compared. The queue sets it."""
    url_hash: str
    """The SHA-256 hash of `normalized_url`, in hexadecimal. The queue sets it."""
    depth: int = Field(default=0, ge=0)
    """How many links lead from a seed to the URL. `commit_page` sets it for the links that it adds."""
    referrer_url: str | None = None
    """The URL of the page with the link. `commit_page` sets it for the links that it adds."""
    priority: float = 0.0
    """Items with a higher priority are crawled sooner."""
    status: FrontierStatus = FrontierStatus.PENDING
    """The state of the item. The queue sets it."""
    retry_count: int = 0
    """How many leases failed or expired. The queue counts them; `requeue_failed` sets it to 0."""
    last_error: str | None = None
    """The type and the message of the latest failure, up to 1,000 characters. The queue sets it."""
    discovered_at: UtcDatetime = Field(default_factory=utc_now)
    """When the link was found; now by default. Of items with one priority, the oldest is crawled first."""
    scheduled_at: UtcDatetime | None = None
    """The item cannot be claimed before this moment. The queue sets it after a failure."""
    started_at: UtcDatetime | None = None
    """When the latest lease began. The queue sets it."""
    completed_at: UtcDatetime | None = None
    """When the item got its final status. The queue sets it."""
    domain: str
    """The host, with a port that is not the default one, or the politeness key. The queue sets it."""
    attempt: int = 0
    """How many leases the item has had. The queue counts them."""
    lease_token: str | None = None
    """The random part of the fencing token of the latest lease. The queue sets it."""
    lease_owner: str | None = None
    """The `worker_id` that got the latest lease. The queue sets it."""
    lease_expires_at: UtcDatetime | None = None
    """When the latest lease ends, while it runs. The queue sets it."""
    unique_key: str | None = Field(default=None, min_length=1)
    """A key that replaces the normalized URL if a request is more than a URL. Equal keys are one item."""
    payload: str | None = None
    """The rest of a request that is more than a URL, as text. The queue does not read it."""

    def mark_in_progress(self) -> None:
        """Makes the item one that is being crawled, since now.

        This and the methods below store nothing, and know no leases: use them for items that you save with
        `save_frontier_item`. Items of the queue are settled by `Frontier.complete`, `fail` and `skip`.
        """
        self.status = FrontierStatus.IN_PROGRESS
        self.started_at = utc_now()

    def mark_completed(self) -> None:
        """Makes the item completed, now."""
        self._end(FrontierStatus.COMPLETED)

    def mark_failed(self, error: str) -> None:
        """Makes the item failed, now, with a reason; counts a retry."""
        self.last_error = error
        self.retry_count += 1
        self._end(FrontierStatus.FAILED)

    def mark_skipped(self, reason: str) -> None:
        """Makes the item skipped, now, with a reason."""
        self.last_error = reason
        self._end(FrontierStatus.SKIPPED)

    def _end(self, status: FrontierStatus) -> None:
        self.status = status
        self.completed_at = utc_now()
