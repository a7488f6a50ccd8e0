"""The frontier's queue through its public methods, on every engine, in both ways of conditional batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import (
    Claim,
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    FrontierCancelledError,
    FrontierStats,
    FrontierStatus,
    InvalidArgumentError,
    InvalidInputError,
    InvalidKeyError,
    LeaseLostError,
    RunState,
)
from ragcrawl_dynamo._frontier.scheduler import LIMITED_CANDIDATE_SECONDS
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_item, make_run, make_site
from tests.support.queues import QUICK, WAYS, claim_all, items, names, url, urls

pytestmark = WAYS


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def config(dynamodb_config: DynamoDBConfig, way: str) -> DynamoDBConfig:
    return dynamodb_config.model_copy(update={"conditional_batches": way, **QUICK})


@pytest_asyncio.fixture
async def backend(
    dynamodb_backend: DynamoDBBackend, config: DynamoDBConfig, clock: ManualClock
) -> AsyncIterator[DynamoDBBackend]:
    # dynamodb_backend deletes the tables at the end.
    async with DynamoDBBackend(config, clock=clock) as backend:
        yield backend


@pytest.fixture
def frontier(backend: DynamoDBBackend) -> Frontier:
    return backend.frontier("run", "site")


# Adding


async def test_frontier_add_adds_a_link_once_in_any_spelling(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    results = await frontier.add(["https://A.example/?b=2&a=1#top", "https://a.example/?a=1&b=2", url(1)])
    assert [each.added for each in results] == [True, False, True]
    assert results[0].item_id == results[1].item_id
    assert [each.added for each in await frontier.add(urls(3))] == [True, False, True]
    stored = await items(backend)
    assert len(stored) == 4
    first = stored["https://A.example/?b=2&a=1#top"]
    assert (first.normalized_url, first.domain) == ("https://a.example/?a=1&b=2", "a.example")


async def test_frontier_add_stores_options_and_item_fields(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    later = clock.now() + timedelta(minutes=5)
    await frontier.add([url(1)], depth=3, referrer_url=url(0), priority=2.5, not_before=later)
    await frontier.add([make_item("own-id", url=url(2), depth=7, priority=-1, retry_count=9)])
    stored = await items(backend)
    one, two = stored[url(1)], stored[url(2)]
    assert (one.depth, one.referrer_url, one.priority, one.scheduled_at) == (3, url(0), 2.5, later)
    assert (two.depth, two.priority, two.retry_count) == (7, -1, 0)
    assert two.item_id != "own-id"


async def test_frontier_add_reports_invalid_links_and_adds_the_others(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    odd: Any = 5
    links = [url(1), "http://[bad", "https://" + "h" * 600 + "/", odd, "https://x.example/\ud800", url(2)]
    results = await frontier.add(links)
    assert [each.added for each in results] == [True, False, False, False, False, True]
    assert isinstance(results[1].error, InvalidArgumentError)
    assert isinstance(results[2].error, InvalidKeyError)
    assert results[2].error.field == "domain"
    assert all(each.error is not None for each in results[1:5])
    assert set(await items(backend)) == {url(1), url(2)}


async def test_frontier_add_again_never_resets_progress(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await frontier.add(urls(3))
    one, two, _ = await frontier.claim(3)
    await frontier.complete(one)
    await frontier.skip(two, "robots.txt")
    before = await items(backend)
    frontier.forget()
    assert not any(each.added for each in await frontier.add(urls(3)))
    assert await items(backend) == before


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"depth": -1}, "depth"),
        ({"priority": float("nan")}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"not_before": "tomorrow"}, "not_before"),
        ({"referrer_url": 5}, "referrer_url"),
    ],
)
async def test_frontier_add_refuses_an_option_outside_its_limits(
    frontier: Frontier, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await frontier.add([url(1)], **options)
    assert caught.value.field == field
    assert await frontier.claim() == []


async def test_frontier_add_refuses_a_single_string(frontier: Frontier) -> None:
    with pytest.raises(InvalidArgumentError, match="put a single one into a list"):
        await frontier.add(url(1))


# Claiming


async def test_claim_leases_items(backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add(urls(3))
    claims = await frontier.claim(2, lease_seconds=30, worker_id="w1")
    assert names(claims) == urls(2)
    assert {claim.expires_at for claim in claims} == {clock.now() + timedelta(seconds=30)}
    stored = await items(backend)
    for claim in claims:
        assert stored[claim.item.url] == claim.item
        assert (claim.item.status, claim.item.lease_owner) == (FrontierStatus.IN_PROGRESS, "w1")
        assert (claim.item.started_at, claim.item.lease_expires_at) == (clock.now(), claim.expires_at)
    assert names(await frontier.claim(10)) == [url(2)]
    assert await frontier.claim(10) == []


async def test_claim_takes_the_highest_priority_first_then_the_oldest(frontier: Frontier) -> None:
    await frontier.add(urls(3))
    await frontier.add([url(10)], priority=1.5)
    await frontier.add([url(11)], priority=-2)
    await frontier.add([url(12)], priority=1e100)
    await frontier.add([url(13)], priority=1.5)
    order = [12, 10, 13, 0, 1, 2, 11]
    assert [names(await frontier.claim(1)) for _ in order] == [[url(i)] for i in order]


async def test_claim_mixes_hosts_by_priority(frontier: Frontier) -> None:
    await frontier.add(urls(2, "a.example"), priority=1)
    await frontier.add(urls(2, "b.example"), priority=2)
    assert [claim.item.domain for claim in await frontier.claim(4)] == ["b.example"] * 2 + ["a.example"] * 2


async def test_claim_takes_over_an_expired_lease_and_fences_its_former_holder(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add([url(1)])
    (old,) = await frontier.claim(1, lease_seconds=10)
    clock.advance(10.9)
    assert await frontier.claim() == []
    clock.advance(0.2)
    (new,) = await frontier.claim(1, lease_seconds=10)
    assert new.token > old.token
    assert (new.item.attempt, new.item.retry_count) == (2, 1)
    assert "lease expired" in (new.item.last_error or "")
    before = await items(backend)
    stale: list[Callable[[], Awaitable[Any]]] = [
        lambda: frontier.complete(old),
        lambda: frontier.fail(old, "x"),
        lambda: frontier.skip(old, "x"),
        lambda: frontier.release(old),
        lambda: frontier.renew(old, 10),
    ]
    for verb in stale:
        with pytest.raises(LeaseLostError) as caught:
            await verb()
        assert caught.value.claims == (old,)
    assert await items(backend) == before
    await frontier.complete(new)


async def test_renew_keeps_a_lease_from_being_taken_over(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add(urls(2))
    kept, lost = await frontier.claim(2, lease_seconds=10)
    clock.advance(8)
    await frontier.renew([kept], 20)
    assert kept.expires_at == clock.now() + timedelta(seconds=20)
    clock.advance(13)
    assert names(await frontier.claim()) == [lost.item.url]
    clock.advance(8.5)
    assert names(await frontier.claim()) == [kept.item.url]


async def test_claim_makes_an_item_whose_leases_keep_expiring_a_dead_letter(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add([url(1)])
    for attempt in (1, 2, 3):
        (claim,) = await frontier.claim(1, lease_seconds=10)
        assert claim.item.attempt == attempt
        clock.advance(12)
    assert await frontier.claim() == []
    item = (await items(backend))[url(1)]
    assert (item.status, item.retry_count) == (FrontierStatus.FAILED, 3)
    assert "lease expired" in (item.last_error or "")
    assert await frontier.is_finished()


async def test_claim_waits_for_a_delayed_item(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add([url(1)], not_before=clock.now() + timedelta(seconds=3))
    waiting = asyncio.create_task(frontier.claim(5, wait_seconds=10))
    while not waiting.done():
        sleeping = asyncio.create_task(clock.wait_for_sleeper())
        await asyncio.wait((waiting, sleeping), return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        clock.advance(0 if waiting.done() else 0.25)
    assert names(await waiting) == [url(1)]
    assert 3.0 <= clock.monotonic() <= 3.5


async def test_claim_that_waits_is_woken_by_add(frontier: Frontier, clock: ManualClock) -> None:
    waiting = asyncio.create_task(frontier.claim(5, wait_seconds=60))
    await clock.wait_for_sleeper()
    await frontier.add([url(1)])
    assert names(await waiting) == [url(1)]
    assert clock.monotonic() == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 2.5}, "limit"),
        ({"lease_seconds": 2.0}, "lease_seconds"),
        ({"lease_seconds": float("nan")}, "lease_seconds"),
        ({"lease_seconds": 1e9}, "lease_seconds"),
        ({"wait_seconds": -1}, "wait_seconds"),
        ({"worker_id": "w" * 257}, "worker_id"),
        ({"worker_id": "\ud800"}, "worker_id"),
    ],
)
async def test_claim_refuses_an_argument_outside_its_limits(
    frontier: Frontier, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await frontier.claim(**arguments)
    assert caught.value.field == field


# Finishing


async def test_settlement_sets_the_status_of_each_verb(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(5))
    done, retried, given_up, skipped, released = await frontier.claim(5)
    await frontier.complete(done)
    await frontier.fail(retried, ValueError("no title"), retry_in=7)
    await frontier.fail(given_up, "gone", retry=False)
    await frontier.skip(skipped, "robots.txt")
    await frontier.release(released)
    stored = await items(backend)
    states = [(stored[url(i)].status, stored[url(i)].last_error) for i in range(5)]
    assert states == [
        ("completed", None),
        ("pending", "ValueError: no title"),
        ("failed", "gone"),
        ("skipped", "robots.txt"),
        ("pending", None),
    ]
    assert stored[url(0)].completed_at == clock.now()
    assert stored[url(1)].scheduled_at == clock.now() + timedelta(seconds=7)
    assert names(await frontier.claim()) == [url(4)]
    clock.advance(8)
    assert names(await frontier.claim()) == [url(1)]


async def test_settlement_may_be_repeated_but_not_changed(frontier: Frontier) -> None:
    await frontier.add(urls(3))
    done, released, failed = await frontier.claim(3)
    await frontier.complete(done)
    await frontier.complete(done)
    await frontier.release(released)
    await frontier.release(released)
    await frontier.fail(failed, "x", retry=False)
    with pytest.raises(LeaseLostError):
        await frontier.skip(done, "x")
    with pytest.raises(LeaseLostError):
        await frontier.complete(released)
    assert await frontier.stats() == FrontierStats(pending=1, completed=1, failed=1)


async def test_settlement_refuses_claims_of_another_run(backend: DynamoDBBackend, frontier: Frontier) -> None:
    other = backend.frontier("other", "site")
    await other.add([url(1)])
    (claim,) = await other.claim()
    odd: Any = "claim"
    for call in (frontier.complete([claim]), frontier.fail(claim, "x")):
        with pytest.raises(InvalidArgumentError, match="claims: must be claims of run 'run'"):
            await call
    with pytest.raises(InvalidArgumentError, match="claims: must be several, not a str"):
        await frontier.release(odd)
    with pytest.raises(InvalidArgumentError, match="claims: must be a Claim, not str"):
        await frontier.release([odd])
    await other.complete(claim)


async def test_complete_of_several_claims_completes_those_that_are_held(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await frontier.add(urls(4))
    claims = await frontier.claim(4)
    await frontier.release(claims[1])
    with pytest.raises(LeaseLostError) as caught:
        await frontier.complete(claims)
    assert caught.value.claims == (claims[1],)
    assert [item.status for item in (await items(backend)).values()].count(FrontierStatus.COMPLETED) == 3
    await frontier.complete([])


async def test_fail_backs_off_exponentially_up_to_a_dead_letter(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add([url(1)])
    for bound in (4.0, 8.0):
        (claim,) = await frontier.claim()
        await frontier.fail(claim, "x")
        scheduled = (await items(backend))[url(1)].scheduled_at
        assert scheduled is not None
        assert bound / 2 <= (scheduled - clock.now()).total_seconds() <= bound
        clock.advance(bound + 1)
    (claim,) = await frontier.claim()
    await frontier.fail(claim, "y" * 5000 + "\ud800")
    item = (await items(backend))[url(1)]
    assert (item.status, item.attempt, item.retry_count, item.last_error) == ("failed", 3, 3, "y" * 1000)
    clock.advance(1000)
    assert await frontier.claim() == []


async def test_requeue_failed_puts_dead_letters_back(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(120))
    claims = await claim_all(frontier)
    await frontier.complete(claims[:60])
    for claim in claims[60:]:
        await frontier.fail(claim, "x", retry=False)
    assert await frontier.is_finished()
    assert len(await backend.get_frontier_items("run", status="failed")) == 60
    assert await frontier.requeue_failed() == 60
    assert not await frontier.is_finished()
    again = await claim_all(frontier)
    assert len(again) == 60
    assert {(claim.item.attempt, claim.item.retry_count) for claim in again} == {(2, 0)}
    await frontier.complete(again)
    assert await frontier.is_finished()
    assert await frontier.requeue_failed() == 0


# The run


async def test_claim_returns_nothing_while_paused_and_raises_when_cancelled(frontier: Frontier) -> None:
    await frontier.add(urls(3))
    (held,) = await frontier.claim(1)
    assert await frontier.state() is RunState.RUNNING
    await frontier.pause()
    assert (await frontier.state(), await frontier.claim()) == (RunState.PAUSED, [])
    await frontier.complete(held)
    await frontier.resume()
    assert len(await frontier.claim(1)) == 1
    await frontier.cancel()
    await frontier.cancel()
    for call in (frontier.claim(), frontier.pause(), frontier.resume()):
        with pytest.raises(FrontierCancelledError):
            await call
    assert await frontier.state() is RunState.CANCELLED
    assert not await frontier.is_finished()


async def test_pause_is_seen_by_the_next_claim_of_another_process(
    backend: DynamoDBBackend, config: DynamoDBConfig, clock: ManualClock
) -> None:
    async with DynamoDBBackend(config, clock=clock) as elsewhere:
        own, other = backend.frontier("run", "site"), elsewhere.frontier("run", "site")
        await own.add(urls(20))
        assert len(await other.claim(2)) == 2
        await own.pause()
        assert await other.claim(2) == []
        await other.resume()
        assert len(await own.claim(2)) == 2


async def test_is_finished_when_every_item_is_final(frontier: Frontier, clock: ManualClock) -> None:
    assert await frontier.is_finished()
    await frontier.add(urls(2))
    assert not await frontier.is_finished()
    one, two = await frontier.claim()
    await frontier.complete(one)
    assert not await frontier.is_finished()
    await frontier.fail(two, "x", retry_in=5)
    assert not await frontier.is_finished()
    clock.advance(6)
    (two,) = await frontier.claim()
    await frontier.skip(two, "x")
    assert await frontier.is_finished()
    await frontier.add([url(0), url(9)])
    assert not await frontier.is_finished()


async def test_is_finished_only_after_items_saved_as_records_are_done(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await backend.save_frontier_item(make_item("record", url=url(1), domain="a.example"))
    assert not await frontier.is_finished()
    (claim,) = await frontier.claim()
    assert claim.item.item_id == "record"
    await frontier.complete(claim)
    assert await frontier.is_finished()


async def test_update_frontier_status_ends_a_lease(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await frontier.add([url(1)])
    (claim,) = await frontier.claim()
    await backend.update_frontier_status("run", claim.item.item_id, "completed")
    with pytest.raises(LeaseLostError):
        await frontier.fail(claim, "x")
    assert await frontier.claim() == []
    assert await frontier.is_finished()


async def test_frontier_stats_follow_every_verb(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add(urls(6))
    await frontier.add(urls(1, "b.example"), not_before=clock.now() + timedelta(seconds=60))
    claims = await frontier.claim(5)
    await frontier.complete(claims[:2])
    await frontier.fail(claims[2], "x")
    await frontier.skip(claims[3], "x")
    expected = FrontierStats(pending=1, delayed=2, in_progress=1, completed=2, skipped=1)
    assert await frontier.stats() == expected
    assert (expected.open, expected.total) == (4, 7)
    assert await frontier.stats("b.example") == FrontierStats(delayed=1)
    assert await frontier.stats("absent.example") == FrontierStats()
    assert await frontier.recount() == expected
    hosts = {each.host: each.stats async for each in frontier.iter_hosts()}
    assert hosts["b.example"] == FrontierStats(delayed=1)
    assert hosts["a.example"].total == 6


async def test_recount_restores_counts_that_a_killed_process_lost(
    frontier: Frontier, config: DynamoDBConfig, clock: ManualClock
) -> None:
    await frontier.add(urls(5))
    await frontier.stats()
    async with DynamoDBBackend(config, clock=clock) as killed:
        other = killed.frontier("run", "site")
        await other.complete(await other.claim(2))
        # Nothing of it is written.
        other.forget()
    assert await frontier.stats() == FrontierStats(pending=5)
    assert await frontier.recount() == FrontierStats(pending=3, completed=2)
    assert await frontier.stats() == FrontierStats(pending=3, completed=2)
    assert await frontier.stats("a.example") == FrontierStats(pending=3, completed=2)


async def test_clear_frontier_removes_items_hosts_and_counts_of_a_run(
    backend: DynamoDBBackend, frontier: Frontier, config: DynamoDBConfig, clock: ManualClock
) -> None:
    await frontier.add(urls(70))
    await frontier.set_host_delay("a.example", 5)
    await frontier.pause()
    assert await backend.clear_frontier("run") == 70
    assert await items(backend) == {}
    assert await frontier.state() is RunState.RUNNING
    assert await frontier.stats() == FrontierStats()
    assert [each async for each in frontier.iter_hosts()] == []
    assert await frontier.is_finished()
    assert all(each.added for each in await frontier.add(urls(3)))
    assert len(await frontier.claim()) == 3


async def test_frontier_of_one_run_does_not_see_another_run(backend: DynamoDBBackend) -> None:
    one, other = backend.frontier("run", "site"), backend.frontier("run#0", "site")
    await one.add(urls(2))
    await other.add(urls(3))
    await one.pause()
    assert len(await other.claim()) == 3
    assert backend.frontier("run", "site") is one


async def test_delete_site_deletes_its_frontiers(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await backend.save_site(make_site())
    await backend.save_run(make_run())
    await frontier.add(urls(3))
    assert await backend.delete_site("site")
    assert await items(backend) == {}
    assert [each async for each in frontier.iter_hosts()] == []


async def test_frontier_ttl_expires_final_items(
    backend: DynamoDBBackend, config: DynamoDBConfig, clock: ManualClock
) -> None:
    expiring = config.model_copy(update={"frontier_ttl_days": 1})
    clock.advance(-2 * 86_400)
    async with DynamoDBBackend(expiring, clock=clock) as other:
        frontier = other.frontier("run", "site")
        await frontier.add(urls(4))
        one, two, three, _ = await frontier.claim(4)
        await frontier.complete(one)
        await frontier.skip(two, "x")
        await frontier.fail(three, "x", retry=False)
    # Two days later those are over, whether the engine has deleted them or not.
    assert list(await items(backend)) == [url(3)]


# Politeness


async def test_host_delay_spaces_the_leases_of_a_host(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.set_host_delay("a.example", 3)
    await frontier.add(urls(3))
    await frontier.add(urls(1, "b.example"))
    assert sorted(names(await frontier.claim(10))) == [url(0), url(0, "b.example")]
    clock.advance(2.9)
    assert await frontier.claim() == []
    clock.advance(0.2)
    assert names(await frontier.claim()) == [url(1)]
    await frontier.set_host_delay("a.example", 0)
    assert names(await frontier.claim()) == [url(2)]


async def test_host_max_in_flight_holds_until_leases_end(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.set_host_max_in_flight("a.example", 2)
    await frontier.add(urls(6))
    one, _ = await frontier.claim(10, lease_seconds=10)
    assert await frontier.claim() == []
    await frontier.complete(one)
    (three,) = await frontier.claim(10, lease_seconds=10)
    await frontier.release(three)
    (three,) = await frontier.claim(10, lease_seconds=30)
    assert [each.in_flight async for each in frontier.iter_hosts()] == [2]
    # The second one's worker died: its place is free once its item may be taken over.
    clock.advance(11.5)
    assert len(await frontier.claim(10, lease_seconds=30)) == 1
    await frontier.set_host_max_in_flight("a.example", None)
    clock.advance(LIMITED_CANDIDATE_SECONDS)
    assert len(await claim_all(frontier)) == 4


async def test_renew_keeps_the_in_flight_slot(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.set_host_max_in_flight("a.example", 1)
    await frontier.add(urls(2))
    (held,) = await frontier.claim(lease_seconds=10)
    clock.advance(9)
    await frontier.renew(held, 10)
    clock.advance(9)
    assert await frontier.claim() == []
    await frontier.complete(held)
    assert names(await frontier.claim()) == [url(1)]


async def test_block_host_gives_nothing_and_starves_no_other_host(
    frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(300, "blocked.example"), priority=100)
    await frontier.block_host("blocked.example", clock.now() + timedelta(seconds=60))
    await frontier.add(urls(2))
    assert names(await frontier.claim(10)) == urls(2)
    clock.advance(61)
    assert len(await frontier.claim(5)) == 5


async def test_host_limits_are_durable_and_seen_by_other_processes(
    backend: DynamoDBBackend, frontier: Frontier, config: DynamoDBConfig, clock: ManualClock
) -> None:
    await frontier.add(urls(6))
    async with DynamoDBBackend(config, clock=clock) as elsewhere:
        other = elsewhere.frontier("run", "site")
        assert len(await other.claim(1)) == 1
        await frontier.set_host_delay("a.example", 10)
        assert len(await other.claim(5)) == 1
        assert await frontier.claim(5) == []
        clock.advance(11)
        assert len(await frontier.claim(5)) == 1
        assert await other.claim(5) == []


async def test_host_limits_begin_with_those_of_the_run(
    backend: DynamoDBBackend, config: DynamoDBConfig, clock: ManualClock
) -> None:
    polite = backend.frontier("polite", "site", host_delay=2.0, host_max_in_flight=3)
    await polite.add(urls(3))
    async with DynamoDBBackend(config, clock=clock) as elsewhere:
        # Whoever comes later need not know them.
        other = elsewhere.frontier("polite", "site")
        await other.add(urls(3, "b.example"))
        claims = await other.claim(10)
        assert sorted(claim.item.domain for claim in claims) == ["a.example", "b.example"]
        assert {(each.delay, each.max_in_flight) async for each in other.iter_hosts()} == {(2.0, 3)}


@pytest.mark.parametrize(
    "verb",
    [
        lambda frontier: frontier.set_host_delay("a", -1),
        lambda frontier: frontier.set_host_max_in_flight("a", 0),
        lambda frontier: frontier.block_host("a", "later"),
        lambda frontier: frontier.set_host_delay("h" * 513, 1),
    ],
)
async def test_host_limits_refuse_invalid_values(
    frontier: Frontier, verb: Callable[[Frontier], Awaitable[None]]
) -> None:
    with pytest.raises((InvalidArgumentError, InvalidKeyError)):
        await verb(frontier)


# Workers


async def test_worker_handles_every_item_and_ends(backend: DynamoDBBackend, config: DynamoDBConfig) -> None:
    async with DynamoDBBackend(config.model_copy(update={"frontier_retry_delay": 0.1})) as timed:
        frontier = timed.frontier("run", "site")
        await frontier.add(urls(5))
        tried: list[str] = []

        async def handle(claim: Claim) -> None:
            tried.append(claim.item.url)
            if claim.item.url == url(1):
                raise ValueError("broken")
            if claim.item.url == url(2):
                await frontier.skip(claim, "not wanted")
            if claim.item.url == url(3):
                await frontier.add([url(9)])

        async with frontier.worker(concurrency=3, worker_id="w") as worker:
            await asyncio.wait_for(worker.run(handle), 30)
        stored = await items(backend)
        assert sorted(tried) == sorted([*urls(5), url(9), url(1), url(1)])
        assert stored[url(1)].status == "failed"
        assert stored[url(1)].last_error == "ValueError: broken"
        assert stored[url(2)].status == "skipped"
        assert await frontier.stats() == FrontierStats(completed=4, failed=1, skipped=1)
        assert (worker.failed, worker.lost) == (3, 0)


async def test_worker_that_is_cancelled_releases_its_claims(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await frontier.add(urls(3))
    started = asyncio.Event()

    async def handle(claim: Claim) -> None:
        started.set()
        await asyncio.Event().wait()

    async def crawl() -> None:
        async with frontier.worker(concurrency=2) as worker:
            await worker.run(handle)

    crawling = asyncio.create_task(crawl())
    await started.wait()
    crawling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await crawling
    assert {item.status for item in (await items(backend)).values()} == {FrontierStatus.PENDING}
    assert len(await frontier.claim()) == 3


async def test_frontier_add_takes_links_with_one_unique_key_as_one(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    one, other = (
        frontier.link("https://a.example/form", unique_key=f"POST {number}", payload=f"a={number}")
        for number in (1, 2)
    )
    assert [each.added for each in await frontier.add([one, other, one])] == [True, True, False]
    assert [each.added for each in await frontier.add(["https://a.example/form"])] == [True]
    claims = await frontier.claim(5)
    found = [(each.item.unique_key, each.item.payload, each.item.url) for each in claims]
    assert found == [
        ("POST 1", "a=1", "https://a.example/form"),
        ("POST 2", "a=2", "https://a.example/form"),
        (None, None, "https://a.example/form"),
    ]
    assert {each.item.domain for each in claims} == {"a.example"}
    with pytest.raises(InvalidInputError, match="item"):
        await frontier.put_back(claims[0], payload="x" * 500_000)
    for fields in ({"payload": 5}, {"unique_key": ""}, {"pay": "a"}, {"depth": -1}):
        (name,) = fields
        with pytest.raises(InvalidArgumentError, match=name):
            frontier.link("https://a.example/", **fields)
    with pytest.raises(InvalidInputError, match="payload"):
        await frontier.complete(claims[0], payload=b"")  # type: ignore[arg-type] # that is what is tested
    await frontier.put_back(claims[0], payload="a=3", to_end=True)
    await frontier.put_back(claims[2])
    await frontier.put_back(claims[1], priority=1)
    again = await frontier.claim(5)
    assert [each.item.payload for each in again] == ["a=2", None, "a=3"]
    await frontier.complete(again[2], payload="a=4")
    assert {each.payload for each in await backend.get_frontier_items("run")} == {"a=2", None, "a=4"}


async def test_frontier_add_again_returns_the_status_of_the_link(
    frontier: Frontier, config: DynamoDBConfig
) -> None:
    await frontier.add(urls(2))
    (claim,) = await frontier.claim(1)
    await frontier.complete(claim)
    async with DynamoDBBackend(config) as other:
        results = await other.frontier("run", "site").add(urls(3))
    assert [each.status for each in results] == [FrontierStatus.COMPLETED, FrontierStatus.PENDING, None]


async def test_lease_keeper_renews_held_claims_and_reports_lost_ones(
    frontier: Frontier, clock: ManualClock
) -> None:
    lost: asyncio.Queue[Claim] = asyncio.Queue()
    await frontier.add(urls(3))
    async with frontier.keeper(lambda claim, _: lost.put_nowait(claim), lease_seconds=30) as keeper:
        held, ended, forgotten = await frontier.claim(3, lease_seconds=30)
        keeper.hold([held, ended])
        await frontier.complete(ended)
        # As it is while the answer is under way.
        ended.ended = False
        for _ in range(10):
            await clock.wait_for_sleeper()
            clock.advance(9)
        await clock.wait_for_sleeper()
        assert (keeper.held, lost.empty()) == ([held], True)
        (again,) = await frontier.claim(5)
        assert again.item.item_id == forgotten.item.item_id
        keeper.hold([forgotten])
        clock.advance(2)
        assert await lost.get() is forgotten
        assert keeper.held == [held]
    await frontier.complete([held, again])
