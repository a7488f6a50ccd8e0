"""The ledger of the soak in outages finds lost and doubled pages."""

from __future__ import annotations

from typing import Any

from benchmarks.soak_outage import Ledger
from benchmarks.stress_frontier import Web

PAGES = Web(links=2, hosts=1, limited=0.0, failures=0.0, seed=0)
FIRST, SECOND = PAGES.url(0), PAGES.url(1)


def fetch(item: str, token: str, at: float, lease_end: float) -> list[dict[str, Any]]:
    """Returns the events that a worker logs for a page that it fetches in a second."""
    event = {"item": item, "token": token, "started_at": at, "expires_at": lease_end}
    return [
        {**event, "event": name, "at": at + i / 2} for i, name in enumerate(("begin", "committed", "end"))
    ]


def ledger(*events: dict[str, Any]) -> Ledger:
    stored = {FIRST: 1, SECOND: 1}
    return Ledger(list(events), [], [0, 0], dict.fromkeys(stored, "completed"), stored, crawled=2)


def violations(of: Ledger) -> list[str]:
    return [kind for kind, what in of.violations(PAGES).items() if what]


def test_ledger_of_a_crawl_without_violations() -> None:
    assert violations(ledger(*fetch("a", "t1", 0, 60), *fetch("b", "t2", 1, 61))) == []


def test_ledger_finds_lost_pages() -> None:
    left = ledger()
    left.statuses[SECOND] = "in_progress"
    missing = ledger()
    del missing.versions[FIRST]
    uncounted = ledger()
    uncounted.crawled = 1
    assert [violations(crawl) for crawl in (left, missing, uncounted)] == [["lost"]] * 3


def test_ledger_finds_doubled_pages() -> None:
    versions = ledger()
    versions.versions[FIRST] = 2
    counted = ledger()
    counted.crawled = 3
    committed = ledger(*fetch("a", "t1", 0, 5), *fetch("a", "t2", 10, 60))
    assert [violations(crawl) for crawl in (versions, counted, committed)] == [["doubled"]] * 3


def test_ledger_finds_pages_that_were_fetched_again_while_their_lease_ran() -> None:
    begin, _, end = fetch("a", "t1", 0, 30)
    # The lease was renewed before the handler ended.
    again = ledger(begin, {**end, "expires_at": 50}, *fetch("a", "t2", 40, 100))
    assert violations(again) == ["fetched twice"]
    after = ledger(begin, {**end, "expires_at": 39}, *fetch("a", "t2", 40, 100))
    assert violations(after) == []
    assert after.ended_leases == 1


def test_ledger_finds_workers_that_gave_up() -> None:
    gave_up, killed = ledger(), ledger()
    gave_up.errors, gave_up.exit_codes = ["ThrottledError: busy"], [0, 1]
    killed.exit_codes = [0, None]
    assert [violations(crawl) for crawl in (gave_up, killed)] == [["workers that gave up"]] * 2
