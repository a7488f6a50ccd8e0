"""The frontier's queue through its public methods, on every engine, in both ways of conditional batches."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import (
    AmbiguousIdError,
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    FrontierCancelledError,
    FrontierStats,
    RunState,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_run, make_site
from tests.support.queues import WAYS, items, url, urls

pytestmark = WAYS


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


async def test_cancelled_run_is_finished_when_nothing_is_leased(
    backend: DynamoDBBackend, frontier: Frontier, config: DynamoDBConfig, clock: ManualClock
) -> None:
    await frontier.add(urls(4))
    one, two, _ = await frontier.claim(3, lease_seconds=10)
    async with DynamoDBBackend(config, clock=clock) as elsewhere:
        other = elsewhere.frontier("site", "run")
        await other.cancel()
        for queue in (frontier, other):
            assert not await queue.is_finished()
        await frontier.complete(one)
        await frontier.fail(two, "x")
        assert not await other.is_finished()
        # The worker of the third item has died.
        clock.advance(10.5)
        assert not await other.is_finished()
        clock.advance(0.6)
        for queue in (other, frontier):
            assert await queue.is_finished()
    assert (await frontier.stats()).completed == 1


async def test_run_id_of_another_site_is_refused(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await frontier.add(urls(2))
    (claim,) = await frontier.claim(1)
    other = backend.frontier("other-site", "run")
    for call in (
        other.add([url(5)]),
        other.claim(),
        other.get(url(0)),
        other.is_finished(),
        other.stats(),
        other.stats("a.example"),
        other.state(),
        other.pause(),
        other.cancel(),
        other.recount(),
        other.requeue_failed(),
        other.set_host_delay("a.example", 5),
    ):
        with pytest.raises(AmbiguousIdError, match="'run' is in use by site 'site'"):
            await call
    with pytest.raises(AmbiguousIdError):
        _ = [host async for host in other.iter_hosts()]
    assert set(await items(backend)) == set(urls(2))
    assert await frontier.state() is RunState.RUNNING
    await frontier.complete(claim)
    assert [host.delay async for host in frontier.iter_hosts()] == [0]


async def test_pause_is_seen_by_the_next_claim_of_another_process(
    backend: DynamoDBBackend, config: DynamoDBConfig, clock: ManualClock
) -> None:
    async with DynamoDBBackend(config, clock=clock) as elsewhere:
        here, other = backend.frontier("site", "run"), elsewhere.frontier("site", "run")
        await here.add(urls(20))
        assert len(await other.claim(2)) == 2
        await here.pause()
        assert await other.claim(2) == []
        await other.resume()
        assert len(await here.claim(2)) == 2


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
    assert [host async for host in frontier.iter_hosts()] == []
    assert await frontier.is_finished()
    assert all(result.added for result in await frontier.add(urls(3)))
    assert len(await frontier.claim()) == 3


async def test_frontier_of_one_run_does_not_see_another_run(backend: DynamoDBBackend) -> None:
    one, other = backend.frontier("site", "run"), backend.frontier("site", "run#0")
    await one.add(urls(2))
    await other.add(urls(3))
    await one.pause()
    assert len(await other.claim()) == 3
    assert backend.frontier("site", "run") is one


async def test_delete_site_deletes_its_frontiers(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await backend.save_site(make_site())
    await backend.save_run(make_run())
    await frontier.add(urls(3))
    assert await backend.delete_site("site")
    assert await items(backend) == {}
    assert [host async for host in frontier.iter_hosts()] == []


async def test_delete_site_lets_its_links_be_added_again(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    for _ in range(2):
        await backend.save_site(make_site())
        await backend.save_run(make_run())
        added = await frontier.add(urls(3))
        assert [result.added for result in added] == [True, True, True]
        assert len(await frontier.claim()) == 3
        assert await frontier.stats() == FrontierStats(in_progress=3)
        assert await backend.delete_site("site")


async def test_frontier_ttl_expires_final_items(
    backend: DynamoDBBackend, config: DynamoDBConfig, clock: ManualClock
) -> None:
    expiring = config.model_copy(update={"frontier_ttl_days": 1})
    clock.advance(-2 * 86_400)
    async with DynamoDBBackend(expiring, clock=clock) as other:
        frontier = other.frontier("site", "run")
        await frontier.add(urls(4))
        one, two, three, _ = await frontier.claim(4)
        await frontier.complete(one)
        await frontier.skip(two, "x")
        await frontier.fail(three, "x", retry=False)
    # Two days later those are over, whether the engine has deleted them or not.
    clock.advance(2 * 86_400)
    assert list(await items(backend)) == [url(3)]
