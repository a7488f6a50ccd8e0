"""How items of redirects are completed without a lease of them; with items in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo import FrontierItem, FrontierStatus, InvalidInputError, PartialBatchError
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert, ConditionalUpdate
from ragcrawl_dynamo._dynamodb.outcomes import Failed, Refused
from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._frontier.item_store import LEFT_BY_FINAL
from ragcrawl_dynamo._frontier.redirects import Redirects
from ragcrawl_dynamo._schema.queue_order import queue_order, rank
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.urls import link_id, url_hash
from ragcrawl_dynamo.errors import InvalidArgumentError
from tests.support.factories import make_item
from tests.support.hosts import at, candidate, known
from tests.support.stored_run import BUSY, StoredRun, text_of

A, B = "https://a.example/", "https://b.example/"
PENDING, IN_PROGRESS = FrontierStatus.PENDING, FrontierStatus.IN_PROGRESS


class Redirecting:
    """A run in which the items of URLs are completed."""

    def __init__(self, **settings: Any) -> None:
        self.run = StoredRun(**settings)
        services = cast("Any", SimpleNamespace(tables=Tables.of("")))
        self.redirects = Redirects(services, self.run)

    async def complete(self, *urls: str) -> None:
        await self.redirects.complete(self.redirects.items(urls, []))

    def store(self, url: str = A, *, is_queued: bool = True, **fields: Any) -> str:
        """Stores the item of a URL; returns its id."""
        item_id, host = link_id(url), url.split("/")[2]
        defaults: dict[str, Any] = {"domain": host, "discovered_at": at(-60)}
        item = make_item(item_id, url=url, **{**defaults, **fields})
        self.run.store.store(item, is_queued=is_queued)
        return item_id

    def refuse(self, url: str = A) -> None:
        self.run.store.outcomes[link_id(url)] = Refused()

    @property
    def update(self) -> ConditionalUpdate:
        """The only write that was sent."""
        ((write,),) = self.run.store.batches
        assert isinstance(write, ConditionalUpdate)
        return write


# Items.


def test_item_of_a_redirect_is_completed_and_as_deep_as_its_page() -> None:
    redirecting = Redirecting()
    claim = redirecting.run.claim("page", depth=3)
    url = "HTTPS://A.example/#part"
    (item,) = redirecting.redirects.items([url], [claim]).values()
    assert item == FrontierItem(
        item_id=link_id(A),
        run_id="run",
        site_id="site",
        url=url,
        normalized_url=A,
        url_hash=url_hash(A),
        depth=3,
        status=FrontierStatus.COMPLETED,
        domain="a.example",
        discovered_at=item.discovered_at,
    )


def test_item_of_a_redirect_without_a_claim_has_depth_0() -> None:
    (item,) = Redirecting().redirects.items([A], []).values()
    assert item.depth == 0


def test_items_of_the_claims_and_repeated_urls_are_left_out() -> None:
    redirecting = Redirecting()
    claim = redirecting.run.claim(link_id(A))
    urls = [A, B, f"{B}#part", "https://c.example/"]
    items = redirecting.redirects.items(urls, [claim])
    assert [item.url for item in items.values()] == [B, "https://c.example/"]


@pytest.mark.parametrize("urls", [["mailto:a@a.example"], [f"https://a.example/{'x' * 500_000}"], A, [7]])
def test_url_that_cannot_be_stored_is_refused(urls: Any) -> None:
    with pytest.raises(InvalidInputError):
        Redirecting().redirects.items(urls, [])


def test_collection_of_urls_is_named_in_errors() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^also: must be a collection"):
        Redirecting().redirects.items(7, [])


# Items that are not stored.


async def test_url_that_is_new_to_the_run_is_added_as_completed() -> None:
    redirecting = Redirecting(frontier_ttl_days=1)
    await redirecting.complete(A)
    ((write,),) = redirecting.run.store.batches
    assert isinstance(write, ConditionalInsert)
    item = redirecting.run.items.decode(write.item)
    assert (item.status, item.completed_at, item.discovered_at) == (FrontierStatus.COMPLETED, at(0), at(0))
    # It is no work, and lives as long as other final items.
    assert "queue" not in write.item
    assert write.item["expires_at"] == {"N": str(int(at(86_400).timestamp()))}
    # A lost answer is recognized.
    assert write.token.path == "added_by"
    assert write.token.is_in(write.item)
    assert redirecting.run.stored_counters.moves == [("a.example", None, "completed")]
    assert link_id(A) in redirecting.run.view.seen_links


async def test_hosts_of_new_urls_are_stored_before_their_items() -> None:
    redirecting = Redirecting()
    ensured: list[list[str]] = []
    redirecting.run.store.during_run = lambda: ensured.append(sorted(redirecting.run.stored_hosts.ensured))
    redirecting.store(B)
    await redirecting.complete(A, "https://a.example/2", B)
    assert ensured == [["a.example"]]


async def test_proof_of_the_end_is_removed_before_and_after_urls_are_added() -> None:
    """A process may prove that the run is finished while they are added, and count its items."""
    redirecting = Redirecting()
    before = redirecting.run.controls.control
    after = RunControl(run="run", site_id="site", finished_by="proof")

    def prove() -> None:
        assert redirecting.run.controls.reopened == [before]
        redirecting.run.controls.control = after

    redirecting.run.store.during_run = prove
    await redirecting.complete(A)
    assert redirecting.run.controls.reopened == [before, after]


async def test_proof_of_the_end_stays_if_all_urls_are_stored() -> None:
    redirecting = Redirecting()
    redirecting.store()
    await redirecting.complete(A)
    assert redirecting.run.controls.reopened == []


async def test_url_that_another_process_adds_meanwhile_is_read_again() -> None:
    redirecting = Redirecting()
    redirecting.refuse()
    redirecting.run.store.during_run = redirecting.store
    await redirecting.complete(A)
    first, *others = redirecting.run.store.batches
    assert isinstance(first[0], ConditionalInsert)
    assert [type(write) for batch in others for write in batch] == [ConditionalUpdate] * 3


# Items that are stored.


async def test_open_item_is_completed_as_it_was_read() -> None:
    redirecting = Redirecting(frontier_ttl_days=1)
    redirecting.store()
    await redirecting.complete(A)
    update = redirecting.update
    assert update.key["item_id"] == {"S": link_id(A)}
    order = queue_order(rank(0.0, at(-60)))
    assert text_of(update.condition) == f"(status = 'pending') AND (queue_order = '{order}')"
    assert update.update.put["status"] == {"S": "completed"}
    assert update.update.put["completed_at"] == {"S": moment_text(at(0))}
    assert "expires_at" in update.update.put
    assert update.update.remove == LEFT_BY_FINAL
    assert update.token.path == "changed_by"
    assert update.update.put["changed_by"] == update.token.value


async def test_open_item_that_is_no_work_is_completed_by_its_status_alone() -> None:
    redirecting = Redirecting()
    redirecting.store(is_queued=False)
    await redirecting.complete(A)
    assert text_of(redirecting.update.condition) == "(status = 'pending')"


async def test_leased_item_is_completed_if_its_lease_is_over_by_all_clocks() -> None:
    redirecting = Redirecting(frontier_max_clock_skew=3.0)
    redirecting.store(status=IN_PROGRESS)
    redirecting.run.clock.advance(10)
    await redirecting.complete(A)
    condition = text_of(redirecting.update.condition)
    assert condition.startswith("(status = 'in_progress') AND (queue_order = ")
    assert condition.endswith(f"AND (lease_expires_at < '{moment_text(at(7))}')")


@pytest.mark.parametrize(
    ("fields", "before"),
    [({}, "pending"), ({"scheduled_at": at(60)}, "delayed"), ({"status": IN_PROGRESS}, "in_progress")],
)
async def test_completed_item_is_counted_by_its_state_before(fields: dict[str, Any], before: str) -> None:
    redirecting = Redirecting()
    redirecting.store(**fields, domain="stored.example")
    await redirecting.complete(A)
    # Its counts are those of the host with which it is stored.
    assert redirecting.run.stored_counters.moves == [("stored.example", before, "completed")]
    assert link_id(A) in redirecting.run.view.seen_links


async def test_completed_item_leaves_the_workbench() -> None:
    redirecting = Redirecting()
    item_id = redirecting.store()
    host = redirecting.run.view.bench.hosts["a.example"] = known(
        candidate(item_id, host="a.example"), host="a.example"
    )
    await redirecting.complete(A)
    assert host.ready == []


async def test_final_items_are_left_as_they_are() -> None:
    redirecting = Redirecting()
    for url, status in ((A, FrontierStatus.FAILED), (B, FrontierStatus.COMPLETED)):
        redirecting.store(url, status=status)
    await redirecting.complete(A, B)
    assert [batch for batch in redirecting.run.store.batches if batch] == []
    assert len(redirecting.run.store.reads) == 1


async def test_item_that_others_have_leased_is_left_to_them() -> None:
    redirecting = Redirecting()
    redirecting.store(status=IN_PROGRESS)
    redirecting.refuse()
    await redirecting.complete(A)
    assert (len(redirecting.run.store.batches), redirecting.run.stored_counters.moves) == (1, [])


async def test_item_that_others_change_again_and_again_is_left_to_them() -> None:
    redirecting = Redirecting()
    redirecting.store()
    redirecting.refuse()
    await redirecting.complete(A)
    assert (len(redirecting.run.store.batches), redirecting.run.stored_counters.moves) == (4, [])


@pytest.mark.parametrize("changed", [A, B])
async def test_only_items_that_others_have_changed_are_tried_again(changed: str) -> None:
    redirecting = Redirecting()
    redirecting.store(A)
    redirecting.store(B)
    redirecting.refuse(changed)
    await redirecting.complete(A, B)
    assert [len(batch) for batch in redirecting.run.store.batches] == [2, 1, 1, 1]


async def test_items_that_were_not_completed_are_named() -> None:
    redirecting = Redirecting()
    redirecting.store(A)
    redirecting.store(B)
    redirecting.run.store.outcomes[link_id(A)] = Failed(BUSY)
    with pytest.raises(PartialBatchError) as caught:
        await redirecting.complete(A, B)
    assert caught.value.saved == 1
    ((item, error),) = caught.value.failures
    assert (item.url, error) == (A, BUSY)
    # It is not sent again, which the caller decides.
    assert len(redirecting.run.store.batches) == 1


async def test_no_items_send_nothing() -> None:
    redirecting = Redirecting()
    await redirecting.redirects.complete({})
    assert redirecting.run.store.reads == []
