"""Request queues: the scenarios of Crawlee's own tests, and two processes that share a queue."""

from __future__ import annotations

import asyncio
from secrets import token_hex
from typing import Any

import pytest
from crawlee import Request
from crawlee._request import RequestState
from crawlee.storages import RequestQueue

from ragcrawl_dynamo import AddResult, BackendStateError, FrontierItem, FrontierStatus
from ragcrawl_dynamo.adapters.crawlee import DynamoDBRequestQueueClient, DynamoDBStorageClient
from tests.adapters.crawlee.requests import handle_all, url, user_fields, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_crawlee_request_queue_adds_a_request_once(queue: RequestQueue) -> None:
    first = await queue.add_request(url(1))
    again = await queue.add_request(Request.from_url(url(1), user_data={"x": 1}))
    assert first is not None
    assert again is not None
    assert (first.was_already_present, again.was_already_present) == (False, True)
    assert again.unique_key == first.unique_key
    metadata = await queue.get_metadata()
    assert (metadata.total_request_count, metadata.pending_request_count) == (1, 1)
    request = await queue.fetch_next_request()
    assert request is not None
    assert request.user_data.get("x") is None
    await queue.mark_request_as_handled(request)
    handled = await queue.add_request(url(1))
    assert handled is not None
    assert handled.was_already_handled
    metadata = await queue.get_metadata()
    assert (metadata.handled_request_count, metadata.pending_request_count) == (1, 0)


async def test_crawlee_request_queue_shows_other_processes_the_handled_requests(
    queue: RequestQueue, other_client: DynamoDBStorageClient
) -> None:
    await queue.add_requests([url(1), url(2)])
    assert await handle_all(queue) == ["1", "2"]
    # Requests are settled in the background, until the queue is finished.
    assert await queue.is_finished()
    other_queue = await RequestQueue.open(storage_client=other_client)
    added = await other_queue.add_request(url(2))
    assert added is not None
    assert added.was_already_handled
    assert await other_queue.is_finished()


async def test_crawlee_request_queue_keeps_requests_apart_by_method_payload_or_force(
    queue: RequestQueue,
) -> None:
    form = {"use_extended_unique_key": True, "method": "POST"}
    requests = [
        Request.from_url(url("form"), payload=b"a=1", headers={"X-Test": "1"}, **form),  # type: ignore[arg-type]
        Request.from_url(url("form"), payload=b"a=2", label="two", **form),  # type: ignore[arg-type] # as above
        Request.from_url(url("form")),
        Request.from_url(url("form"), always_enqueue=True),
        Request.from_url(url("other"), unique_key="mine", user_data={"depth": {"a": [1, None]}}),
    ]
    await queue.add_requests(list(requests), wait_for_all_requests_to_be_added=True)
    fetched = [await queue.fetch_next_request() for _ in requests]
    assert [request and user_fields(request) for request in fetched] == [*map(user_fields, requests)]
    assert await queue.fetch_next_request() is None
    mine = await queue.get_request("mine")
    assert mine is not None
    assert user_fields(mine) == user_fields(requests[4])
    assert await queue.get_request("none") is None


async def test_crawlee_request_queue_fetches_the_forefront_first(queue: RequestQueue) -> None:
    await queue.add_requests([url("a"), url("b")])
    await queue.add_requests([url("x"), url("y")], forefront=True)
    await queue.add_request(url("c"))
    await queue.add_request(url("z"), forefront=True)
    assert await handle_all(queue) == ["z", "y", "x", "a", "b", "c"]


async def test_crawlee_request_queue_reclaims_a_request_to_the_end_or_the_front(queue: RequestQueue) -> None:
    await queue.add_requests([url(1), url(2), url(3)])
    first, second = await queue.fetch_next_request(), await queue.fetch_next_request()
    assert first is not None
    assert second is not None
    first.retry_count = 7
    first.user_data["note"] = "kept"
    result = await queue.reclaim_request(first)
    assert result is not None
    assert (result.was_already_present, result.was_already_handled) == (True, False)
    await queue.reclaim_request(second, forefront=True)
    again = [await queue.fetch_next_request() for _ in range(3)]
    assert [request and request.url for request in again] == [url(2), url(3), url(1)]
    assert again[2] is not None
    assert (again[2].retry_count, again[2].user_data["note"]) == (7, "kept")
    assert await queue.get_total_count() == 3


async def test_crawlee_request_queue_refuses_to_settle_a_request_that_is_not_in_progress(
    queue: RequestQueue,
) -> None:
    stranger = Request.from_url(url("stranger"))
    assert await queue.mark_request_as_handled(stranger) is None
    assert await queue.reclaim_request(stranger) is None
    await queue.add_request(url(1))
    request = await queue.fetch_next_request()
    assert request is not None
    assert await queue.mark_request_as_handled(request) is not None
    assert await queue.mark_request_as_handled(request) is None
    assert await queue.reclaim_request(request) is None
    stored = await queue.get_request(request.unique_key)
    assert stored is not None
    assert stored.was_already_handled


async def test_crawlee_request_queue_makes_a_failed_request_a_dead_letter(
    client: DynamoDBStorageClient, queue: RequestQueue
) -> None:
    await queue.add_request(url(1))
    request = await queue.fetch_next_request()
    assert request is not None
    request.state = RequestState.ERROR
    request.retry_count = 3
    assert await queue.mark_request_as_handled(request) is not None
    assert await queue.is_finished()
    frontier = client.backend.frontier("site", "site/run")
    assert (await frontier.stats()).failed == 1
    metadata = await queue.get_metadata()
    assert metadata.handled_request_count == 1
    stored = await queue.get_request(request.unique_key)
    assert stored is not None
    assert stored.was_already_handled
    assert (stored.state, stored.retry_count) == (RequestState.ERROR, 3)
    assert stored.handled_at is not None


async def test_crawlee_request_queue_keeps_the_claim_of_a_request_that_is_fetched_while_it_is_reclaimed(
    client: DynamoDBStorageClient, queue: RequestQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.add_request(url(1))
    first = await queue.fetch_next_request()
    assert first is not None
    frontier = client.backend.frontier("site", "site/run")
    put_back = frontier.put_back
    again: list[Request] = []

    async def put_back_and_fetch(*args: Any, **options: Any) -> None:
        await put_back(*args, **options)
        while (request := await queue.fetch_next_request()) is None:  # noqa: ASYNC110 # no event tells
            await asyncio.sleep(0.05)
        again.append(request)

    monkeypatch.setattr(frontier, "put_back", put_back_and_fetch)
    assert await queue.reclaim_request(first) is not None
    (second,) = again
    # Otherwise it could not be settled, and its lease would be renewed forever.
    assert await queue.mark_request_as_handled(second) is not None
    assert await queue.is_finished()


async def test_crawlee_request_queue_handles_a_request_once_for_concurrent_calls(queue: RequestQueue) -> None:
    await queue.add_request(url(1))
    request = await queue.fetch_next_request()
    assert request is not None
    results = await asyncio.gather(*(queue.mark_request_as_handled(request) for _ in range(5)))
    assert sum(result is not None for result in results) == 1


async def test_crawlee_request_queue_does_not_change_a_request_that_is_added(queue: RequestQueue) -> None:
    request = Request.from_url(url(1), user_data={"x": 1})
    before = request.model_copy(deep=True)
    await queue.add_request(request)
    assert request == before


async def test_crawlee_request_queue_is_empty_and_finished(
    queue: RequestQueue, other_client: DynamoDBStorageClient
) -> None:
    other_queue = await RequestQueue.open(storage_client=other_client)
    assert (await queue.is_empty(), await queue.is_finished()) == (True, True)
    await queue.add_request(url(1))
    assert (await queue.is_empty(), await queue.is_finished()) == (False, False)
    request = await queue.fetch_next_request()
    assert request is not None
    assert (await queue.is_empty(), await queue.is_finished()) == (True, False)
    # A request that one process handles keeps the queues of others from being finished.
    assert (await other_queue.is_empty(), await other_queue.is_finished()) == (True, False)
    await queue.mark_request_as_handled(request)
    assert await queue.is_finished()
    await wait_until(other_queue.is_finished, True)
    await other_queue.add_request(url(2))
    await wait_until(queue.is_empty, False)


async def test_crawlee_request_queue_never_gives_a_request_to_two_processes(
    queue: RequestQueue, other_client: DynamoDBStorageClient
) -> None:
    other_queue = await RequestQueue.open(storage_client=other_client)
    await queue.add_requests([url(i) for i in range(60)], wait_for_all_requests_to_be_added=True)
    handled, other_handled = await asyncio.gather(handle_all(queue), handle_all(other_queue))
    await wait_until(queue.is_empty, True)
    rest = await handle_all(queue) + await handle_all(other_queue)
    assert sorted(int(number) for number in (*handled, *other_handled, *rest)) == list(range(60))


async def test_crawlee_request_queue_releases_its_requests_when_it_is_closed(
    queue: RequestQueue, client: DynamoDBStorageClient, other_client: DynamoDBStorageClient
) -> None:
    await queue.add_requests([url(1), url(2)])
    assert await queue.fetch_next_request() is not None
    assert not await queue.is_empty()
    await client.close()
    other_queue = await RequestQueue.open(storage_client=other_client)
    assert await handle_all(other_queue) == ["1", "2"]


async def test_crawlee_request_queue_is_purged_and_dropped(
    queue: RequestQueue, client: DynamoDBStorageClient
) -> None:
    await queue.add_requests([url(1), url(2)])
    assert await queue.fetch_next_request() is not None
    await queue.purge()
    assert await queue.get_total_count() == 0
    assert await queue.is_finished()
    added = await queue.add_request(url(1))
    assert added is not None
    assert not added.was_already_present
    await queue.drop()
    assert await (await RequestQueue.open(storage_client=client)).fetch_next_request() is None


async def test_crawlee_request_queue_returns_a_request_that_cannot_be_stored_as_unprocessed(
    queue: RequestQueue, caplog: pytest.LogCaptureFixture
) -> None:
    large = Request.from_url(url("large"), user_data={"x": token_hex(400_000)})
    response = await queue._client.add_batch_of_requests([large, Request.from_url(url(1))])
    assert [request.url for request in response.unprocessed_requests] == [url("large")]
    assert [request.was_already_present for request in response.processed_requests] == [False]
    assert "an item may take 409,600" in caplog.text
    assert await handle_all(queue) == ["1"]


async def test_crawlee_request_queue_makes_requests_of_links_without_a_payload(
    queue: RequestQueue, client: DynamoDBStorageClient
) -> None:
    await client.backend.frontier("site", "site/run").add([url(1)])
    await wait_until(queue.is_empty, False)
    request = await queue.fetch_next_request()
    assert request is not None
    assert (request.url, request.method) == (url(1), "GET")


@pytest.mark.parametrize("payload", ["no JSON", "zlib:no base 85", "zlib:0000"])
async def test_crawlee_request_queue_gives_up_an_item_that_is_not_a_request(
    queue: RequestQueue, client: DynamoDBStorageClient, caplog: pytest.LogCaptureFixture, payload: str
) -> None:
    frontier = client.backend.frontier("site", "site/run")
    await frontier.add([frontier.link(url(1), payload=payload), url(2)])
    await wait_until(queue.is_empty, False)
    assert await handle_all(queue) == ["2"]
    await wait_until(queue.is_finished, True)
    (dead,) = await client.backend.get_frontier_items("site/run", status=FrontierStatus.FAILED)
    assert dead.url == url(1)
    assert (dead.last_error or "").startswith("is not a request: ")
    assert f"item {dead.item_id} is not a request" in caplog.text


async def test_crawlee_request_queue_keeps_other_requests_if_an_item_cannot_be_given_up(
    queue: RequestQueue, client: DynamoDBStorageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    frontier = client.backend.frontier("site", "site/run")
    await frontier.add([frontier.link(url(1), payload="no JSON"), url(2)])

    async def refuse(*_: object, **__: object) -> None:
        raise BackendStateError("refused by the test")

    assert isinstance(queue._client, DynamoDBRequestQueueClient)
    monkeypatch.setattr(queue._client._frontier, "fail", refuse)
    with pytest.raises(BackendStateError):
        await wait_until(queue.is_empty, False)
    request = await queue.fetch_next_request()
    assert request is not None
    assert request.url == url(2)


async def test_crawlee_request_queue_adds_the_requests_of_concurrent_calls_together(
    queue: RequestQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(queue._client, DynamoDBRequestQueueClient)
    frontier = queue._client._frontier
    add = frontier.add
    batches: list[int] = []

    async def count(links: list[FrontierItem]) -> list[AddResult]:
        batches.append(len(links))
        return await add(links)

    monkeypatch.setattr(frontier, "add", count)
    names = [*range(9), 0, 1]
    added = await asyncio.gather(*(queue.add_request(url(name)) for name in names))
    assert sum(batches) == len(names)
    assert len(batches) <= 2
    assert [not result.was_already_present for result in added if result] == [True] * 9 + [False] * 2
    # Requests that are known to be stored are not sent again.
    await queue.add_request(url(0))
    assert sum(batches) == len(names)


async def test_crawlee_request_queue_settles_a_request_without_data_that_cannot_be_stored(
    queue: RequestQueue, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.add_request(url(1))
    request = await queue.fetch_next_request()
    assert request is not None
    request.user_data["x"] = token_hex(400_000)
    await queue.mark_request_as_handled(request)
    assert await queue.is_finished()
    assert f"request {url(1)} is handled, but its changes cannot be stored" in caplog.text
