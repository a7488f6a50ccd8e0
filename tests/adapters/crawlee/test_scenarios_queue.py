"""Scenarios of request queues, which pass with Crawlee's own storage client and with this package's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from crawlee import Request, service_locator
from crawlee._request import RequestState
from crawlee.request_loaders import RequestList, RequestManagerTandem, ThrottlingRequestManager
from crawlee.storages import RequestQueue

from tests.adapters.crawlee.requests import handle_all, url, user_fields, wait_until

if TYPE_CHECKING:
    from crawlee.storage_clients import StorageClient

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def counts(queue: RequestQueue) -> tuple[int, int, int]:
    """The numbers of handled, pending and all requests."""
    metadata = await queue.get_metadata()
    return (
        metadata.handled_request_count,
        metadata.pending_request_count,
        metadata.total_request_count,
    )


async def fetched(queue: RequestQueue) -> Request:
    request = await queue.fetch_next_request()
    assert request is not None
    return request


async def test_crawlee_new_queue_is_empty_and_finished(either_queue: RequestQueue) -> None:
    assert await counts(either_queue) == (0, 0, 0)
    assert (await either_queue.is_empty(), await either_queue.is_finished()) == (True, True)
    assert await either_queue.fetch_next_request() is None
    assert (await either_queue.get_handled_count(), await either_queue.get_total_count()) == (0, 0)


@pytest.mark.parametrize("forefront", [False, True])
async def test_crawlee_request_is_added_once(either_queue: RequestQueue, forefront: bool) -> None:
    first = await either_queue.add_request(url(1), forefront=forefront)
    again = await either_queue.add_request(url(1), forefront=forefront)
    assert first is not None
    assert again is not None
    assert (first.was_already_present, first.was_already_handled) == (False, False)
    assert (again.was_already_present, again.was_already_handled) == (True, False)
    assert first.unique_key == again.unique_key
    assert await counts(either_queue) == (0, 1, 1)


async def test_crawlee_request_that_is_in_progress_or_handled_is_not_added_again(
    either_queue: RequestQueue,
) -> None:
    await either_queue.add_request(url(1))
    request = await fetched(either_queue)
    during = await either_queue.add_request(url(1), forefront=True)
    assert during is not None
    assert (during.was_already_present, during.was_already_handled) == (True, False)
    assert await either_queue.fetch_next_request() is None
    await either_queue.mark_request_as_handled(request)
    after = await either_queue.add_request(url(1))
    assert after is not None
    assert (after.was_already_present, after.was_already_handled) == (True, True)
    assert await either_queue.fetch_next_request() is None
    assert await counts(either_queue) == (1, 0, 1)


async def test_crawlee_request_that_is_added_again_keeps_its_first_data(
    either_queue: RequestQueue,
) -> None:
    await either_queue.add_request(Request.from_url(url(1), label="first", user_data={"n": 1}))
    await either_queue.add_request(Request.from_url(url(1), label="second", user_data={"n": 2}))
    request = await fetched(either_queue)
    assert (request.label, request.user_data["n"]) == ("first", 1)


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3, 25])
async def test_crawlee_batch_is_fetched_in_its_order(
    either_queue: RequestQueue, count: int, wait: bool
) -> None:
    await either_queue.add_requests(
        [url(number) for number in range(count)],
        batch_size=10,
        wait_time_between_batches=timedelta(0),
        wait_for_all_requests_to_be_added=wait,
    )
    await wait_until(either_queue.get_total_count, count)
    assert await handle_all(either_queue) == [str(number) for number in range(count)]
    await wait_until(either_queue.is_finished, True)


async def test_crawlee_batch_with_duplicates_is_added_once(either_queue: RequestQueue) -> None:
    requests: list[str | Request] = [url(1), url(2), url(1), Request.from_url(url(2)), url(3)]
    await either_queue.add_requests(requests)
    assert await counts(either_queue) == (0, 3, 3)
    assert await handle_all(either_queue) == ["1", "2", "3"]


async def test_crawlee_batch_says_of_each_request_whether_it_is_new(either_queue: RequestQueue) -> None:
    await either_queue.add_request(url(2))
    response = await either_queue._client.add_batch_of_requests(
        [Request.from_url(url(number)) for number in (1, 2, 3)]
    )
    assert [request.was_already_present for request in response.processed_requests] == [False, True, False]
    assert response.unprocessed_requests == []
    assert (await either_queue._client.add_batch_of_requests([])).processed_requests == []


async def test_crawlee_queue_is_not_finished_while_batches_are_added(either_queue: RequestQueue) -> None:
    await either_queue.add_requests(
        [url(number) for number in range(4)], batch_size=2, wait_time_between_batches=timedelta(0)
    )
    done = []
    async with asyncio.timeout(10):
        while not await either_queue.is_finished():
            done += await handle_all(either_queue)
            await asyncio.sleep(0)
    assert done == ["0", "1", "2", "3"]


async def test_crawlee_forefront_goes_first_and_the_latest_of_it_before_all(
    either_queue: RequestQueue,
) -> None:
    await either_queue.add_requests([url("a"), url("b")])
    await either_queue.add_requests([url("x"), url("y")], forefront=True)
    await either_queue.add_request(url("c"))
    await either_queue.add_request(url("z"), forefront=True)
    assert (await fetched(either_queue)).url == url("z")
    # Some of the others are claimed by now.
    await either_queue.add_request(url("first"), forefront=True)
    assert await handle_all(either_queue) == ["first", "y", "x", "a", "b", "c"]


async def test_crawlee_request_is_stored_with_all_fields_of_its_user(either_queue: RequestQueue) -> None:
    request = Request.from_url(
        url("form"),
        method="POST",
        headers={"X-Test": "ä", "content-type": "application/json"},
        payload=b'{"q": "\xc3\xa4"}',
        label="FORM",
        user_data={"text": "ä€😀", "none": None, "list": [1, 2.5, {"deep": True}]},
        session_id="session",
        max_retries=7,
        no_retry=True,
        use_extended_unique_key=True,
    )
    request.crawl_depth = 3
    expected = user_fields(request)
    await either_queue.add_request(request)
    stored = await fetched(either_queue)
    assert user_fields(stored) == expected
    assert (stored.session_id, stored.max_retries, stored.no_retry) == ("session", 7, True)
    assert (stored.crawl_depth, stored.retry_count, stored.handled_at) == (3, 0, None)
    assert stored.state is RequestState.UNPROCESSED


async def test_crawlee_large_request_is_stored_reclaimed_and_handled(either_queue: RequestQueue) -> None:
    text = "ä large text. " * 40_000
    await either_queue.add_request(Request.from_url(url(1), user_data={"text": text}))
    request = await fetched(either_queue)
    assert request.user_data["text"] == text
    request.user_data["more"] = text
    await either_queue.reclaim_request(request)
    request = await fetched(either_queue)
    await either_queue.mark_request_as_handled(request)
    stored = await either_queue.get_request(request.unique_key)
    assert stored is not None
    assert stored.user_data["text"] == stored.user_data["more"] == text


async def test_crawlee_requests_are_apart_by_their_unique_keys(either_queue: RequestQueue) -> None:
    extended: Any = {"use_extended_unique_key": True, "method": "POST"}
    requests = [
        Request.from_url(url("page")),
        Request.from_url(url("page"), unique_key="mine"),
        Request.from_url(url("page"), always_enqueue=True),
        Request.from_url(url("page"), always_enqueue=True),
        Request.from_url(url("page"), payload=b"a", **extended),
        Request.from_url(url("page"), payload=b"b", **extended),
        Request.from_url(url("page#part")),
        Request.from_url(url("page#part"), keep_url_fragment=True),
        Request.from_url(url("page?b=2&a=1")),
        Request.from_url(url("page?a=1&b=2&utm_source=x")),
    ]
    await either_queue.add_requests(list(requests))
    fetched_urls = await handle_all(either_queue)
    assert fetched_urls == [*["page"] * 6, "page#part", "page?b=2&a=1"]
    assert await counts(either_queue) == (8, 0, 8)


@pytest.mark.parametrize(
    "address",
    [
        "https://a.example/ä€/日本?q=ü",
        "https://bücher.example/",
        "http://a.example:8080/x",
        "https://user:secret@a.example/",
        "http://127.0.0.1/",
        "http://[::1]:8000/",
        "https://a.example/%7Euser/%2Fx",
        "https://a.example",
        "https://a.example/" + "x" * 1500,
        "https://a.example/a b",
    ],
)
async def test_crawlee_request_has_the_url_that_was_added(either_queue: RequestQueue, address: str) -> None:
    request = Request.from_url(address)
    await either_queue.add_request(request)
    stored = await fetched(either_queue)
    assert (stored.url, stored.unique_key) == (request.url, request.unique_key)
    assert await either_queue.mark_request_as_handled(stored) is not None
    assert await either_queue.is_finished()


async def test_crawlee_request_is_read_by_its_unique_key_in_every_state(either_queue: RequestQueue) -> None:
    assert await either_queue.get_request("none") is None
    added = await either_queue.add_request(Request.from_url(url(1), unique_key="key"))
    assert added is not None
    for step in ("pending", "in progress", "handled"):
        stored = await either_queue.get_request("key")
        assert stored is not None, step
        assert (stored.url, stored.was_already_handled) == (url(1), step == "handled")
        if step == "pending":
            request = await fetched(either_queue)
        elif step == "in progress":
            await either_queue.mark_request_as_handled(request)
    stored = await either_queue.get_request("key")
    assert stored is not None
    assert stored.handled_at is not None
    assert datetime.now(UTC) - stored.handled_at < timedelta(minutes=1)


async def test_crawlee_handled_request_keeps_the_fields_that_its_handler_has_set(
    either_queue: RequestQueue,
) -> None:
    await either_queue.add_request(url(1))
    request = await fetched(either_queue)
    request.user_data["result"] = {"ok": True}
    request.loaded_url = url("after-redirect")
    request.retry_count = 2
    request.state = RequestState.DONE
    result = await either_queue.mark_request_as_handled(request)
    assert result is not None
    assert (result.was_already_present, result.was_already_handled) == (True, True)
    stored = await either_queue.get_request(request.unique_key)
    assert stored is not None
    assert stored.user_data["result"] == {"ok": True}
    assert (stored.loaded_url, stored.retry_count) == (url("after-redirect"), 2)
    assert stored.state is RequestState.DONE


async def test_crawlee_handled_request_keeps_its_time(either_queue: RequestQueue) -> None:
    await either_queue.add_request(url(1))
    request = await fetched(either_queue)
    request.handled_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    await either_queue.mark_request_as_handled(request)
    stored = await either_queue.get_request(request.unique_key)
    assert stored is not None
    assert stored.handled_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_crawlee_request_is_handled_once(either_queue: RequestQueue) -> None:
    await either_queue.add_request(url(1))
    request = await fetched(either_queue)
    results = await asyncio.gather(*(either_queue.mark_request_as_handled(request) for _ in range(3)))
    assert [result is not None for result in results] == [True, False, False]
    assert await either_queue.mark_request_as_handled(request) is None
    assert await either_queue.reclaim_request(request) is None
    assert await counts(either_queue) == (1, 0, 1)


async def test_crawlee_request_that_was_not_fetched_is_neither_handled_nor_reclaimed(
    either_queue: RequestQueue,
) -> None:
    request = Request.from_url(url(1))
    assert await either_queue.mark_request_as_handled(request) is None
    assert await either_queue.reclaim_request(request) is None
    await either_queue.add_request(request)
    assert await either_queue.mark_request_as_handled(request) is None
    assert await either_queue.reclaim_request(request, forefront=True) is None
    assert await counts(either_queue) == (0, 1, 1)


@pytest.mark.parametrize("forefront", [False, True])
async def test_crawlee_request_is_reclaimed_to_the_end_or_to_the_front(
    either_queue: RequestQueue, forefront: bool
) -> None:
    await either_queue.add_requests([url(number) for number in range(1, 5)])
    request = await fetched(either_queue)
    result = await either_queue.reclaim_request(request, forefront=forefront)
    assert result is not None
    assert (result.was_already_present, result.was_already_handled) == (True, False)
    assert await counts(either_queue) == (0, 4, 4)
    order = ["1", "2", "3", "4"] if forefront else ["2", "3", "4", "1"]
    assert await handle_all(either_queue) == order


async def test_crawlee_reclaimed_request_keeps_the_fields_that_its_handler_has_set(
    either_queue: RequestQueue,
) -> None:
    await either_queue.add_request(Request.from_url(url(1), user_data={"kept": 1}))
    for number in range(1, 4):
        request = await fetched(either_queue)
        assert (request.retry_count, request.user_data.get("number")) == (
            number - 1,
            None if number == 1 else number - 1,
        )
        request.retry_count += 1
        request.session_rotation_count = number
        request.user_data["number"] = number
        request.state = RequestState.ERROR_HANDLER
        await either_queue.reclaim_request(request)
    request = await fetched(either_queue)
    assert (request.session_rotation_count, request.user_data["kept"]) == (3, 1)
    assert request.state is RequestState.ERROR_HANDLER


async def test_crawlee_several_requests_are_in_progress_at_a_time(either_queue: RequestQueue) -> None:
    await either_queue.add_requests([url(number) for number in range(6)])
    requests = await asyncio.gather(*(fetched(either_queue) for _ in range(6)))
    assert len({request.unique_key for request in requests}) == 6
    assert (await either_queue.is_empty(), await either_queue.is_finished()) == (True, False)
    assert await counts(either_queue) == (0, 6, 6)
    await asyncio.gather(*(either_queue.mark_request_as_handled(request) for request in requests[:5]))
    assert not await either_queue.is_finished()
    await either_queue.mark_request_as_handled(requests[5])
    assert await either_queue.is_finished()
    assert await counts(either_queue) == (6, 0, 6)


async def test_crawlee_finished_queue_takes_new_requests(either_queue: RequestQueue) -> None:
    for number in range(3):
        assert await either_queue.is_finished()
        await either_queue.add_request(url(number))
        assert not await either_queue.is_finished()
        assert await handle_all(either_queue) == [str(number)]
    assert await either_queue.is_finished()


@pytest.mark.parametrize("action", ["purge", "drop"])
async def test_crawlee_purged_or_dropped_queue_is_empty_and_can_be_used(
    either_queue: RequestQueue, action: str
) -> None:
    await either_queue.add_requests([url(1), url(2), url(3)], wait_for_all_requests_to_be_added=True)
    handled, open_request = await fetched(either_queue), await fetched(either_queue)
    await either_queue.mark_request_as_handled(handled)
    await getattr(either_queue, action)()
    assert await counts(either_queue) == (0, 0, 0)
    assert await either_queue.get_request(handled.unique_key) is None
    assert await either_queue.mark_request_as_handled(open_request) is None
    assert await either_queue.reclaim_request(open_request) is None
    assert (await either_queue.is_empty(), await either_queue.is_finished()) == (True, True)
    added = await either_queue.add_request(url(1))
    assert added is not None
    assert not added.was_already_present
    assert await handle_all(either_queue) == ["1"]


async def test_crawlee_queue_that_is_opened_after_a_drop_is_new(either_client: StorageClient) -> None:
    queue = await RequestQueue.open(name="a-queue", storage_client=either_client)
    await queue.add_request(url(1))
    await queue.drop()
    again = await RequestQueue.open(name="a-queue", storage_client=either_client)
    assert again is not queue
    assert await counts(again) == (0, 0, 0)
    assert again.name == "a-queue"
    await again.drop()


async def test_crawlee_metadata_has_the_times_of_reads_and_writes(either_queue: RequestQueue) -> None:
    # Crawlee's own client returns the object that it changes.
    first = (await either_queue.get_metadata()).model_copy()
    await asyncio.sleep(0.02)
    await either_queue.is_empty()
    read = (await either_queue.get_metadata()).model_copy()
    assert read.accessed_at > first.accessed_at
    assert (read.created_at, read.modified_at) == (first.created_at, first.modified_at)
    await asyncio.sleep(0.02)
    await either_queue.add_request(url(1))
    changed = await either_queue.get_metadata()
    assert changed.modified_at > first.modified_at
    assert changed.created_at == first.created_at


async def test_crawlee_queues_are_opened_by_default_name_alias_or_id(either_client: StorageClient) -> None:
    default = await RequestQueue.open(storage_client=either_client)
    named = await RequestQueue.open(name="a-queue", storage_client=either_client)
    aliased = await RequestQueue.open(alias="an alias_1.x", storage_client=either_client)
    other = await RequestQueue.open(alias="other", storage_client=either_client)
    queues = [default, named, aliased, other]
    assert [queue.name for queue in queues] == [None, "a-queue", None, None]
    assert len({queue.id for queue in queues}) == 4
    for number, queue in enumerate(queues):
        await queue.add_request(url(number))
    for number, queue in enumerate(queues):
        again = await RequestQueue.open(id=queue.id, storage_client=either_client)
        assert again is queue
        assert await handle_all(again) == [str(number)]
    assert await RequestQueue.open(alias="__default__", storage_client=either_client) is default


async def test_crawlee_queue_is_opened_once_by_concurrent_calls(either_client: StorageClient) -> None:
    queues = await asyncio.gather(
        *(RequestQueue.open(alias="same", storage_client=either_client) for _ in range(5))
    )
    assert len({id(queue) for queue in queues}) == 1


@pytest.mark.parametrize(
    "names",
    [
        {"name": "a", "alias": "b"},
        {"id": "a", "name": "b"},
        {"id": "a", "alias": "b"},
        {"name": "not_valid"},
        {"name": "-a"},
        {"name": "__default__"},
        {"alias": "a/b"},
        {"alias": ".."},
    ],
)
async def test_crawlee_queue_with_wrong_names_is_refused(either_client: StorageClient, names: Any) -> None:
    with pytest.raises(ValueError, match=r"Only one of|Invalid|reserved"):
        await RequestQueue.open(storage_client=either_client, **names)


async def test_crawlee_name_and_alias_may_not_be_the_same(either_client: StorageClient) -> None:
    await RequestQueue.open(name="same", storage_client=either_client)
    with pytest.raises(ValueError, match="already exists"):
        await RequestQueue.open(alias="same", storage_client=either_client)


async def test_crawlee_tandem_moves_a_list_into_the_queue(either_queue: RequestQueue) -> None:
    await either_queue.add_request(url("queued"))
    tandem = RequestManagerTandem(RequestList([url("a"), url("b")]), either_queue)
    assert not await tandem.is_empty()
    assert not await tandem.is_finished()
    seen = []
    while (request := await tandem.fetch_next_request()) is not None:
        seen.append(request.url.removeprefix(url("")))
        if request.url == url("a"):
            if request.retry_count == 0:
                request.retry_count = 1
                await tandem.reclaim_request(request)
                continue
            await tandem.add_request(url("found"))
        await tandem.mark_request_as_handled(request)
    assert seen == ["a", "b", "queued", "a", "found"]
    assert await tandem.is_finished()
    assert await tandem.get_handled_count() == 4


async def test_crawlee_throttling_manager_spreads_requests_over_queues(either_client: StorageClient) -> None:
    service_locator._storage_client = None
    service_locator.set_storage_client(either_client)
    try:
        inner = await RequestQueue.open()
        manager = ThrottlingRequestManager(
            inner, domains=["slow.example"], request_manager_opener=RequestQueue.open
        )
        await manager.add_requests(["https://slow.example/1", "https://slow.example/2", url("fast")])
        assert await manager.get_total_count() == 3
        manager.set_crawl_delay("https://slow.example/", 30)
        first, second = await manager.fetch_next_request(), await manager.fetch_next_request()
        assert first is not None
        assert second is not None
        assert [first.url, second.url] == ["https://slow.example/1", url("fast")]
        assert await manager.fetch_next_request() is None
        assert (await manager.is_empty(), await manager.is_finished()) == (True, False)
        for request in (first, second):
            await manager.mark_request_as_handled(request)
        assert await manager.get_handled_count() == 2
        await manager.purge()
        assert await manager.is_finished()
        await manager.drop()
    finally:
        service_locator._storage_client = None
