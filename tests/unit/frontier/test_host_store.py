"""How the records of hosts are read, updated and listed; with records in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import pytest

from ragcrawl_dynamo import DeadlineExceededError, ThrottledError
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Refused
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._frontier import host_store as module
from ragcrawl_dynamo._frontier.counts import NAMES, UnwrittenCounts
from ragcrawl_dynamo._frontier.host_store import HostStore, Updated
from ragcrawl_dynamo._frontier.host_updates import EndLeases, SetLimits
from ragcrawl_dynamo._frontier.work import Listed, Work
from ragcrawl_dynamo._schema.keys import bucket_of, control_key, host_key
from ragcrawl_dynamo._schema.queue_order import due_bound, queue_order, rank, split_facts
from ragcrawl_dynamo._schema.records import HostRecord, RunControl
from ragcrawl_dynamo._schema.tables import CONTROLS, HOSTS, Tables
from tests.support.factories import START
from tests.support.fakes import FakeClient, open_gateway, scripted
from tests.support.hosts import at, listed, record
from tests.support.written import MemoryTable, key_of, spelled

BUSY = Failed(ThrottledError("busy", code="Busy", operation="UpdateItem", table=None), may_be_applied=False)
LATE = Failed(DeadlineExceededError("late", code="Late", operation="UpdateItem", table=None))

BUCKETS = 4
CONTROL = RunControl(run="run", site_id="site", buckets=BUCKETS, host_delay=3.0, host_max_in_flight=2)
PLACE = queue_order(rank(0.0, START))


class FakeControl:
    """The control of the run, and the reads of it; both are called by the store."""

    run_id, site_id, buckets, key = "run", "site", BUCKETS, control_key("run")

    def __init__(self) -> None:
        self.stored: RunControl | None = CONTROL
        self.made = 0
        self.reopened: list[RunControl | None] = []
        self.knows_buckets = False
        self.may_read = True

    async def know_buckets(self) -> None:
        self.knows_buckets = True

    def decode(self, item: Item) -> RunControl:
        return from_item(CONTROLS, item)

    async def make(self) -> RunControl:
        self.made += 1
        return CONTROL

    async def reopen(self, control: RunControl | None) -> None:
        self.reopened.append(control)

    def may_begin(self) -> bool:
        return self.may_read

    async def following(self) -> RunControl | None:
        return self.stored

    async def recent(self) -> RunControl | None:
        return self.stored


@dataclass
class Hosts:
    """A store, and what it works on."""

    store: HostStore
    memory: MemoryTable
    control: FakeControl
    client: FakeClient

    def record(self, host: str) -> HostRecord:
        """Returns the stored record of a host."""
        return from_item(HOSTS, self.item(host))

    def item(self, host: str) -> Item:
        return self.memory.items[key_of(key(host))]

    def written(self) -> list[str]:
        """Returns the hosts that were written, in order."""
        return [name.removeprefix("host#") for name in self.memory.counts().elements()]


def key(host: str) -> Key:
    return host_key("run", host, bucket_of(host, BUCKETS))


def stored(host: str, *, counts: dict[str, int] | None = None, **fields: Any) -> Item:
    numbers = {**dict.fromkeys(NAMES, 0), **(counts or {})}
    fields = {"bucket": bucket_of(host, BUCKETS), "revision": "first", **fields}
    return to_item(HOSTS, record(host, **fields), {name: {"N": str(n)} for name, n in numbers.items()})


@asynccontextmanager
async def opened(*items: Item, answers: list[Any] | None = None) -> AsyncIterator[Hosts]:
    memory, control = MemoryTable(*items), FakeControl()
    answer = memory.answer if answers is None else scripted(*answers)
    async with open_gateway(answer) as (gateway, client):
        fake = cast("Any", control)
        yield Hosts(HostStore(gateway, Tables.of(""), memory, fake, fake), memory, control, client)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tries again at once; returns after how many failures each time."""
    failures: list[int] = []

    def no_pause(config: object, failed: int) -> float:
        failures.append(failed)
        return 0.0

    monkeypatch.setattr(module, "full_jitter", no_pause)
    return failures


# Reads


async def test_host_is_read_by_the_key_of_its_bucket() -> None:
    async with opened(stored("a", delay=1.0), stored("b")) as hosts:
        records = await hosts.store.read(["a", "b", "absent"])
        # The number of buckets is a part of the key.
        assert hosts.control.knows_buckets
    assert {host: host_record.delay for host, host_record in records.items()} == {"a": 1.0, "b": 0.0}
    assert hosts.store.key("a") == key("a")
    assert {hosts.store.bucket_of(host) for host in "abcdefgh"} == set(range(BUCKETS))


async def test_item_of_a_host_has_its_counts() -> None:
    async with opened(stored("a", counts={"pending": 3})) as hosts:
        item = await hosts.store.get_item("a")
        assert item is not None
        assert item["pending"] == {"N": "3"}
        assert hosts.control.knows_buckets
        assert await hosts.store.get_item("absent") is None


async def test_list_of_a_bucket_is_read_until_a_moment() -> None:
    answer = {"Items": [{"item_id": {"S": "host#a~1b"}, "queue_order": {"S": "order"}}]}
    async with opened(answers=[answer]) as hosts:
        assert await hosts.store.read_list(2, at(9), 20) == ([Listed("a#b", "order")], True)
    ((_, request),) = hosts.client.requests
    until = due_bound(at(9))
    assert spelled(request, "KeyConditionExpression") == f"(queue = #run#2) AND (queue_order <= {until})"
    assert (request["IndexName"], request["Limit"]) == ("by_queue", 20)
    assert "ExclusiveStartKey" not in request


async def test_list_of_a_bucket_is_read_on_after_a_host() -> None:
    answer = {"Items": [], "LastEvaluatedKey": {"any": {"S": "key"}}}
    async with opened(answers=[answer]) as hosts:
        assert await hosts.store.read_list(2, at(9), 20, Listed("a", "order")) == ([], False)
    ((_, request),) = hosts.client.requests
    assert request["ExclusiveStartKey"] == {
        **host_key("run", "a", 2),
        "queue": {"S": "#run#2"},
        "queue_order": {"S": "order"},
    }


def pages(*hosts_of_pages: str) -> list[Any]:
    """Returns the answers of one bucket; each text has the hosts of a page."""
    answers: list[Any] = [{"Items": [stored(host) for host in hosts]} for hosts in hosts_of_pages]
    for answer in answers[:-1]:
        answer["LastEvaluatedKey"] = {"key": answer["Items"][-1]["item_id"]}
    return answers


async def test_all_hosts_are_read_by_name_over_the_buckets() -> None:
    # The first page of each bucket is read first, and a next one when all its hosts were returned.
    answers = [*pages("ad"), *pages("bh")[:1], *pages("ce", "fg")[:1], *pages(""), *pages("fg")]
    async with opened(answers=answers) as hosts:
        iterated = [(host_record.host, item) async for host_record, item in hosts.store.iterate()]
        assert hosts.control.knows_buckets
    assert [host for host, _ in iterated] == list("abcdefgh")
    assert iterated[0][1]["pending"] == {"N": "0"}
    requests = [request for _, request in hosts.client.requests]
    partitions = [spelled(request, "KeyConditionExpression") for request in requests]
    only_hosts = "begins_with(item_id, host#)"
    assert partitions == [f"(run_id = #run#{bucket}) AND ({only_hosts})" for bucket in (0, 1, 2, 3, 2)]
    assert [request.get("ExclusiveStartKey") for request in requests[3:]] == [
        None,
        {"key": {"S": "host#e"}},
    ]
    assert {request["Limit"] for request in requests} == {125}
    assert all("ProjectionExpression" not in request for request in requests)


async def test_counts_of_all_hosts_are_read_without_the_rest() -> None:
    async with opened(answers=[*pages("a", "b"), *pages(""), *pages("c"), *pages("")]) as hosts:
        counted = [(host, item["pending"]) async for host, item in hosts.store.iterate_counts()]
        assert hosts.control.knows_buckets
    assert counted == [(host, {"N": "0"}) for host in "abc"]
    requests = [request for _, request in hosts.client.requests]
    assert {request["Limit"] for request in requests} == {500}
    names = ", ".join(("run_id", "item_id", *NAMES))
    assert {spelled(request, "ProjectionExpression") for request in requests} == {names}
    assert all(request["ConsistentRead"] for request in requests)


# Updates


async def test_update_writes_what_has_changed_under_a_new_revision() -> None:
    async with opened(stored("a", place=PLACE, max_in_flight=1, counts={"pending": 2})) as hosts:
        before = hosts.record("a")
        updated = await hosts.store.try_update({"a": before}, {"a": SetLimits({"delay": 4.0})})
        after = hosts.record("a")
    assert updated == {"a": after}
    assert (after.delay, after.place, after.max_in_flight) == (4.0, PLACE, 1)
    assert after.revision not in ("", "first")
    # Counts are no fields of the record, and stay.
    assert hosts.item("a")["pending"] == {"N": "2"}
    (write,) = hosts.memory.writes
    assert set(write.update.put) == {"delay", "mark", "revision", "queue_order"}  # type: ignore[union-attr]
    assert write.token.is_in(hosts.item("a"))


async def test_update_removes_what_a_record_does_not_have_any_more() -> None:
    async with opened(stored("a", max_in_flight=1, blocked_until=at(5))) as hosts:
        before = hosts.record("a")
        await hosts.store.try_update({"a": before}, {"a": SetLimits({"blocked_until": None})})
    assert "blocked_until" not in hosts.item("a")


async def test_update_that_changes_nothing_is_not_written() -> None:
    async with opened(stored("a")) as hosts:
        before = hosts.record("a")
        assert await hosts.store.try_update({"a": before}, {"a": EndLeases(("t",))}) == {"a": before}
    assert hosts.memory.writes == []


async def test_host_that_has_changed_since_it_was_read_is_left_out() -> None:
    async with opened(stored("a", revision="second"), stored("b")) as hosts:
        records = {"a": record("a", revision="first", bucket=bucket_of("a", BUCKETS)), "b": hosts.record("b")}
        updates = {host: SetLimits({"delay": 4.0}) for host in "ab"}
        assert list(await hosts.store.try_update(records, updates, seconds=2.0)) == ["b"]
    assert hosts.record("a").delay == 0.0
    assert hosts.memory.rounds == [(2, False, 2.0)]


@pytest.mark.parametrize("held", [BUSY, LATE])
async def test_updates_that_are_held_up_are_named_and_not_tried_again(held: Failed) -> None:
    async with opened(stored("a")) as hosts:
        hosts.memory.failed["host#a"] = held
        names: list[str] = []
        updates = {"a": SetLimits({"delay": 4.0})}
        records = {"a": hosts.record("a")}
        assert await hosts.store.try_update(records, updates, on_held_up=names.append) == {}
        assert names == ["a"]
        # Without it the caller waits for them.
        with pytest.raises(type(held.error)):
            await hosts.store.try_update(records, updates)
    assert [once for _, once, _ in hosts.memory.rounds] == [True, False]


async def test_update_reads_again_and_tries_again_what_others_have_changed(no_pauses: list[int]) -> None:
    async with opened(stored("a", place=PLACE), stored("b")) as hosts:
        remaining = [1, 2]

        def change() -> None:
            if remaining:
                hosts.item("a")["revision"] = {"S": f"other{remaining.pop()}"}

        hosts.memory.before_write = change
        updates = {host: SetLimits({"delay": 4.0}) for host in ("a", "b", "absent")}
        order = hosts.record("a").order
        updated = await hosts.store.update(updates)
        assert updated == [Updated(None, hosts.record("b")), Updated(order, hosts.record("a"))]
    # What is done, or not stored, is not tried again.
    assert hosts.memory.reads == ["host#a", "host#b", "host#absent", "host#a", "host#a"]
    assert no_pauses == [1, 2]


async def test_update_gives_up_after_sixteen_attempts(no_pauses: list[int]) -> None:
    async with opened(stored("a")) as hosts:
        revisions = map(str, count())
        hosts.memory.before_write = lambda: hosts.item("a").update(revision={"S": next(revisions)})
        with pytest.raises(ThrottledError, match="16 attempts, such as a:") as raised:
            await hosts.store.update({"a": SetLimits({"delay": 4.0})})
    assert (raised.value.code, raised.value.operation, raised.value.table) == (
        "Contention",
        "UpdateItem",
        "frontier",
    )
    assert hosts.memory.counts() == {"host#a": 16}
    # The pauses grow to that of the fourth attempt.
    assert no_pauses == [1, 2, 3, *[4] * 13]


async def test_update_that_gives_up_names_three_hosts() -> None:
    async with opened(*map(stored, "abcd")) as hosts:
        revisions = map(str, count())

        def change() -> None:
            for host in "abcd":
                hosts.item(host)["revision"] = {"S": next(revisions)}

        hosts.memory.before_write = change
        with pytest.raises(ThrottledError, match=r"changed 4 hosts .* such as a, b, c: try again"):
            await hosts.store.update(dict.fromkeys("abcd", SetLimits({"delay": 4.0})))


async def test_update_of_no_host_reads_nothing() -> None:
    async with opened() as hosts:
        assert await hosts.store.update({}) == []
    assert (hosts.memory.reads, hosts.memory.rounds) == ([], [])


# The list of hosts


LISTED = Listed("a", listed(shards=4, mark="ff", only_item="item"))


def at_place(order: str = LISTED.order, **counts: int) -> Item:
    facts: dict[str, Any] = {"place": PLACE, "only_item": "item", "shards": 4, "mark": "ff"}
    item = stored("a", counts=counts, **facts)
    return {**item, "queue": {"S": "#run"}, "queue_order": {"S": order}}


async def test_moved_host_keeps_its_facts_but_the_only_item() -> None:
    place = queue_order(rank(0.0, START), at(9))
    async with opened(at_place()) as hosts:
        (outcome,) = await hosts.store.move([(LISTED, place)])
        after = hosts.record("a")
    assert isinstance(outcome, Applied)
    assert (after.place, after.only_item, after.shards, after.mark) == (place, None, 4, "ff")
    assert hosts.item("a")["queue_order"] == {"S": after.order}
    assert split_facts(after.order or "") == split_facts(listed(shards=4, mark="ff"))
    # Other updates of the record notice it.
    assert after.revision != "first"
    # A throttled move fails at once.
    assert hosts.memory.rounds == [(1, True, None)]


async def test_host_without_open_items_leaves_the_list() -> None:
    async with opened(at_place(completed=3)) as hosts:
        (outcome,) = await hosts.store.move([(LISTED, None)])
    assert isinstance(outcome, Applied)
    assert not {"place", "only_item", "queue", "queue_order"} & hosts.item("a").keys()
    assert hosts.record("a").revision != "first"


@pytest.mark.parametrize("state", ["pending", "delayed", "in_progress"])
async def test_host_with_open_items_stays_in_the_list(state: str) -> None:
    async with opened(at_place(LISTED.order, **{state: 1})) as hosts:
        assert await hosts.store.move([(LISTED, None)]) == [Refused()]


@pytest.mark.parametrize("place", [None, PLACE])
async def test_host_that_is_elsewhere_by_now_is_not_moved(place: str | None) -> None:
    async with opened(at_place(listed(age=1.0))) as hosts:
        assert await hosts.store.move([(LISTED, place)]) == [Refused()]


# Announcements


async def test_announced_new_host_is_stored_with_the_limits_of_the_run_and_its_counts() -> None:
    unwritten = UnwrittenCounts()
    unwritten.put_back({"a": Counter(pending=2), "b": Counter(pending=1)}, Counter())
    work = {"a": Work(PLACE, 2, item_id="item")}
    async with opened(to_item(CONTROLS, CONTROL)) as hosts:
        (updated,) = await hosts.store.announce(work, unwritten)
        after = hosts.record("a")
    assert updated == Updated(None, after)
    assert (after.run, after.site_id, after.bucket) == ("run", "site", bucket_of("a", BUCKETS))
    assert (after.place, after.shards, after.only_item) == (PLACE, 2, "item")
    assert (after.delay, after.max_in_flight) == (3.0, 2)
    assert after.revision
    assert {name: hosts.item("a")[name] for name in NAMES} == {
        **{name: {"N": "0"} for name in NAMES},
        "pending": {"N": "2"},
    }
    assert unwritten.by_host == {"b": Counter(pending=1)}
    assert hosts.memory.writes[0].token.is_in(hosts.item("a"))


async def test_announcement_reads_the_control_with_the_hosts_and_reopens_the_run() -> None:
    async with opened(to_item(CONTROLS, CONTROL)) as hosts:
        await hosts.store.announce({"a": Work(PLACE)}, UnwrittenCounts())
        assert hosts.control.knows_buckets
    assert hosts.memory.reads == ["control", "host#a"]
    assert (hosts.control.reopened, hosts.control.made) == ([CONTROL], 0)
    assert len(hosts.client.requests) == 1


async def test_announcement_waits_for_the_next_read_of_the_control_if_it_may_not_read_it() -> None:
    async with opened(stored("a")) as hosts:
        hosts.control.may_read = False
        await hosts.store.announce({"a": Work(PLACE)}, UnwrittenCounts())
    assert "control" not in hosts.memory.reads
    assert (hosts.control.reopened, hosts.control.made) == ([CONTROL], 0)


@pytest.mark.parametrize("may_read", [True, False])
async def test_announcement_stores_the_control_if_there_is_none(*, may_read: bool) -> None:
    async with opened(stored("a")) as hosts:
        hosts.control.may_read, hosts.control.stored = may_read, None
        (updated,) = await hosts.store.announce({"a": Work(PLACE)}, UnwrittenCounts())
    assert (hosts.control.reopened, hosts.control.made) == ([CONTROL], 1)
    assert updated.record.place == PLACE


async def test_announcement_moves_known_hosts_only_if_the_work_changes_them() -> None:
    better = queue_order(rank(5.0, START))
    items = [stored(host, place=PLACE) for host in "ab"]
    async with opened(to_item(CONTROLS, CONTROL), *items) as hosts:
        orders = [hosts.record(host).order for host in "ab"]
        work = {"a": Work(better), "b": Work(PLACE)}
        updates = await hosts.store.announce(work, UnwrittenCounts())
        after = {host: hosts.record(host) for host in "ab"}
    assert hosts.memory.counts() == {"host#a": 1}
    assert updates == [Updated(orders[1], after["b"]), Updated(orders[0], after["a"])]
    assert (after["a"].place, after["b"].place) == (better, PLACE)


async def test_host_that_another_process_stores_first_is_updated_and_keeps_its_unwritten_counts() -> None:
    unwritten = UnwrittenCounts()
    unwritten.by_host["a"] = Counter(pending=2)
    async with opened(to_item(CONTROLS, CONTROL)) as hosts:

        def store() -> None:
            # Its place is behind the announced one.
            other = stored("a", place=queue_order(rank(0.0, at(5))), counts={"pending": 7})
            hosts.memory.items.setdefault(key_of(other), other)
            # Counts that come meanwhile are added.
            unwritten.by_host["a"].update({"pending": 1})
            hosts.memory.before_write = lambda: None

        hosts.memory.before_write = store
        (updated,) = await hosts.store.announce({"a": Work(PLACE)}, unwritten)
    assert updated.record.place == PLACE
    assert hosts.item("a")["pending"] == {"N": "7"}
    assert unwritten.by_host == {"a": Counter(pending=3)}


async def test_failed_announcement_raises_and_keeps_the_counts() -> None:
    unwritten = UnwrittenCounts()
    unwritten.put_back({"a": Counter(pending=2), "b": Counter(pending=1)}, Counter())
    async with opened(to_item(CONTROLS, CONTROL)) as hosts:
        hosts.memory.failed["host#a"] = BUSY
        with pytest.raises(ThrottledError):
            await hosts.store.announce({host: Work(PLACE) for host in "ab"}, unwritten)
        # The other one was stored with its counts.
        assert hosts.record("b").place == PLACE
    assert unwritten.by_host == {"a": Counter(pending=2)}


async def test_many_hosts_are_not_read_if_most_of_those_before_were_new() -> None:
    async with opened(to_item(CONTROLS, CONTROL), *(stored(f"known{i}") for i in range(20))) as hosts:

        async def reads(*names: str) -> int:
            hosts.memory.reads.clear()
            await hosts.store.announce({name: Work(PLACE) for name in names}, UnwrittenCounts())
            return sum(name != "control" for name in hosts.memory.reads)

        first, second, third = ([f"{part}{i}" for i in range(100)] for part in ("a", "b", "c"))
        assert await reads(*first) == 100
        # All of those were new.
        assert await reads(*second) == 0
        # Fewer are always read.
        assert await reads(*third[:99]) == 99
        # An insert that is refused reads its host. Nine of ten are enough, but not less.
        assert await reads(*(f"d{i}" for i in range(90)), *(f"known{i}" for i in range(10))) == 10
        assert await reads(*(f"e{i}" for i in range(89)), *(f"known{i}" for i in range(11))) == 11
        assert await reads(*(f"f{i}" for i in range(100))) == 100
        # One new host is all of an announcement.
        assert await reads("one") == 1
        assert await reads(*(f"g{i}" for i in range(100))) == 0


# New hosts without work


async def test_host_is_stored_without_work_for_its_limits() -> None:
    async with opened() as hosts:
        await hosts.store.ensure("a")
        after = hosts.record("a")
        await hosts.store.ensure("a")
    assert (after.place, after.delay, after.max_in_flight, after.site_id) == (None, 3.0, 2, "site")
    assert hosts.item("a")["pending"] == {"N": "0"}
    assert hosts.memory.counts() == {"host#a": 1}
    assert hosts.control.made == 0


async def test_host_without_a_control_stores_the_control_first() -> None:
    async with opened() as hosts:
        hosts.control.stored = None
        await hosts.store.ensure("a")
    assert hosts.control.made == 1


async def test_host_that_cannot_be_stored_raises() -> None:
    async with opened() as hosts:
        hosts.memory.failed["host#a"] = BUSY
        with pytest.raises(ThrottledError):
            await hosts.store.ensure("a")
