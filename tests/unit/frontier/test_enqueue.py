"""Which links are added, what is announced of them, and the results that callers get; without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from ragcrawl_dynamo import (
    AddResult,
    FrontierItem,
    FrontierStatus,
    HostBudgetError,
    InvalidArgumentError,
    PartialBatchError,
    ThrottledError,
)
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert
from ragcrawl_dynamo._dynamodb.outcomes import Failed, Refused
from ragcrawl_dynamo._frontier import enqueue as module
from ragcrawl_dynamo._frontier.arguments import check_link_options, link_item
from ragcrawl_dynamo._frontier.enqueue import Enqueuer
from ragcrawl_dynamo._frontier.host_candidates import Pace
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.queue_order import HostFacts, host_order, queue_order, rank
from ragcrawl_dynamo._schema.records import RunControl, RunState
from ragcrawl_dynamo._utils.urls import link_id, url_hash
from ragcrawl_dynamo.errors import FrontierCancelledError
from tests.support.factories import make_item
from tests.support.hosts import at, known
from tests.support.stored_run import BUSY, StoredRun

A, B, C = "https://a.example/", "https://a.example/b", "https://c.example/"


class FakeBudget:
    """Budgets of hosts; `left` says how many links each host may still have."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.reserved: list[tuple[dict[str, int], int]] = []
        self.given_back: list[dict[str, int]] = []

    async def reserve(self, wanted: Mapping[str, int], limit: int) -> dict[str, int]:
        self.reserved.append((dict(wanted), limit))
        return {host: min(count, self.left.get(host, count)) for host, count in wanted.items()}

    async def give_back(self, unused: Mapping[str, int]) -> None:
        self.given_back.append(dict(unused))


class Adding:
    """A run to which links are added."""

    def __init__(self, **control: Any) -> None:
        self.run = StoredRun()
        self.run.controls.control = RunControl(run="run", site_id="site", **control)
        self.budget = FakeBudget()
        self.progress: list[int] = []
        notifier = Notifier(self.run)
        self.enqueuer = Enqueuer(self.run, notifier, cast("Any", self.budget))

    async def add(
        self, *links: str | FrontierItem, base_url: str | None = None, **options: Any
    ) -> list[AddResult]:
        defaults = {"depth": 0, "referrer_url": None, "priority": None, "not_before": None}
        common = check_link_options(**{**defaults, **options})
        return await self.enqueuer.add(links, common, base_url, self.progress.append)

    def link(self, url: str, **fields: Any) -> FrontierItem:
        return link_item({"url": url, "run_id": "run", "site_id": "site", **fields})

    @property
    def inserted(self) -> list[FrontierItem]:
        """The items of the inserts that were sent."""
        writes = [write for batch in self.run.store.batches for write in batch]
        return [self.run.items.decode(write.item) for write in writes if isinstance(write, ConditionalInsert)]

    @property
    def announced(self) -> Mapping[str, Work]:
        (work,) = self.run.stored_hosts.announced
        return work

    def stored(self, url: str, **fields: Any) -> str:
        """Stores the item of a URL; returns its id."""
        host = url.split("/")[2]
        item_id = link_id(url)
        item = make_item(item_id, url=url, normalized_url=url, domain=host, discovered_at=at(-60), **fields)
        self.run.store.store(item, is_queued=not item.status.is_final)
        return item_id


def order(seconds: float = 0.0, priority: float = 0.0) -> str:
    return queue_order(rank(priority, at(seconds)))


# Items.


async def test_added_link_becomes_an_item_of_the_run() -> None:
    adding = Adding()
    url = "HTTPS://A.example:443/b?y=1&x=2#part"
    (result,) = await adding.add(url, depth=2, referrer_url=A, priority=1.5)
    (item,) = adding.inserted
    normalized = "https://a.example/b?x=2&y=1"
    assert result == AddResult(url, link_id(normalized), added=True)
    assert item == make_item(
        link_id(normalized),
        url=url,
        normalized_url=normalized,
        url_hash=url_hash(normalized),
        domain="a.example",
        depth=2,
        referrer_url=A,
        priority=1.5,
        discovered_at=at(0),
    )
    assert item.status is FrontierStatus.PENDING


async def test_unique_key_of_a_link_is_its_id() -> None:
    adding = Adding()
    results = await adding.add(adding.link(A, unique_key="first"), adding.link(A, unique_key="second"))
    assert [(result.item_id, result.added) for result in results] == [
        (link_id("first"), True),
        (link_id("second"), True),
    ]
    assert [item.normalized_url for item in adding.inserted] == [A, A]


async def test_fields_that_the_queue_sets_are_ignored_in_an_item() -> None:
    adding = Adding()
    given = make_item(
        "another id",
        url=A,
        normalized_url="x",
        url_hash="x",
        domain="x",
        status=FrontierStatus.COMPLETED,
        retry_count=3,
        last_error="x",
        started_at=at(1),
        completed_at=at(2),
        attempt=4,
        lease_owner="x",
        lease_token=link_id("x"),
        lease_expires_at=at(3),
        depth=7,
        payload="kept",
    )
    await adding.add(given)
    (item,) = adding.inserted
    assert item == make_item(
        link_id(A),
        url=A,
        normalized_url=A,
        url_hash=url_hash(A),
        domain="a.example",
        depth=7,
        payload="kept",
        discovered_at=at(0),
    )


async def test_options_of_a_call_do_not_apply_to_items() -> None:
    adding = Adding()
    await adding.add(adding.link(A, depth=1, discovered_at=at(-5)), depth=9, priority=9.0)
    (item,) = adding.inserted
    assert (item.depth, item.priority, item.discovered_at) == (1, 0.0, at(-5))


async def test_links_of_a_call_keep_their_order() -> None:
    adding = Adding()
    await adding.add(A, B, adding.link(C))
    moments = [item.discovered_at for item in adding.inserted]
    assert moments == sorted(set(moments))
    assert moments[0] == at(0)


async def test_relative_link_is_resolved_against_the_base_url() -> None:
    adding = Adding()
    await adding.add("../c", adding.link("d"), base_url="https://a.example/x/y/")
    assert [item.url for item in adding.inserted] == ["https://a.example/x/c", "https://a.example/x/y/d"]


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("mailto:a@a.example", "url: "),
        (make_item(run_id="other"), "run_id: "),
        (make_item(site_id="other"), "run_id: "),
        (7, "links: "),
    ],
)
async def test_link_that_cannot_be_added_has_its_error_as_result(link: Any, reason: str) -> None:
    adding = Adding()
    refused, added = await adding.add(link, A)
    assert str(refused.error).startswith(reason)
    assert isinstance(refused.error, InvalidArgumentError)
    assert (refused.item_id, refused.added) == (None, False)
    assert refused.url == (link.url if isinstance(link, FrontierItem) else link)
    assert (added.item_id, added.added, added.error) == (link_id(A), True, None)


async def test_link_of_a_wrong_type_is_refused_with_its_type() -> None:
    wrong: Any = 7
    (result,) = await Adding().add(wrong)
    assert str(result.error).endswith(" not int")


async def test_link_that_cannot_be_stored_is_refused_alone() -> None:
    adding = Adding()
    results = await adding.add(adding.link(A, payload="x" * 500_000), B)
    assert [result.added for result in results] == [False, True]
    assert [item.url for item in adding.inserted] == [B]


async def test_links_that_are_all_refused_send_nothing() -> None:
    adding = Adding()
    (result,) = await adding.add("mailto:a@a.example")
    assert result.error is not None
    assert (adding.run.store.reads, adding.run.store.batches) == ([], [])


# Known links.


async def test_link_that_is_given_twice_is_added_once() -> None:
    adding = Adding()
    results = await adding.add(B, "https://a.example/b#part", A)
    item_id = link_id(B)
    assert results == [
        AddResult(B, item_id, added=True),
        AddResult("https://a.example/b#part", item_id, added=False),
        AddResult(A, link_id(A), added=True),
    ]
    assert [item.url for item in adding.inserted] == [B, A]


async def test_link_that_this_process_knows_is_answered_without_a_request() -> None:
    adding = Adding()
    await adding.add(A)
    adding.run.store.reads.clear()
    assert await adding.add(A) == [AddResult(A, link_id(A), added=False)]
    assert (adding.run.store.reads, len(adding.run.store.batches)) == ([], 1)


async def test_link_that_is_stored_keeps_its_state_and_is_remembered() -> None:
    adding = Adding()
    item_id = adding.stored(A, status=FrontierStatus.SKIPPED)
    (result, new) = await adding.add(A, C)
    assert result == AddResult(A, item_id, added=False, status=FrontierStatus.SKIPPED)
    assert new.added
    assert [item.url for item in adding.inserted] == [C]
    assert item_id in adding.run.view.seen_links
    # A final item is no work.
    assert list(adding.announced) == ["c.example"]


async def test_work_of_a_stored_link_is_announced() -> None:
    """The process that added it may have been killed before it announced the work."""
    adding = Adding()
    item_id = adding.stored(A)
    await adding.add(A)
    assert adding.announced == {"a.example": Work(order(-60), item_id=item_id)}
    assert adding.run.stored_counters.moves == []


async def test_link_that_another_process_adds_meanwhile_is_announced_and_not_counted() -> None:
    adding = Adding()
    adding.run.store.outcomes[link_id(A)] = Refused()
    (result,) = await adding.add(A)
    assert result == AddResult(A, link_id(A), added=False)
    assert link_id(A) in adding.run.view.seen_links
    # Whether it is the only item of its host is not known.
    assert adding.announced == {"a.example": Work(order())}
    assert adding.run.stored_counters.moves == []


async def test_proof_of_the_end_is_removed_before_links_are_added() -> None:
    adding = Adding(finished_by="proof")
    reopened: list[int] = []
    adding.run.store.during_run = lambda: reopened.append(len(adding.run.controls.reopened))
    await adding.add(A)
    assert adding.run.controls.reopened == [adding.run.controls.control]
    assert reopened == [1]


async def test_end_of_the_run_is_looked_up_only_for_links_that_are_new() -> None:
    adding = Adding(finished_by="proof")
    adding.stored(A, status=FrontierStatus.COMPLETED)
    await adding.add(A)
    assert adding.run.controls.warned == []
    await adding.add(A, B)
    assert adding.run.controls.warned == [adding.run.controls.control]


async def test_no_link_is_added_to_a_cancelled_run() -> None:
    adding = Adding(state=RunState.CANCELLED)
    with pytest.raises(FrontierCancelledError):
        await adding.add(A)
    assert adding.run.store.batches == []


@pytest.mark.parametrize(
    ("first", "second", "is_read"),
    [((10, 0), 10, False), ((10, 0), 9, True), ((1, 0), 10, False), ((9, 1), 10, False), ((8, 2), 10, True)],
    ids=["all new", "few links", "one new", "nine in ten new", "fewer new"],
)
async def test_known_links_are_not_looked_for_if_most_links_were_new_before(
    first: tuple[int, int], second: int, is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MANY_LINKS", 10)
    adding = Adding()
    new, stored = first
    for i in range(stored):
        adding.stored(f"https://a.example/stored{i}")
    known_urls = [f"https://a.example/stored{i}" for i in range(stored)]
    await adding.add(*(f"https://a.example/{i}" for i in range(new)), *known_urls)
    adding.run.store.reads.clear()
    await adding.add(*(f"https://a.example/new{i}" for i in range(second)))
    assert [len(read) for read in adding.run.store.reads] == [second if is_read else 0]


async def test_links_that_other_processes_were_faster_to_add_are_not_new() -> None:
    adding = Adding()
    adding.run.store.outcomes = {link_id(A): Refused(), link_id(B): Refused()}
    await adding.add(A, B, C)
    assert adding.enqueuer._share_new == pytest.approx(1 / 3)


# Announcements, counts and the workbench.


async def test_added_links_are_announced_and_counted() -> None:
    adding = Adding()
    await adding.add(A, C)
    assert adding.announced == {
        "a.example": Work(order(), item_id=link_id(A)),
        "c.example": Work(order(0.000001), item_id=link_id(C)),
    }
    assert adding.run.stored_counters.moves == [
        ("a.example", None, "pending"),
        ("c.example", None, "pending"),
    ]


async def test_host_with_several_new_links_is_announced_by_the_best_one() -> None:
    adding = Adding()
    await adding.add(adding.link(A), adding.link(B, priority=1.0))
    assert adding.announced == {"a.example": Work(order(0.000001, priority=1.0))}


async def test_link_that_waits_for_a_moment_is_counted_as_delayed() -> None:
    adding = Adding()
    await adding.add(A, not_before=at(9))
    assert adding.run.stored_counters.moves == [("a.example", None, "delayed")]
    place = queue_order(rank(0.0, at(0)), at(9))
    assert adding.announced == {"a.example": Work(place, item_id=link_id(A))}


async def test_added_link_can_be_claimed_by_this_process_at_once() -> None:
    adding = Adding()
    adding.run.view.bench.hosts["a.example"] = known(host="a.example", order=None)
    adding.stored(B)
    await adding.add(A, B)
    assert adding.run.ready("a.example") == [link_id(A)]


async def test_item_whose_insert_failed_is_announced_since_it_may_be_stored() -> None:
    adding = Adding()
    adding.run.store.outcomes[link_id(A)] = Failed(BUSY)
    with pytest.raises(PartialBatchError) as caught:
        await adding.add(A, C, C)
    assert caught.value.saved == 2
    ((item, error),) = caught.value.failures
    assert (item.url, error) == (A, BUSY)
    assert adding.announced["a.example"] == Work(order())
    assert link_id(A) not in adding.run.view.seen_links
    assert adding.run.stored_counters.moves == [("c.example", None, "pending")]


async def test_call_fails_if_the_work_cannot_be_announced() -> None:
    adding = Adding()
    adding.run.stored_hosts.error = BUSY
    with pytest.raises(ThrottledError):
        await adding.add(A)
    assert list(adding.run.view.unannounced) == ["a.example"]


async def test_error_of_an_insert_is_more_than_that_of_the_announcement() -> None:
    adding = Adding()
    adding.run.stored_hosts.error = BUSY
    adding.run.store.outcomes[link_id(A)] = Failed(BUSY)
    with pytest.raises(PartialBatchError):
        await adding.add(A, C)


async def test_counts_of_hosts_outside_of_the_share_of_this_process_are_stored_at_once() -> None:
    """Their process may be about to take the host out of the list, if its counts show no open item."""
    adding = Adding()
    adding.run.view.unwritten_counts.by_host["a.example"]["pending"] = 1
    await adding.add(A, C)
    assert adding.run.stored_counters.flushes == [{"a.example", "c.example"}]


async def test_counts_of_hosts_of_this_process_are_stored_later() -> None:
    adding = Adding()
    adding.run.view.unwritten_counts.by_host["a.example"]["pending"] = 1
    adding.run.owns = lambda host: host == "a.example"  # type: ignore[method-assign] # its share
    await adding.add(A)
    assert adding.run.stored_counters.flushes == []
    adding.run.view.unwritten_counts.by_host["c.example"]["pending"] = 1
    await adding.add(B, C)
    assert adding.run.stored_counters.flushes == [{"c.example"}]


# Shards.


@pytest.mark.parametrize(
    ("shards", "pace", "processes", "wanted"),
    [(1, None, 1, 1), (4, None, 1, 4), (1, 900.0, 1, 8), (1, 250.0, 4, 8), (16, 900.0, 1, 16)],
)
async def test_queue_of_a_host_is_spread_as_far_as_its_items_are_claimed_fast(
    shards: int, pace: float | None, processes: int, wanted: int
) -> None:
    adding = Adding()
    adding.run = StoredRun(processes)
    enqueuer = Enqueuer(adding.run, Notifier(adding.run), cast("Any", adding.budget))
    entry = host_order(order(), HostFacts(has_limits=False, shards=shards, mark=""))
    host = adding.run.view.bench.hosts["a.example"] = known(host="a.example", order=entry)
    host.pace = None if pace is None else Pace(0.0, per_second=pace)
    assert enqueuer._shards("a.example") == wanted


async def test_queue_of_a_host_that_is_not_known_or_not_listed_has_one_shard() -> None:
    adding = Adding()
    adding.run.view.bench.hosts["a.example"] = known(host="a.example", order=None)
    assert [adding.enqueuer._shards(host) for host in ("a.example", "new")] == [1, 1]


async def test_item_is_stored_and_announced_with_the_shards_of_its_host() -> None:
    adding = Adding()
    entry = host_order(order(), HostFacts(has_limits=False, shards=4, mark=""))
    adding.run.view.bench.hosts["a.example"] = known(host="a.example", order=entry)
    urls = [f"https://a.example/{i}" for i in range(12)]
    await adding.add(*urls)
    assert adding.announced["a.example"].shards == 4
    queues = {
        write.item["queue"]["S"]
        for write in adding.run.store.batches[0]
        if isinstance(write, ConditionalInsert)
    }
    assert queues == {f"run#a.example#{shard}" for shard in range(4)}


# Budgets.


async def test_links_beyond_the_budget_of_their_host_are_refused() -> None:
    adding = Adding(host_max_items=3)
    adding.budget.left = {"a.example": 1}
    again = f"{B}#again"
    results = await adding.add(A, B, C, again)
    assert adding.budget.reserved == [({"a.example": 2, "c.example": 1}, 3)]
    assert [result.added for result in results] == [True, False, True, False]
    refused = results[1]
    assert isinstance(refused.error, HostBudgetError)
    assert refused.error.field == "url"
    # The message names the host and the limit.
    assert "'a.example'" in str(refused.error)
    assert "3" in str(refused.error)
    # Another spelling of a refused link has its result.
    assert results[3] == AddResult(again, None, added=False, error=refused.error)
    assert [item.url for item in adding.inserted] == [A, C]
    assert link_id(B) not in adding.run.view.seen_links


async def test_stored_links_need_no_budget() -> None:
    adding = Adding(host_max_items=3)
    adding.stored(A)
    await adding.add(A, C)
    assert adding.budget.reserved == [({"c.example": 1}, 3)]


async def test_budget_of_links_that_other_processes_have_added_is_given_back() -> None:
    adding = Adding(host_max_items=3)
    adding.run.store.outcomes = {link_id(A): Refused(), link_id(C): Failed(BUSY)}
    with pytest.raises(PartialBatchError):
        await adding.add(A, B, C)
    # A link whose insert failed may have been added.
    assert adding.budget.given_back == [{"a.example": 1}]


async def test_run_without_budgets_reserves_nothing() -> None:
    adding = Adding()
    adding.run.store.outcomes[link_id(A)] = Refused()
    await adding.add(A)
    assert (adding.budget.reserved, adding.budget.given_back) == ([], [])


# Batches.


async def test_links_are_added_in_batches_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINKS_PER_BATCH", 2)
    adding = Adding()
    urls = [f"https://a.example/{i}" for i in range(5)]
    results = await adding.add(*urls)
    assert [result.url for result in results] == urls
    assert [len(batch) for batch in adding.run.store.batches] == [2, 2, 1]
    assert adding.progress == [2, 4, 5]
    assert adding.run.stored_counters.due_checks == 3


async def test_failed_links_of_a_batch_do_not_stop_the_other_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINKS_PER_BATCH", 2)
    adding = Adding()
    urls = [f"https://a.example/{i}" for i in range(6)]
    failing = [urls[1], urls[4]]
    adding.run.store.outcomes = {link_id(url): Failed(BUSY) for url in failing}
    with pytest.raises(PartialBatchError) as caught:
        await adding.add(*urls)
    assert caught.value.saved == 4
    assert [item.url for item, _ in caught.value.failures] == failing
    assert adding.progress == [2, 4, 6]


async def test_batches_are_added_at_once_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINKS_PER_BATCH", 1)
    adding = Adding()
    taken: list[int] = []

    def links() -> Any:
        for i in range(8):
            taken.append(len(adding.run.store.batches))
            yield f"https://a.example/{i}"

    common = check_link_options(0, None, None, None)
    await adding.enqueuer.add(links(), common, None, None)
    assert len(adding.run.store.batches) == 8
    # Three batches are read ahead of the first one that is not stored.
    assert taken[:4] == [0, 0, 0, 0]
    assert taken[4] > 0


async def test_error_of_a_whole_batch_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    adding = Adding()

    async def admit(control: RunControl | None) -> RunControl:
        raise InvalidArgumentError("normalize", "other rules")

    monkeypatch.setattr(adding.run.controls, "admit", admit)
    with pytest.raises(InvalidArgumentError):
        await adding.add(A)
    # Counts of calls before are stored in time.
    assert adding.run.stored_counters.due_checks == 1
