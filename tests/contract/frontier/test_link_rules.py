"""Which links of a run are one link, and to which host each belongs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    FrontierCancelledError,
    InvalidArgumentError,
    normalize_url,
    registrable_domain,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import WAYS, items, names

pytestmark = WAYS


def keeping_fragments(url: str) -> str:
    return normalize_url(url, keep_fragment=True)


def without_tracking(url: str) -> str:
    if "fail" in url:
        raise LookupError("no such link")
    return re.sub(r"(?<=[?&])utm_\w+=[^&]*&?", "", normalize_url(url)).rstrip("?&")


def shop(url: str) -> str:
    return f"shop {url.split('/')[3]}"


@pytest_asyncio.fixture
async def elsewhere(config: DynamoDBConfig, clock: ManualClock) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(config, clock=clock) as backend:
        yield backend


async def test_spellings_of_a_host_are_one_host(frontier: Frontier) -> None:
    hosts = ["example.org", "EXAMPLE.org:80", "example.org.", "exampl%65.org", "user@example.org"]
    results = await frontier.add([f"http://{host}/{i}" for i, host in enumerate(hosts)])
    assert all(result.added for result in results)
    await frontier.add(["http://fa\u00df.de/", "http://fass.de/", "https://[0:0::1]:8080/", "http://127.1/"])
    assert [(host.host, host.stats.pending) async for host in frontier.iter_hosts()] == [
        ("127.0.0.1", 1),
        ("[::1]:8080", 1),
        ("example.org", 5),
        ("fass.de", 1),
        ("xn--fa-hia.de", 1),
    ]


async def test_links_that_differ_in_reserved_characters_are_different_links(frontier: Frontier) -> None:
    links = [
        *("http://a.example/AT%26T", "http://a.example/AT&T"),
        *("http://a.example/c%2B%2B", "http://a.example/c++"),
        *("http://a.example/?q=a%3Db", "http://a.example/?q=a=b"),
        *("http://a.example/?a=1&a=2", "http://a.example/?a=2&a=1"),
    ]
    assert all(result.added for result in await frontier.add(links))
    assert set(names(await frontier.claim(10))) == set(links)
    same = ["http://A.example:80/AT%26T#top", "http://a.example./x/../c%2b%2b", "http://a.example/?a=%31&a=2"]
    assert not any(result.added for result in await frontier.add(same))


@pytest.mark.parametrize(
    "link", ["mailto:a@a.example", "javascript:void(0)", "/about", "", "http:/x", "ftp://x/", "http://a b/"]
)
async def test_frontier_add_refuses_text_that_is_no_absolute_http_url(frontier: Frontier, link: str) -> None:
    one, odd, two = await frontier.add(["http://a.example/1", link, "http://a.example/2"])
    assert (one.added, odd.added, two.added) == (True, False, True)
    assert (odd.url, odd.item_id) == (link, None)
    assert isinstance(odd.error, InvalidArgumentError)
    assert odd.error.field == "url"
    assert len(await frontier.claim(10)) == 2


async def test_frontier_add_resolves_relative_links_against_base_url(frontier: Frontier) -> None:
    links = ["../c?d#e", "/AT%26T", "//b.example", "", "mailto:a@b", "http://c.example/"]
    results = await frontier.add(
        [*links, frontier.link("x", priority=1)], base_url="http://a.example/a/b?c#top"
    )
    assert [result.url for result in results] == [*links, "x"]
    assert [result.added for result in results] == [True, True, True, True, False, True, True]
    assert sorted(names(await frontier.claim(10))) == [
        "http://a.example/AT%26T",
        "http://a.example/a/b?c",
        "http://a.example/a/x",
        "http://a.example/c?d#e",
        "http://b.example/",
        "http://c.example/",
    ]
    for base in ("/a", "mailto:a@b", 5):
        with pytest.raises(InvalidArgumentError, match=r"^base_url: must be"):
            await frontier.add(["x"], base_url=base)  # type: ignore[arg-type] # that is what is tested


async def test_frontier_get_takes_any_spelling(frontier: Frontier) -> None:
    await frontier.add(
        ["http://a.example/AT%26T?b&a", frontier.link("http://a.example/", unique_key="POST 1")]
    )
    item = await frontier.get("http://A.example.:80/%41T%26T?a&b=#x")
    assert item is not None
    assert item.url == "http://a.example/AT%26T?b&a"
    assert await frontier.get("http://a.example/AT&T?b&a") is None
    by_key = await frontier.get("POST 1")
    assert by_key is not None
    assert by_key.url == "http://a.example/"
    assert await frontier.get("/about") is None


async def test_limits_of_hosts_take_any_spelling(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add(["http://example.org/1", "http://b\u00fccher.example:8080/1"])
    for spelling in ("EXAMPLE.org:80", "https://exampl%65.org./a?b#c", "example.org", "example.org:443"):
        await frontier.set_host_delay(spelling, 5)
        await frontier.set_host_max_in_flight(spelling, 3)
        await frontier.block_host(spelling, clock.now())
    await frontier.set_host_delay("xn--bcher-kva.example:8080", 7)
    hosts = {host.host: host async for host in frontier.iter_hosts()}
    assert hosts.keys() == {"example.org", "xn--bcher-kva.example:8080"}
    assert (hosts["example.org"].delay, hosts["example.org"].max_in_flight) == (5, 3)
    assert hosts["xn--bcher-kva.example:8080"].delay == 7
    assert (await frontier.stats("Example.ORG.")).pending == 1


@pytest.mark.parametrize("host", ["", "/about", "mailto:a@b", "a b", "http:/x", "[::1", 5])
async def test_limits_refuse_text_that_is_no_host(frontier: Frontier, clock: ManualClock, host: str) -> None:
    for call in (
        frontier.set_host_delay(host, 1),
        frontier.set_host_max_in_flight(host, 1),
        frontier.block_host(host, clock.now()),
        frontier.stats(host),
    ):
        with pytest.raises(InvalidArgumentError, match="host: must be"):
            await call
    assert [host async for host in frontier.iter_hosts()] == []


async def test_frontier_with_normalize_compares_links_by_it(backend: DynamoDBBackend) -> None:
    frontier = backend.frontier("site", "spa", normalize=keeping_fragments)
    links = ["http://A.example/#!/1", "http://a.example/#!/2", "http://a.example:80/#!/1"]
    assert [result.added for result in await frontier.add(links)] == [True, True, False]
    assert names(await frontier.claim()) == links[:2]
    assert await frontier.get("http://a.example#!/2") is not None
    tracked = backend.frontier("site", "tracked", normalize=without_tracking)
    links = ["http://a.example/?utm_source=x&a=1", "http://a.example/?a=1", "/x", "http://a.example/fail"]
    results = await tracked.add(links)
    assert [result.added for result in results] == [True, False, False, False]
    (item,) = [claim.item for claim in await tracked.claim()]
    assert (item.url, item.normalized_url, item.domain) == (links[0], links[1], "a.example")
    assert str(results[2].error).startswith("url: must be an absolute http or https URL")
    assert str(results[2].error).endswith("'/x'; for relative links, pass base_url")
    assert "normalize: raised LookupError" in str(results[3].error)


async def test_process_with_another_normalize_is_refused(
    backend: DynamoDBBackend, elsewhere: DynamoDBBackend
) -> None:
    await backend.frontier("site", "run", normalize=keeping_fragments).add(["http://a.example/#!/1"])
    other = elsewhere.frontier("site", "run")
    for call in (
        other.add(["http://a.example/"]),
        other.get("http://a.example/"),
        other.set_host_delay("a.example", 1),
        other.stats("a.example"),
    ):
        with pytest.raises(InvalidArgumentError, match=r"normalize: run 'run' uses '.*:keeping_fragments'"):
            await call
    # Calls that compare no links work without the rules of the run.
    (claim,) = await other.claim()
    await other.complete(claim)
    assert (await other.stats()).total == 1
    assert await other.is_finished()


async def test_process_that_watches_a_run_leaves_its_rules_to_the_crawlers(
    backend: DynamoDBBackend, elsewhere: DynamoDBBackend
) -> None:
    watching = elsewhere.frontier("site", "run")
    assert await watching.is_finished()
    await watching.pause()
    await watching.resume()
    crawling = backend.frontier("site", "run", normalize=keeping_fragments, host_max_items=2)
    results = await crawling.add([f"http://a.example/#!/{i}" for i in range(3)])
    assert [result.added for result in results] == [True, True, False]
    with pytest.raises(InvalidArgumentError, match="normalize: run 'run' uses"):
        await watching.add(["http://a.example/"])
    assert (await crawling.stats()).total == 2


async def test_same_rules_in_another_process_are_accepted(
    backend: DynamoDBBackend, elsewhere: DynamoDBBackend
) -> None:
    rules = {"normalize": keeping_fragments, "politeness_key": registrable_domain}
    await backend.frontier("site", "run", **rules).add(["http://www.a.example/#!/1"])  # type: ignore[arg-type]
    other = elsewhere.frontier("site", "run", **rules)  # type: ignore[arg-type]
    assert [result.added for result in await other.add(["http://www.a.example/#!/1"])] == [False]
    assert elsewhere.frontier("site", "run") is other
    with pytest.raises(InvalidArgumentError, match="opened the frontier of run 'run' with another normalize"):
        elsewhere.frontier("site", "run", normalize=without_tracking)
    # After its items were deleted the run begins anew.
    await elsewhere.clear_frontier("run")
    fresh = backend.frontier("site", "fresh")
    await fresh.add(["http://a.example/"])


async def test_politeness_key_takes_the_place_of_the_host(
    backend: DynamoDBBackend, elsewhere: DynamoDBBackend, clock: ManualClock
) -> None:
    frontier = backend.frontier("site", "run", politeness_key=registrable_domain)
    await frontier.add([f"http://{name}.example.co.uk:80/" for name in ("www", "a.b", "c")])
    await frontier.add(["http://one.github.io/", "http://two.github.io/", "http://10.0.0.1/"])
    await frontier.set_host_delay("http://c.Example.co.uk/any", 10)
    hosts = {host.host: host async for host in frontier.iter_hosts()}
    assert hosts.keys() == {"example.co.uk", "one.github.io", "two.github.io", "10.0.0.1"}
    assert (hosts["example.co.uk"].delay, hosts["example.co.uk"].stats.pending) == (10, 3)
    assert sorted(claim.item.domain for claim in await frontier.claim(10)) == sorted(hosts)
    clock.advance(10.1)
    assert [claim.item.domain for claim in await frontier.claim(10)] == ["example.co.uk"]
    assert (await frontier.stats("www.example.co.uk")).in_progress == 2
    with pytest.raises(InvalidArgumentError, match="politeness_key: run 'run' uses 'registrable_domain'"):
        await elsewhere.frontier("site", "run").add(["http://a.example/"])


async def test_politeness_key_of_the_user_names_its_keys(backend: DynamoDBBackend) -> None:
    frontier = backend.frontier("site", "run", politeness_key=shop)
    await frontier.add(
        ["http://mall.example/one/1", "http://mall.example/one/2", "http://mall.example/two/1"]
    )
    await frontier.set_host_delay("shop one", 5)
    await frontier.set_host_delay("http://MALL.example/two/3", 6)
    assert [(host.host, host.delay) async for host in frontier.iter_hosts()] == [
        ("shop one", 5),
        ("shop two", 6),
    ]
    assert len(await frontier.claim(10)) == 2


async def test_host_max_items_ends_a_host(backend: DynamoDBBackend, elsewhere: DynamoDBBackend) -> None:
    frontier = backend.frontier("site", "run", host_max_items=3)
    results = await frontier.add(
        ["http://a.example/1", "http://a.example/2", "http://b.example/1", "http://a.example/1#x"]
    )
    assert [result.added for result in results] == [True, True, True, False]
    # A process that comes later gets the budget from the run.
    other = elsewhere.frontier("site", "run")
    results = await other.add([f"http://a.example/{i}" for i in (1, 2, 3, 4, 5)] + ["http://a.example/5#x"])
    assert [result.added for result in results] == [False, False, True, False, False, False]
    assert [result.error is None for result in results] == [True, True, True, False, False, False]
    assert (
        str(results[3].error) == "url: host 'a.example' has 3 links already, as many as host_max_items allows"
    )
    assert results[5].url == "http://a.example/5#x"
    results = await frontier.add(["http://a.example/3", "http://a.example/6", "http://b.example/2"])
    assert [(result.added, result.error is None) for result in results] == [
        (False, True),
        (False, False),
        (True, True),
    ]
    stored = await items(backend)
    of_b = ["http://b.example/1", "http://b.example/2"]
    assert sorted(stored) == [*(f"http://a.example/{i}" for i in (1, 2, 3)), *of_b]
    await backend.clear_frontier("run")
    assert [result.added for result in await frontier.add(["http://a.example/6"])] == [True]
    with pytest.raises(InvalidArgumentError, match="host_max_items"):
        backend.frontier("site", "other", host_max_items=0)


@pytest.mark.parametrize("function", [lambda url: url, re.compile("a").sub, 5, str.lower])
async def test_rule_without_a_name_is_refused(backend: DynamoDBBackend, function: object) -> None:
    def nested(url: str) -> str:
        return url

    if function is str.lower:
        function = nested
    for argument in ("normalize", "politeness_key"):
        with pytest.raises(InvalidArgumentError, match=f"{argument}: must be a function"):
            backend.frontier("site", "run", **{argument: function})  # type: ignore[arg-type] # that is tested


async def test_frontier_add_says_that_the_run_is_cancelled(frontier: Frontier) -> None:
    await frontier.add(["http://a.example/1"])
    await frontier.cancel()
    with pytest.raises(FrontierCancelledError):
        await frontier.add(["http://a.example/2"])
    assert (await frontier.stats()).total == 1
