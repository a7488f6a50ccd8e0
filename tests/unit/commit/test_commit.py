"""The way of a commit: what is stored in which order, and what a refusal means; with fakes of the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ragcrawl_dynamo import (
    ChangeKind,
    CommitOutcome,
    CommitResult,
    ConflictError,
    FrontierStatus,
    InvalidArgumentError,
    ItemTooLargeError,
    LeaseLostError,
    ResponseKind,
    ServerFaultError,
)
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES, item_size
from ragcrawl_dynamo._records.pages import StoredPage
from tests.support.factories import START, make_item, make_page, make_version
from tests.support.fake_commits import (
    FakeCommits,
    FakeQueue,
    as_stored,
    fake_commits,
    make_claim,
    refused,
    revision_of,
    writes_of,
)
from tests.support.fakes import client_error
from tests.support.request_parts import condition_of

TARGET = "https://example.com/target"
OTHER_URL = "https://example.com/other"

# The page as it was stored, and as fetches find it.
CONTENT: dict[str, Any] = {"current_version_id": "v1", "content_hash": "one", "version_count": 1}
STORED = make_page(first_seen=START, status_code=200, **CONTENT)
FETCHED = make_page(status_code=200)
CHANGED = make_version("v2", content_hash="two")
SAME = make_version("v1", content_hash="one")
BUSY = ServerFaultError("down", code="Down", operation="UpdateItem", table=None)

# What a changed page leads to, in order: nothing shows it before its body and its links are stored.
IN_ORDER = ["body", "links", "transact_write_items"]


@pytest.fixture
async def commits() -> AsyncIterator[FakeCommits]:
    async with fake_commits() as opened:
        yield opened


async def commit(
    commits: FakeCommits,
    page: Any = FETCHED,
    version: Any = None,
    claim: Any = None,
    links: Any = (),
    *,
    also: Any = (),
    kind: Any = None,
    retry_after: float | None = None,
    follow_redirect: bool = True,
) -> CommitResult:
    return await commits.committer.commit(
        page, version, claim, links, also, kind, retry_after, follow_redirect=follow_redirect
    )


def queue_of(commits: FakeCommits) -> FakeQueue:
    """The queue of the only run."""
    assert list(commits.queues) == [("site", "run")]
    return commits.queues["site", "run"]


def transaction(commits: FakeCommits, number: int = -1) -> dict[str, Any]:
    """The writes of a transaction that was sent, by name."""
    return writes_of(commits.sent("transact_write_items")[number])


def earlier(lease: str = "lease", **attributes: Any) -> Any:
    """A frontier item that was settled under a lease."""
    return {"lease_token": {"S": lease}, **{name: {"S": value} for name, value in attributes.items()}}


async def test_commit_page_stores_a_changed_page_in_one_transaction(commits: FakeCommits) -> None:
    commits.pages.stored = as_stored(STORED, order=7)
    claim = make_claim()
    assert await commit(commits, version=CHANGED, claim=claim) == CommitResult(CommitOutcome.CHANGED, "v2")
    writes = transaction(commits)
    assert list(writes) == ["page", "claim", "version", "change"]
    assert commits.calls == [*IN_ORDER, "note", "completed"]
    assert commits.pages.reads == [("site", "page")]
    assert commits.versions.prepared == [("v2", True, False)]
    page = writes["page"]["Item"]
    assert (page["current_version_id"], page["version_count"]) == ({"S": "v2"}, {"N": "2"})
    assert writes["version"]["Item"]["version_id"] == {"S": "v2"}
    # The change has the order after the last one of the page, and the page holds it.
    assert commits.log.appended == [("site", "page", ChangeKind.CHANGED, 7)]
    assert page["change_order"] == {"N": "8"}
    assert writes["change"]["Item"]["site_id"] == {"S": "#site#shard"}
    assert commits.live_stats.flushes == 1


async def test_commit_page_is_refused_if_another_writer_changed_the_page(commits: FakeCommits) -> None:
    commits.pages.stored = as_stored(STORED, revision="before")
    await commit(commits, version=CHANGED)
    page = transaction(commits)["page"]
    assert condition_of(page) == "revision = before"
    # Each commit has a revision of its own, by which it is recognized: 8 random bytes.
    revision = page["Item"]["revision"]["S"]
    assert len(revision) == 16
    assert commits.sent("transact_write_items")[0]["ClientRequestToken"] == revision


async def test_commit_page_of_a_new_page_requires_that_there_is_none(commits: FakeCommits) -> None:
    assert (await commit(commits, version=CHANGED)).outcome is CommitOutcome.CREATED
    assert condition_of(transaction(commits)["page"]) == "attribute_not_exists(page_id)"
    assert commits.versions.prepared == [("v2", True, True)]
    assert commits.log.appended == [("site", "page", ChangeKind.CREATED, None)]


async def test_commit_page_requires_that_the_version_id_is_new_or_of_the_same_content(
    commits: FakeCommits,
) -> None:
    await commit(commits, version=CHANGED)
    condition = condition_of(transaction(commits)["version"])
    assert condition == "(attribute_not_exists(page_id)) OR (content_hash = two)"


async def test_commit_page_requires_that_the_lease_holds(commits: FakeCommits) -> None:
    await commit(commits, version=CHANGED, claim=make_claim())
    write = transaction(commits)["claim"]
    assert condition_of(write) == "lease_token = lease"
    assert write["Key"]["item_id"] == {"S": "page"}
    # The item keeps the outcome, for a commit whose answer is lost, and for the stats of the run.
    outcome = {"outcome": {"S": "created"}, "outcome_version": {"S": "v2"}, "outcome_status": {"N": "200"}}
    prepared = queue_of(commits).prepared[0][1]
    assert {name: prepared[name] for name in outcome} == outcome
    assert prepared["outcome_bytes"] == {"N": str(len(CHANGED.markdown))}
    assert all(value in write["ExpressionAttributeValues"].values() for value in outcome.values())


async def test_commit_page_counts_the_page_in_the_stats_and_in_the_host(commits: FakeCommits) -> None:
    claim = make_claim()
    await commit(commits, version=CHANGED, claim=claim)
    queue = queue_of(commits)
    assert commits.live_stats.noted == [("page", queue.prepared[0][1], "run")]
    assert queue.completed == [(claim, False)]


async def test_commit_page_with_a_log_that_is_off_keeps_the_order_of_the_last_change(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = as_stored(STORED, order=7)
    commits.log.is_on = False
    await commit(commits, version=CHANGED)
    writes = transaction(commits)
    assert list(writes) == ["page", "version"]
    assert writes["page"]["Item"]["change_order"] == {"N": "7"}


async def test_commit_page_stores_no_order_if_no_change_was_logged(commits: FakeCommits) -> None:
    commits.log.is_on = False
    await commit(commits, version=CHANGED)
    assert "change_order" not in transaction(commits)["page"]["Item"]


async def test_commit_page_of_a_page_that_is_too_large_writes_nothing(commits: FakeCommits) -> None:
    page = make_page(status_code=200, etag="x" * 410_000)
    with pytest.raises(ItemTooLargeError):
        await commit(commits, page, CHANGED, make_claim(), [TARGET])
    assert commits.calls == []


async def test_commit_page_leaves_room_for_an_order_of_any_length(commits: FakeCommits) -> None:
    await commit(commits, make_page(status_code=200, etag="x"), CHANGED)
    item = transaction(commits)["page"]["Item"]
    # With its first, short order, the item would just fit.
    page = make_page(status_code=200, etag="x" * (1 + MAX_ITEM_BYTES - item_size(item)))
    with pytest.raises(ItemTooLargeError):
        await commit(commits, page, CHANGED)


async def test_commit_page_adds_the_links_one_level_below_the_item(commits: FakeCommits) -> None:
    claim = make_claim()
    page = make_page(status_code=200, depth=7)
    await commit(commits, page, CHANGED, claim, [TARGET, OTHER_URL])
    ((of_claim, _, links, depth, referrer),) = queue_of(commits).prepared
    assert (of_claim, links) == (claim, [TARGET, OTHER_URL])
    # The item knows better than the page how far it is from the seeds.
    assert (depth, referrer) == (3, page.url)


async def test_commit_page_without_a_claim_adds_the_links_to_the_run_of_the_version(
    commits: FakeCommits,
) -> None:
    await commit(commits, make_page(status_code=200, depth=7), CHANGED, links=[TARGET])
    ((claim, _, links, depth, _),) = queue_of(commits).prepared
    assert (claim, links, depth) == (None, [TARGET], 8)
    # There is no item to complete.
    assert list(transaction(commits)) == ["page", "version", "change"]
    assert queue_of(commits).completed == []


async def test_commit_page_without_a_claim_or_a_version_has_no_run(commits: FakeCommits) -> None:
    page = make_page(status_code=404)
    assert (await commit(commits, page)).outcome is CommitOutcome.TOMBSTONED
    assert commits.queues == {}
    assert list(transaction(commits)) == ["page", "change"]


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_commit_page_of_a_redirect_adds_its_target(commits: FakeCommits, status: int) -> None:
    page = make_page(status_code=status, redirect_url=TARGET)
    assert (await commit(commits, page, claim=make_claim(), links=[OTHER_URL])).outcome == "redirected"
    assert queue_of(commits).prepared[0][2] == [OTHER_URL, TARGET]


async def test_commit_page_of_a_redirect_that_is_not_followed_adds_no_target(commits: FakeCommits) -> None:
    page = make_page(status_code=301, redirect_url=TARGET)
    await commit(commits, page, claim=make_claim(), follow_redirect=False)
    assert queue_of(commits).prepared[0][2] == []


async def test_commit_page_of_a_redirect_without_a_run_adds_no_target(commits: FakeCommits) -> None:
    page = make_page(status_code=301, redirect_url=TARGET)
    assert (await commit(commits, page)).outcome is CommitOutcome.REDIRECTED


async def test_commit_page_with_content_does_not_follow_an_old_redirect(commits: FakeCommits) -> None:
    page = make_page(status_code=200, redirect_url=TARGET)
    await commit(commits, page, CHANGED, make_claim())
    assert queue_of(commits).prepared[0][2] == []


async def test_commit_page_completes_the_other_urls_of_the_page_last(commits: FakeCommits) -> None:
    await commit(commits, version=CHANGED, claim=make_claim(), also=[OTHER_URL])
    (items,) = queue_of(commits).redirects
    assert {url: item.item_id for url, item in items.items()} == {OTHER_URL: "page"}
    assert commits.calls == [*IN_ORDER, "note", "completed", "redirects"]


async def test_commit_page_without_a_claim_completes_the_other_urls_too(commits: FakeCommits) -> None:
    await commit(commits, version=CHANGED, also=[OTHER_URL])
    (items,) = queue_of(commits).redirects
    assert {url: item.item_id for url, item in items.items()} == {OTHER_URL: "none"}


async def test_commit_page_without_other_urls_completes_none(commits: FakeCommits) -> None:
    await commit(commits, version=CHANGED, claim=make_claim())
    assert queue_of(commits).redirects == []


# Pages that did not change.


async def test_commit_page_of_an_unchanged_page_writes_it_before_its_claim_ends(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = stored = as_stored(STORED, order=7)
    claim = make_claim()
    result = await commit(commits, version=SAME, claim=claim)
    assert result == CommitResult(CommitOutcome.UNCHANGED, "v1")
    # The page first: it would look unseen if a process were killed in between.
    assert commits.calls == ["links", "rewrite", "end", "note", "completed"]
    ((before, item),) = commits.pages.rewrites
    assert before is stored
    assert item["change_order"] == {"N": "7"}
    ((ended, end),) = queue_of(commits).ends
    assert (ended, end.key["item_id"]) == (claim, {"S": "page"})
    assert commits.live_stats.noted == [("page", queue_of(commits).prepared[0][1], "run")]
    assert queue_of(commits).completed == [(claim, False)]


async def test_commit_page_of_an_unchanged_page_without_a_claim_writes_the_page_only(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = as_stored(STORED)
    assert (await commit(commits, version=SAME)).outcome is CommitOutcome.UNCHANGED
    assert commits.calls == ["links", "rewrite"]


async def test_commit_page_of_an_unchanged_page_without_a_run_writes_the_page_only(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = as_stored(STORED)
    assert (await commit(commits, make_page(status_code=304))).outcome is CommitOutcome.UNCHANGED
    assert commits.calls == ["rewrite"]


async def test_commit_page_that_was_recorded_as_an_alias_is_in_a_transaction_if_it_is_new(
    commits: FakeCommits,
) -> None:
    """Nothing changed for readers, but there is no page to update."""
    page = make_page(status_code=302, redirect_url=TARGET)
    await commit(commits, page, claim=make_claim())
    assert list(transaction(commits)) == ["page", "claim"]
    assert commits.pages.rewrites == []


@pytest.mark.parametrize("ended", ["ended", "by the monotonic clock", "by the time of day"])
async def test_commit_page_of_an_unchanged_page_is_in_a_transaction_once_the_lease_is_over(
    commits: FakeCommits, ended: str
) -> None:
    """Another worker may have the item, and may have changed the page before this one read it."""
    commits.pages.stored = as_stored(STORED)
    claim = make_claim()
    match ended:
        case "ended":
            claim.ended = True
        case "by the monotonic clock":
            claim.deadline = 0.0
        case _:
            claim.expires_at = START
    await commit(commits, version=SAME, claim=claim)
    assert commits.pages.rewrites == []
    assert list(transaction(commits)) == ["page", "claim"]


async def test_commit_page_of_an_unchanged_page_that_another_writer_changed_is_decided_anew(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = as_stored(STORED)
    commits.pages.lost_races = 1
    await commit(commits, version=SAME, claim=make_claim(), links=[TARGET])
    assert commits.calls == ["links", "rewrite", "links", "rewrite", "end", "note", "completed"]
    # The links are added once.
    assert [links for _, _, links, _, _ in queue_of(commits).prepared] == [[TARGET], []]


async def test_commit_page_of_an_unchanged_page_returns_what_an_earlier_commit_of_the_lease_returned(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = as_stored(STORED)
    commits.queue("site", "run").ended = False
    stored = earlier(outcome="changed", outcome_version="v9")
    commits.answers = [lambda request: {"Item": {**request["Key"], **stored}}]
    claim = make_claim()
    result = await commit(commits, version=SAME, claim=claim)
    assert result == CommitResult(CommitOutcome.CHANGED, "v9")
    (request,) = commits.sent("get_item")
    assert (request["TableName"], request["Key"]["item_id"]) == ("t_frontier", {"S": "page"})
    # The earlier commit has counted it.
    assert queue_of(commits).completed == [(claim, True)]
    assert commits.live_stats.noted == []
    assert commits.lost == []


async def test_commit_page_of_an_unchanged_page_raises_if_the_item_was_deleted(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = as_stored(STORED)
    commits.queue("site", "run").ended = False
    claim = make_claim()
    with pytest.raises(LeaseLostError) as caught:
        await commit(commits, version=SAME, claim=claim)
    assert caught.value.claims == (claim,)
    assert commits.lost == [claim]


# Refusals.


async def test_commit_page_recognizes_its_write_after_an_internal_error_and_a_refusal(
    commits: FakeCommits,
) -> None:
    """The first attempt was done, and its answer was lost."""
    claim = make_claim()

    def answer(request: dict[str, Any]) -> Any:
        return refused(page=revision_of(writes_of(request)["page"]), claim=earlier())(request)

    commits.answers = [client_error("InternalServerError", 500), answer]
    assert (await commit(commits, version=CHANGED, claim=claim)).outcome is CommitOutcome.CREATED
    first, second = commits.sent("transact_write_items")
    assert first == second
    assert len(commits.pages.reads) == 1
    assert [noted[0] for noted in commits.live_stats.noted] == ["page"]
    assert queue_of(commits).completed == [(claim, False)]
    assert commits.log.refusals == []


async def test_commit_page_reads_and_decides_anew_after_another_writer(commits: FakeCommits) -> None:
    def another_writer(request: dict[str, Any]) -> Any:
        commits.pages.stored = as_stored(STORED, revision="theirs", order=7)
        return refused(page={"revision": {"S": "theirs"}})(request)

    commits.answers = [another_writer]
    result = await commit(commits, version=CHANGED, claim=make_claim(), links=[TARGET])
    assert result.outcome is CommitOutcome.CHANGED
    assert condition_of(transaction(commits)["page"]) == "revision = theirs"
    # The body and the links are stored once.
    assert [version_id for version_id, _, _ in commits.versions.prepared] == ["v2"]
    assert transaction(commits)["version"]["Item"]["version_id"] == {"S": "v2"}
    assert [links for _, _, links, _, _ in queue_of(commits).prepared] == [[TARGET], []]
    # The log hears of the position that was not used.
    ((site, number, refusal),) = commits.log.refusals
    assert (site, number, refusal.is_refused("page")) == ("site", 1, True)


async def test_commit_page_without_a_claim_decides_anew_too(commits: FakeCommits) -> None:
    commits.answers = [refused(page={"revision": {"S": "theirs"}})]
    await commit(commits, version=CHANGED)
    assert len(commits.sent("transact_write_items")) == 2


async def test_commit_page_tries_another_position_of_the_log(commits: FakeCommits) -> None:
    commits.answers = [refused(change={"kind": {"S": "void"}})]
    await commit(commits, version=CHANGED, claim=make_claim())
    positions = [writes_of(request)["change"] for request in commits.sent("transact_write_items")]
    assert [write["Item"]["page_id"]["S"] for write in positions] == ["1", "2"]
    assert commits.log.refusals[0][2].is_refused("change")


async def test_commit_page_gives_up_after_six_attempts(commits: FakeCommits) -> None:
    commits.answers = [refused(page=None)] * 6
    with pytest.raises(ConflictError, match=r"^page 'page' of site 'site' was .* 6 times in a row"):
        await commit(commits, version=CHANGED)
    assert len(commits.sent("transact_write_items")) == 6
    assert commits.live_stats.flushes == 0


async def test_commit_page_succeeds_at_the_sixth_attempt(commits: FakeCommits) -> None:
    commits.answers = [refused(page=None)] * 5
    assert (await commit(commits, version=CHANGED)).outcome is CommitOutcome.CREATED


@pytest.mark.parametrize("has_claim", [False, True])
async def test_commit_page_refuses_a_version_id_that_stands_for_other_content(
    commits: FakeCommits, has_claim: bool
) -> None:
    commits.answers = [refused(version={"content_hash": {"S": "three"}})]
    with pytest.raises(InvalidArgumentError, match=r"^version: has the version_id 'v2', which is"):
        await commit(commits, version=CHANGED, claim=make_claim() if has_claim else None)


async def test_commit_page_whose_lease_and_version_are_refused_says_that_the_lease_was_lost(
    commits: FakeCommits,
) -> None:
    commits.answers = [refused(version={"content_hash": {"S": "three"}}, claim=earlier("other"))]
    with pytest.raises(LeaseLostError):
        await commit(commits, version=CHANGED, claim=make_claim())


async def test_commit_page_returns_what_an_earlier_commit_under_the_lease_returned(
    commits: FakeCommits,
) -> None:
    commits.answers = [refused(claim=earlier(outcome="tombstoned"))]
    claim = make_claim()
    result = await commit(commits, version=CHANGED, claim=claim)
    assert result == CommitResult(CommitOutcome.TOMBSTONED, None)
    assert queue_of(commits).completed == [(claim, True)]
    assert (commits.lost, claim.lost) == ([], False)
    assert commits.live_stats.noted == []


@pytest.mark.parametrize(
    "item",
    [earlier("other", outcome="changed"), earlier("lease"), {"outcome": {"S": "changed"}}, {}],
    ids=["another lease", "settled without a commit", "without a lease", "deleted"],
)
async def test_commit_page_under_a_lost_lease_raises(commits: FakeCommits, item: Any) -> None:
    commits.answers = [refused(claim=item)]
    claim = make_claim()
    with pytest.raises(LeaseLostError) as caught:
        await commit(commits, version=CHANGED, claim=claim)
    assert caught.value.claims == (claim,)
    assert (commits.lost, claim.lost) == ([claim], True)
    # The host counts one lease less.
    assert queue_of(commits).completed == [(claim, True)]
    assert commits.live_stats.noted == []


async def test_commit_page_pauses_the_host_while_its_transaction_is_throttled(commits: FakeCommits) -> None:
    claim = make_claim()
    commits.answers = [client_error("ThrottlingException")]
    await commit(commits, version=CHANGED, claim=claim)
    assert queue_of(commits).paused == [claim]


async def test_commit_page_without_a_claim_pauses_no_host(commits: FakeCommits) -> None:
    commits.answers = [client_error("ThrottlingException")]
    await commit(commits, version=CHANGED)
    assert queue_of(commits).paused == []


# Fetches that failed.


async def test_commit_page_of_a_failed_fetch_counts_the_error_before_the_item_fails(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = stored = as_stored(STORED, order=7)
    claim = make_claim()
    result = await commit(commits, make_page(status_code=503), claim=claim, links=[TARGET])
    assert result == CommitResult(CommitOutcome.FAILED, "v1")
    assert commits.calls == ["rewrite", "settle"]
    ((before, item),) = commits.pages.rewrites
    assert before is stored
    assert (item["error_count"], item["change_order"]) == ({"N": "1"}, {"N": "7"})
    assert len(item["revision"]["S"]) == 16
    assert queue_of(commits).settled == [
        {
            "claims": [claim],
            "error": "HTTP 503",
            "retry_in": None,
            "retry": True,
            "outcome": {"outcome_status": {"N": "503"}},
        }
    ]
    assert queue_of(commits).blocked == []
    assert commits.live_stats.flushes == 1


async def test_commit_page_with_retry_after_delays_the_item_and_its_host(commits: FakeCommits) -> None:
    await commit(commits, make_page(status_code=429), claim=make_claim(), retry_after=90)
    queue = queue_of(commits)
    assert [settled["retry_in"] for settled in queue.settled] == [90]
    assert queue.blocked == [("example.com", 90)]


async def test_commit_page_that_is_denied_skips_the_item(commits: FakeCommits) -> None:
    claim = make_claim()
    page = make_page(status_code=403, last_error="login required")
    assert (await commit(commits, page, claim=claim, retry_after=90)).outcome is CommitOutcome.DENIED
    queue = queue_of(commits)
    assert queue.settled == [
        {
            "claims": [claim],
            "status": FrontierStatus.SKIPPED,
            "error": "login required",
            "outcome": {"outcome_status": {"N": "403"}},
        }
    ]
    # It is not tried again, so that its host need not wait.
    assert queue.blocked == []


async def test_commit_page_of_a_failed_fetch_of_an_unknown_page_stores_no_page(
    commits: FakeCommits,
) -> None:
    assert (await commit(commits, make_page(status_code=503), claim=make_claim())).version_id is None
    assert commits.calls == ["settle"]


async def test_commit_page_of_a_failed_fetch_takes_the_status_of_the_version(commits: FakeCommits) -> None:
    version = make_version("v2", status_code=503)
    await commit(commits, make_page(status_code=200), version, make_claim())
    (settled,) = queue_of(commits).settled
    assert (settled["error"], settled["outcome"]) == ("HTTP 503", {"outcome_status": {"N": "503"}})


async def test_commit_page_of_a_failed_fetch_without_a_claim_counts_the_error(commits: FakeCommits) -> None:
    commits.pages.stored = as_stored(STORED)
    assert (await commit(commits, make_page(status_code=503))).outcome is CommitOutcome.FAILED
    assert commits.calls == ["rewrite"]
    await commit(commits, make_page(status_code=503), make_version(status_code=503))
    assert commits.calls == ["rewrite"] * 2


async def test_commit_page_of_a_failed_fetch_counts_no_error_after_the_lease(commits: FakeCommits) -> None:
    commits.pages.stored = as_stored(STORED)
    claim = make_claim()
    claim.ended = True
    await commit(commits, make_page(status_code=503), claim=claim)
    assert commits.calls == ["settle"]


async def test_commit_page_of_a_failed_fetch_counts_its_error_on_the_page_as_another_writer_left_it(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = as_stored(STORED)
    commits.pages.lost_races = 1
    await commit(commits, make_page(status_code=503), claim=make_claim())
    assert commits.calls == ["rewrite", "rewrite", "settle"]
    assert len(commits.pages.reads) == 2


@pytest.mark.parametrize("status", [403, 503])
async def test_commit_page_of_a_failed_fetch_repeats_the_settlement_only(
    commits: FakeCommits, status: int
) -> None:
    """Repeating all of it would count the error of the page twice."""
    commits.pages.stored = as_stored(STORED)
    queue = commits.queue("site", "run")
    queue.failures = [BUSY]
    commits.clock.sleep = pass_time(commits)  # type: ignore[method-assign] # nobody else advances it
    await commit(commits, make_page(status_code=status), claim=make_claim())
    assert commits.calls == ["rewrite", "settle", "settle"]


async def test_commit_page_is_tried_again_while_the_lease_runs(commits: FakeCommits) -> None:
    commits.clock.sleep = pass_time(commits)  # type: ignore[method-assign] # nobody else advances it
    commits.answers = [client_error("InternalServerError", 500)] * 4
    await commit(commits, version=CHANGED, claim=make_claim(), links=[TARGET])
    assert len(commits.sent("transact_write_items")) == 5
    assert [links for _, _, links, _, _ in queue_of(commits).prepared] == [[TARGET], []]


async def test_commit_page_without_a_claim_is_not_tried_again(commits: FakeCommits) -> None:
    commits.answers = [client_error("InternalServerError", 500)] * 4
    with pytest.raises(ServerFaultError):
        await commit(commits, version=CHANGED)


def pass_time(commits: FakeCommits) -> Any:
    """Returns a way to sleep that moves the clock."""

    async def sleep(seconds: float) -> None:
        commits.clock.advance(seconds)

    return sleep


# What is read before.


@pytest.mark.parametrize("is_known", [False, True])
async def test_commit_page_stores_content_whose_version_was_never_saved(
    commits: FakeCommits, is_known: bool
) -> None:
    """`save_page` stores no revision, and need not be followed by `save_version`."""
    commits.pages.stored = as_stored(STORED, revision=None)
    commits.versions.known = {("page", "v1", "site")} if is_known else set()
    result = await commit(commits, version=SAME)
    assert result.outcome is (CommitOutcome.UNCHANGED if is_known else CommitOutcome.CHANGED)
    assert len(commits.versions.prepared) == (not is_known)


async def test_commit_page_of_a_304_for_content_that_was_never_saved_is_refused(commits: FakeCommits) -> None:
    commits.pages.stored = as_stored(STORED, revision=None)
    with pytest.raises(InvalidArgumentError, match="has status 304, but no content of page 'page' is stored"):
        await commit(commits, make_page(status_code=304))


async def test_commit_page_does_not_keep_the_hash_of_content_that_was_never_saved(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = as_stored(STORED, revision=None)
    await commit(commits, make_page(status_code=404))
    item = transaction(commits)["page"]["Item"]
    assert "content_hash" not in item
    assert "current_version_id" not in item


@pytest.mark.parametrize(
    ("stored", "is_absent"), [(StoredPage(), True), (as_stored(STORED), False)], ids=["new", "stored"]
)
async def test_commit_page_of_a_404_says_whether_the_page_was_there(
    commits: FakeCommits, stored: StoredPage, is_absent: bool
) -> None:
    commits.pages.stored = stored
    await commit(commits, make_page(status_code=404), claim=make_claim())
    (_, outcome, *_) = queue_of(commits).prepared[-1]
    assert ("outcome_absent" in outcome) == is_absent


async def test_commit_page_trusts_the_version_of_a_commit(commits: FakeCommits) -> None:
    commits.pages.stored = as_stored(STORED)
    assert (await commit(commits, version=SAME)).outcome is CommitOutcome.UNCHANGED


async def test_commit_page_of_a_page_that_was_saved_without_content(commits: FakeCommits) -> None:
    commits.pages.stored = as_stored(make_page(), revision=None)
    assert (await commit(commits, version=CHANGED)).outcome is CommitOutcome.CHANGED
    assert condition_of(transaction(commits)["page"]) == (
        "(attribute_exists(page_id)) AND (attribute_not_exists(revision))"
    )


async def test_commit_page_decides_with_the_present_moment(commits: FakeCommits) -> None:
    commits.clock.advance(5)
    await commit(commits, version=CHANGED)
    item = transaction(commits)["page"]["Item"]
    assert item["last_crawled"]["S"].startswith("2026-01-01T00:00:05")


# Arguments.


@pytest.mark.parametrize("kind", [ResponseKind.FAILED, ResponseKind.GONE])
async def test_commit_page_goes_by_the_kind_that_the_caller_passes(
    commits: FakeCommits, kind: ResponseKind
) -> None:
    result = await commit(commits, make_page(status_code=418), kind=kind)
    assert (
        result.outcome
        is {
            ResponseKind.FAILED: CommitOutcome.FAILED,
            ResponseKind.GONE: CommitOutcome.TOMBSTONED,
        }[kind]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"page": "page"}, "^page: "),
        ({"page": None}, "^page: "),
        ({"version": FETCHED}, "^version: "),
        ({"claim": make_item()}, "^claim: "),
        ({"links": TARGET}, "^discovered: "),
        ({"also": TARGET}, "^also: "),
        ({"also": [3]}, "^also"),
        ({"kind": "gone"}, "^kind: "),
        ({"retry_after": -1}, "^retry_after: "),
        ({"version": make_version(page_id="other")}, "^version: is of page 'other' of site 'site'"),
        ({"version": make_version(site_id="other")}, "^version: is of page 'page' of site 'other'"),
        ({"claim": make_claim(site_id="other")}, "^claim: is of site 'other', and the page of site 'site'"),
        (
            {"version": make_version(run_id="other"), "claim": make_claim()},
            "^version: is of run 'other', and the claim of run 'run'",
        ),
        ({"links": [TARGET]}, "^discovered: needs a claim or a version"),
        ({"also": [TARGET]}, "^also: needs a claim or a version"),
    ],
)
async def test_commit_page_refuses_arguments_that_do_not_go_together(
    commits: FakeCommits, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        await commit(commits, **{"page": make_page(status_code=404), **arguments})
    assert commits.client.requests == []
    assert commits.pages.reads == []


async def test_commit_page_gets_the_run_of_the_claim(commits: FakeCommits) -> None:
    await commit(commits, make_page(status_code=404), claim=make_claim(run_id="third"))
    assert list(commits.queues) == [("site", "third")]
