"""Adds up a run's stats from the outcomes recorded with its frontier items: exact, whatever workers died."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ragcrawl_dynamo._commit.decision import CommitOutcome, CommitResult
from ragcrawl_dynamo._dynamodb.values import Item, decode_value
from ragcrawl_dynamo.models import CrawlStats, FrontierStatus, PageVersion

# Attributes of a frontier item that tell what its commit did; the last ones are what its fetch took.
OUTCOME, OUTCOME_VERSION = "outcome", "outcome_version"
_STATUS, _BYTES = "outcome_status", "outcome_bytes"
_FETCH_MS, _EXTRACTION_MS = "outcome_fetch_ms", "outcome_extraction_ms"

# Attributes of an item that its run's stats are made of.
STATS_ATTRIBUTES = (
    "status",
    "domain",
    "depth",
    "last_error",
    OUTCOME,
    _STATUS,
    _BYTES,
    _FETCH_MS,
    _EXTRACTION_MS,
)

_COUNTED_AS = {
    CommitOutcome.CREATED: "pages_new",
    CommitOutcome.CHANGED: "pages_changed",
    CommitOutcome.REVIVED: "pages_changed",
    CommitOutcome.UNCHANGED: "pages_unchanged",
    CommitOutcome.TOMBSTONED: "pages_deleted",
}


def outcome_attributes(result: CommitResult, status_code: int | None, version: PageVersion | None) -> Item:
    """The attributes of a frontier item that tell what a commit did."""
    attributes: Item = {OUTCOME: {"S": result.outcome}}
    if result.version_id is not None:
        attributes[OUTCOME_VERSION] = {"S": result.version_id}
    if status_code is not None:
        attributes[_STATUS] = {"N": str(status_code)}
    if version is not None:
        source = version.html if version.html is not None else version.markdown
        attributes[_BYTES] = {"N": str(len(source.encode("utf-8", "surrogatepass")))}
        times = ((_FETCH_MS, version.fetch_latency_ms), (_EXTRACTION_MS, version.extraction_latency_ms))
        attributes |= {name: {"N": repr(float(value))} for name, value in times if value is not None}
    return attributes


def recorded_result(item: Item) -> CommitResult | None:
    """What a commit did, as its frontier item tells it; None if no commit completed the item."""
    if OUTCOME not in item:
        return None
    return CommitResult(CommitOutcome(item[OUTCOME]["S"]), item.get(OUTCOME_VERSION, {}).get("S"))


class RunTotals:
    """Adds up the frontier items of a run.

    Attributes:
        max_depth: The greatest depth of an item.
        open: Items that are not finished.
    """

    def __init__(self) -> None:
        self.max_depth = 0
        self.open = 0
        self._sums: Counter[str] = Counter()
        self._times: Counter[str] = Counter()
        self._errors_by_type: Counter[str] = Counter()
        self._errors_by_domain: Counter[str] = Counter()
        self._status_codes: Counter[int] = Counter()
        self._domains: set[str] = set()

    def add(self, items: Iterable[Item]) -> None:
        """Adds items."""
        for item in items:
            self._add({name: decode_value(item[name]) for name in STATS_ATTRIBUTES if name in item})

    def stats(self) -> CrawlStats:
        """The stats of what was added."""
        fetched = self._sums["pages_crawled"]
        total_fetch = self._times[_FETCH_MS]
        return CrawlStats(
            **self._sums,
            total_fetch_time_ms=total_fetch,
            total_extraction_time_ms=self._times[_EXTRACTION_MS],
            avg_fetch_latency_ms=total_fetch / fetched if fetched else 0.0,
            errors_by_type=dict(self._errors_by_type),
            errors_by_domain=dict(self._errors_by_domain),
            status_codes=dict(self._status_codes),
            domains_crawled=self._domains,
        )

    def _add(self, item: dict[str, Any]) -> None:
        self._sums["pages_discovered"] += 1
        self.max_depth = max(self.max_depth, item.get("depth", 0))
        match item["status"]:
            case FrontierStatus.FAILED:
                self._sums["pages_failed"] += 1
                # As the frontier writes an exception: its type, a colon, what it says.
                self._errors_by_type[item.get("last_error", "").partition(":")[0] or "unknown"] += 1
                self._errors_by_domain[item["domain"] or "unknown"] += 1
            case FrontierStatus.SKIPPED:
                self._sums["pages_skipped"] += 1
            case FrontierStatus.COMPLETED:
                self._sums["pages_crawled"] += 1
                self._domains.add(item["domain"])
            case _:
                self.open += 1
        if OUTCOME in item:
            self._sums[_COUNTED_AS[CommitOutcome(item[OUTCOME])]] += 1
            self._sums["total_bytes_downloaded"] += item.get(_BYTES, 0)
            self._times.update({name: item.get(name, 0.0) for name in (_FETCH_MS, _EXTRACTION_MS)})
            if _STATUS in item:
                self._status_codes[item[_STATUS]] += 1
