"""Counts the stats of a run from the outcomes that are stored with its frontier items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ragcrawl_dynamo._commit.decision import CommitOutcome, CommitResult, Decision
from ragcrawl_dynamo._dynamodb.values import Item, decode_value
from ragcrawl_dynamo._schema.attributes import OUTCOME_STATUS
from ragcrawl_dynamo.models import MAX_NAMED, CrawlStats, FrontierStatus, Page, PageVersion

# The attributes of a frontier item that store the outcome of its commit, and the size and times of its fetch.
OUTCOME, OUTCOME_VERSION = "outcome", "outcome_version"
_BYTES = "outcome_bytes"
_FETCH_MS, _EXTRACTION_MS = "outcome_fetch_ms", "outcome_extraction_ms"

# Says that a page is gone, and was not there before the commit either.
_ABSENT = "outcome_absent"

# The attributes of a frontier item from which the stats are counted.
STATS_ATTRIBUTES = (
    "status",
    "depth",
    "last_error",
    OUTCOME,
    OUTCOME_STATUS,
    _ABSENT,
    _BYTES,
    _FETCH_MS,
    _EXTRACTION_MS,
)

# The most types of errors that are counted, and the most characters of a type: an error is free text. All
# other types are counted together.
_MAX_TYPES = 1000
_MAX_TYPE_LENGTH = 100
_OTHER_TYPES = "other"

_COUNTED_AS: dict[str, str] = {
    CommitOutcome.CREATED: "pages_new",
    CommitOutcome.CHANGED: "pages_changed",
    CommitOutcome.REVIVED: "pages_changed",
    CommitOutcome.UNCHANGED: "pages_unchanged",
    CommitOutcome.TOMBSTONED: "pages_deleted",
}


def outcome_attributes(decision: Decision, version: PageVersion | None, stored: Page | None) -> Item:
    """Returns the attributes that store the outcome of a commit in its frontier item.

    Args:
        decision: The decision of the commit.
        version: The content of the page; None if there is none.
        stored: The page before the commit; None if it is new.
    """
    result, page = decision.result, decision.page
    attributes: Item = {OUTCOME: {"S": result.outcome}, **status_attribute(decision.status)}
    if page.is_tombstone and (stored is None or stored.is_tombstone):
        attributes[_ABSENT] = {"BOOL": True}
    if result.version_id is not None:
        attributes[OUTCOME_VERSION] = {"S": result.version_id}
    if version is not None:
        source = version.html if version.html is not None else version.markdown
        attributes[_BYTES] = {"N": str(len(source.encode("utf-8", "surrogatepass")))}
        times = ((_FETCH_MS, version.fetch_latency_ms), (_EXTRACTION_MS, version.extraction_latency_ms))
        attributes |= {name: {"N": repr(float(value))} for name, value in times if value is not None}
    return attributes


def status_attribute(status_code: int | None) -> Item:
    """Returns the attribute that stores the HTTP status of a fetch in its frontier item."""
    return {} if status_code is None else {OUTCOME_STATUS: {"N": str(status_code)}}


def recorded_result(item: Item) -> CommitResult | None:
    """Returns the stored result of a commit; None if no commit completed the frontier item."""
    if OUTCOME not in item:
        return None
    return CommitResult(CommitOutcome(item[OUTCOME]["S"]), item.get(OUTCOME_VERSION, {}).get("S"))


class RunTotals:
    """The totals of a run's frontier items, in memory that does not grow with their number.

    They do not count by host, since a run can have any number of hosts.

    Attributes:
        max_depth: The greatest depth of an item.
        open: How many items do not have a final status.
    """

    def __init__(self) -> None:
        self.max_depth = 0
        self.open = 0
        self._sums: Counter[str] = Counter()
        self._times: Counter[str] = Counter()
        self._timed_fetches = 0
        self._errors_by_type: Counter[str] = Counter()
        self._status_codes: Counter[int] = Counter()

    def add(self, items: Iterable[Item]) -> None:
        """Adds frontier items to the totals."""
        for item in items:
            self._add({name: decode_value(item[name]) for name in STATS_ATTRIBUTES if name in item})

    def stats(self) -> CrawlStats:
        """Returns the stats of the items that were added."""
        total_fetch = self._times[_FETCH_MS]
        sums: dict[str, Any] = dict(self._sums)
        return CrawlStats(
            **sums,
            total_fetch_time_ms=total_fetch,
            total_extraction_time_ms=self._times[_EXTRACTION_MS],
            avg_fetch_latency_ms=total_fetch / self._timed_fetches if self._timed_fetches else 0.0,
            errors_by_type=dict(self._errors_by_type.most_common(MAX_NAMED)),
            status_codes=dict(self._status_codes),
        )

    def _add(self, item: dict[str, Any]) -> None:
        self._sums["pages_discovered"] += 1
        self.max_depth = max(self.max_depth, item.get("depth", 0))
        match item["status"]:
            case FrontierStatus.FAILED:
                self._sums["pages_failed"] += 1
                self._errors_by_type[self._type_of(item.get("last_error", ""))] += 1
            case FrontierStatus.SKIPPED:
                self._sums["pages_skipped"] += 1
            case FrontierStatus.COMPLETED:
                self._sums["pages_crawled"] += 1
            case _:
                self.open += 1
        if OUTCOME in item:
            counter = _COUNTED_AS.get(item[OUTCOME])
            if counter is not None and _ABSENT not in item:
                self._sums[counter] += 1
            self._timed_fetches += _FETCH_MS in item
            self._sums["total_bytes_downloaded"] += item.get(_BYTES, 0)
            self._times.update({name: item.get(name, 0.0) for name in (_FETCH_MS, _EXTRACTION_MS)})
        if OUTCOME_STATUS in item and FrontierStatus(item["status"]).is_final:
            self._status_codes[item[OUTCOME_STATUS]] += 1

    def _type_of(self, error: str) -> str:
        """Returns the type as which an error is counted."""
        # The frontier stores an exception as its type, a colon and its message.
        kind = error.partition(":")[0][:_MAX_TYPE_LENGTH] or "unknown"
        is_counted = kind in self._errors_by_type or len(self._errors_by_type) < _MAX_TYPES
        return kind if is_counted else _OTHER_TYPES
