"""Crawlee for Python on this storage; needs the extra `crawlee`.

    async with DynamoDBStorageClient(config, site_id="docs", run_id="monday") as storage_client:
        crawler = HttpCrawler(storage_client=storage_client)

Any number of processes with the same site and run work on the same crawl: they share its queue, whose
requests are leased, so that those of a killed process come back after `lease_seconds`; what is finished stays
finished, and a process that is started again goes on. A new run begins anew.

| Crawlee | here |
|---|---|
| request queue | the frontier of a run; `unique_key` is the item's, the request its payload |
| dataset | a site of its own: an item is a page, with the item as its version |
| key-value store | likewise: a key is a page's id, the value its version |
| default and alias storages | belong to the run |
| named storages | belong to the site, whatever the run |

What does not map:

- **`purge_on_start`** is not obeyed: the second process would delete what the first one does.
- **A lease** can be lost while a handler runs: a process that stood still. Crawlee's handlers can not be
  cancelled from here; what such a one adds and pushes is done, its request is handled by somebody else.
- **Pushing once.** An item that is pushed by a handler whose process is killed before its request is finished
  is pushed again, as with every storage of Crawlee. With `item_key="url"` items with the same value are one:
  they replace each other as versions of one page, listed in the order of the value's hash, and each change is
  told by `list_changes`.
- **Failed requests** that used up their retries are dead letters of the frontier, and count as handled.
- A request that is pending already is not moved by adding it again with `forefront`, and one that another
  process has handled since this one saw it is not said to be handled when it is added again.
- Times in metadata, but for `created_at`, are those of this process. A deleted value leaves a tombstone until
  its store is dropped. There are no public URLs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

from crawlee import Request
from crawlee._request import RequestState
from crawlee.storage_clients import StorageClient
from crawlee.storage_clients._base import DatasetClient, KeyValueStoreClient, RequestQueueClient
from crawlee.storage_clients.models import (
    AddRequestsResponse,
    DatasetItemsListPage,
    DatasetMetadata,
    KeyValueStoreMetadata,
    KeyValueStoreRecord,
    KeyValueStoreRecordMetadata,
    ProcessedRequest,
    RequestQueueMetadata,
    UnprocessedRequest,
)
from pydantic import ValidationError

from ragcrawl_dynamo import (
    Claim,
    CrawlRun,
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    FrontierItem,
    InvalidArgumentError,
    LeaseKeeper,
    LeaseLostError,
    Page,
    PageVersion,
    PartialBatchError,
    RagcrawlDynamoError,
    Site,
)
from ragcrawl_dynamo._frontier.seen_links import SeenCache
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.adapters._runs import close_run, open_run, run_name
from ragcrawl_dynamo.adapters._slices import sliced
from ragcrawl_dynamo.config import StorageConfig

__all__ = ["DynamoDBStorageClient"]

logger = logging.getLogger(__name__)

# The alias that Crawlee gives to storages that are opened without a name.
_DEFAULT = "__default__"

# For so many seconds a queue that had nothing is taken to have nothing, unless this process adds something:
# Crawlee asks many times a second.
_EMPTY_SECONDS = 0.5

# Bodies that are read at a time.
_READ_AT_ONCE = 50

# Items of one call that are committed at a time.
_COMMITS_AT_ONCE = 16

# Fields of an item that are the version's own where they are text, so that readers of pages find them there.
_OWN_FIELDS = ("markdown", "html")

_VALUE = "value"

# Earlier versions of Crawlee ask only whether a queue is empty, and mean by it that it is finished too.
_ASKS_WHETHER_FINISHED = hasattr(RequestQueueClient, "is_finished")


class DynamoDBStorageClient(StorageClient):
    """Crawlee's `storage_client`. Use it in `async with`; at its end unfinished requests are given back.

    Args:
        config: Settings; those of the environment by default.
        site_id: Whom the crawl is of.
        run_id: Which crawl of it.
        item_key: Field by whose value items of datasets are one; without, each that is pushed is a new one.
        prefetch: How many requests are claimed at a time; they are leased while they wait for their turn.
        lease_seconds: After how many seconds requests of a killed process come back.
        host_delay: Seconds between two requests to a host, whichever process makes them.
        host_max_in_flight: Requests to a host at a time, of all processes together; None for any number.
    """

    def __init__(
        self,
        config: DynamoDBConfig | None = None,
        *,
        site_id: str,
        run_id: str,
        item_key: str | None = None,
        prefetch: int = 8,
        lease_seconds: float = 60.0,
        host_delay: float = 0.0,
        host_max_in_flight: int | None = None,
    ) -> None:
        self._config = config or StorageConfig.from_env().backend
        self._site_id = site_id
        self._run_id = run_id
        self._item_key = item_key
        self._prefetch = prefetch
        self._lease_seconds = lease_seconds
        self._limits: dict[str, Any] = {"host_delay": host_delay, "host_max_in_flight": host_max_in_flight}
        self._backend: DynamoDBBackend | None = None
        self._opening = asyncio.Lock()
        self._cache_key = object()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Opens the backend."""
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives unfinished requests back, and closes the backend."""
        await self.close()

    async def close(self) -> None:
        """Gives unfinished requests back, and closes the backend."""
        self._backend = None
        await self._stack.aclose()

    @property
    def backend(self) -> DynamoDBBackend:
        """The backend, for what Crawlee has no word for.

        Raises:
            RuntimeError: It is not open.
        """
        if self._backend is None:
            raise RuntimeError("use the storage client in 'async with'")
        return self._backend

    def get_storage_client_cache_key(self, configuration: Any) -> object:
        """See Crawlee: what this client opened is not another one's."""
        return self._cache_key

    async def create_rq_client(
        self,
        *,
        id: str | None = None,
        name: str | None = None,
        alias: str | None = None,
        configuration: Any = None,
    ) -> DynamoDBRequestQueueClient:
        """See Crawlee."""
        backend = await self._open()
        run_id = id or self._id(name, alias)
        if id is not None and await backend.get_run(id, self._site_id) is None:
            raise _not_found("Request queue", id)
        run = await open_run(backend, self._site_id, run_id, {"crawler": "crawlee", "name": name})
        frontier = backend.frontier(run_id, self._site_id, **self._limits)
        client = DynamoDBRequestQueueClient(
            backend, frontier, run, lease_seconds=self._lease_seconds, prefetch=self._prefetch
        )
        await self._stack.enter_async_context(client)
        return client

    async def create_dataset_client(
        self,
        *,
        id: str | None = None,
        name: str | None = None,
        alias: str | None = None,
        configuration: Any = None,
    ) -> DynamoDBDatasetClient:
        """See Crawlee."""
        backend, site = await self._collection("dataset", id, name, alias)
        return DynamoDBDatasetClient(backend, site, self._item_key)

    async def create_kvs_client(
        self,
        *,
        id: str | None = None,
        name: str | None = None,
        alias: str | None = None,
        configuration: Any = None,
    ) -> DynamoDBKeyValueStoreClient:
        """See Crawlee."""
        backend, site = await self._collection("key_value_store", id, name, alias)
        return DynamoDBKeyValueStoreClient(backend, site)

    async def _collection(
        self,
        kind: Literal["dataset", "key_value_store"],
        id: str | None,
        name: str | None,
        alias: str | None,
    ) -> tuple[DynamoDBBackend, Site]:
        backend = await self._open()
        site_id = id or f"{self._id(name, alias)}:{kind}"
        site = await backend.get_site(site_id)
        if site is None:
            if id is not None:
                raise _not_found(kind.replace("_", "-").capitalize(), id)
            site = Site(site_id=site_id, name=site_id, seeds=[], config={"crawlee": kind, "name": name})
            await backend.save_site(site)
        return backend, site

    def _id(self, name: str | None, alias: str | None) -> str:
        if name is not None:
            return f"{self._site_id}/@{name}"
        own = run_name(self._site_id, self._run_id)
        return own if alias in (None, _DEFAULT) else f"{own}/{alias}"

    async def _open(self) -> DynamoDBBackend:
        async with self._opening:
            if self._backend is None:
                self._backend = await self._stack.enter_async_context(DynamoDBBackend(self._config))
            return self._backend


class _Times:
    """When this process last read and changed a storage."""

    def __init__(self, created_at: datetime) -> None:
        self.created_at = created_at
        self.accessed_at = self.modified_at = datetime.now(UTC)

    def note(self, *, changed: bool = False) -> None:
        self.accessed_at = datetime.now(UTC)
        if changed:
            self.modified_at = self.accessed_at

    def fields(self) -> dict[str, datetime]:
        return {
            "created_at": self.created_at,
            "accessed_at": self.accessed_at,
            "modified_at": self.modified_at,
        }


class DynamoDBRequestQueueClient(RequestQueueClient):
    """A request queue: the frontier of a run, under leases that are kept while requests are handled."""

    def __init__(
        self,
        backend: DynamoDBBackend,
        frontier: Frontier,
        run: CrawlRun,
        *,
        lease_seconds: float,
        prefetch: int,
    ) -> None:
        self._backend = backend
        self._frontier = frontier
        self._run = run
        self._lease_seconds = lease_seconds
        self._times = _Times(run.created_at)
        self._keeper: LeaseKeeper = frontier.keeper(self._on_lost, lease_seconds=lease_seconds)
        # What Crawlee handles, by unique key, and what was claimed to know whether there is anything.
        self._claims: dict[str, Claim] = {}
        self._ready: list[tuple[Claim, Request]] = []
        self._in_front = 0
        self._handled = SeenCache(backend.config.frontier_seen_cache)
        self._empty_until = 0.0
        self._unfinished_until = 0.0
        self._prefetch = prefetch
        self._claiming = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Begins to keep leases."""
        await self._keeper.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives back what is not finished."""
        await self._keeper.__aexit__(kind, error, trace)
        self._claims.clear()
        self._ready.clear()
        try:
            await self._frontier.release(self._keeper.held)
        except RagcrawlDynamoError as failure:
            # What is not given back comes back when its lease ends.
            logger.warning("%s", failure)
        await close_run(self._backend, self._run.site_id, self._run.run_id)

    async def get_metadata(self) -> RequestQueueMetadata:
        """See Crawlee."""
        stats = await self._frontier.stats()
        handled = stats.completed + stats.failed + stats.skipped
        pending = stats.pending + stats.delayed + stats.in_progress
        return RequestQueueMetadata(
            id=self._run.run_id,
            name=_name(self._run.config_snapshot),
            # Any number may, at any time.
            had_multiple_clients=True,
            handled_request_count=handled,
            pending_request_count=pending,
            total_request_count=handled + pending,
            **self._times.fields(),
        )

    async def drop(self) -> None:
        """See Crawlee. The record of the run stays."""
        await self.purge()

    async def purge(self) -> None:
        """See Crawlee."""
        for claim in self._keeper.held:
            self._keeper.let_go(claim)
        self._claims.clear()
        self._ready.clear()
        self._handled.clear()
        await self._backend.clear_frontier(self._run.run_id)
        self._changed()

    async def add_batch_of_requests(
        self, requests: Sequence[Request], *, forefront: bool = False
    ) -> AddRequestsResponse:
        """See Crawlee. What can not be stored is logged, and comes back as unprocessed."""
        items: list[FrontierItem] = []
        response = AddRequestsResponse(processed_requests=[], unprocessed_requests=[])
        accepted: list[Request] = []
        for request in requests:
            try:
                items.append(self._item(request, forefront=forefront))
            except ValueError as error:
                logger.error("request %s can not be stored: %s", request.url, error)  # says all
                response.unprocessed_requests.append(_unprocessed(request))
            else:
                accepted.append(request)
        failed: set[str] = set()
        try:
            results = await self._frontier.add(items)
        except PartialBatchError as error:
            logger.warning("%d requests may not have been added: %s", len(error.failures), error)
            failed = {item.unique_key for item, _ in error.failures}
            rest = [item for item in items if item.unique_key not in failed]
            results = await self._frontier.add(rest)
        outcomes = iter(results)
        for request in accepted:
            if request.unique_key in failed:
                response.unprocessed_requests.append(_unprocessed(request))
                continue
            result = next(outcomes)
            if result.error is not None:
                logger.error("request %s can not be stored: %s", request.url, result.error)
                response.unprocessed_requests.append(_unprocessed(request))
                continue
            response.processed_requests.append(
                ProcessedRequest(
                    unique_key=request.unique_key,
                    was_already_present=not result.added,
                    was_already_handled=request.unique_key in self._handled
                    or (result.status is not None and result.status.is_final),
                )
            )
        if forefront:
            added = sum(not each.was_already_present for each in response.processed_requests)
            self._in_front = min(self._in_front + added, self._prefetch)
        self._changed()
        return response

    async def get_request(self, unique_key: str) -> Request | None:
        """See Crawlee."""
        self._times.note()
        item = await self._frontier.get(unique_key)
        if item is None:
            return None
        request = _request(item)
        if item.status.is_final and request.handled_at is None:
            request.handled_at = item.completed_at
        return request

    async def fetch_next_request(self) -> Request | None:
        """See Crawlee."""
        self._times.note()
        async with self._claiming:
            await self._claim()
            if not self._ready:
                return None
            claim, request = self._ready.pop(0)
        self._claims[request.unique_key] = claim
        return request

    async def mark_request_as_handled(self, request: Request) -> ProcessedRequest | None:
        """See Crawlee. A request that Crawlee has given up becomes a dead letter."""
        claim = self._claims.get(request.unique_key)
        if claim is None or claim.ended:
            return None
        if request.handled_at is None:
            request.handled_at = datetime.now(UTC)
        try:
            if request.state is RequestState.ERROR:
                await self._frontier.fail(claim, f"failed after {request.retry_count} retries", retry=False)
            else:
                await self._frontier.complete(claim, payload=_payload(request))
        except LeaseLostError as error:
            logger.warning("%s", error)
            self._claims.pop(request.unique_key, None)
            return None
        # Not before: Crawlee repeats a call that failed.
        self._claims.pop(request.unique_key, None)
        self._handled.add(request.unique_key)
        self._unfinished_until = 0.0
        self._times.note(changed=True)
        return ProcessedRequest(
            unique_key=request.unique_key, was_already_present=True, was_already_handled=True
        )

    async def reclaim_request(self, request: Request, *, forefront: bool = False) -> ProcessedRequest | None:
        """See Crawlee."""
        claim = self._claims.get(request.unique_key)
        if claim is None or claim.ended:
            return None
        priority = _forefront() if forefront else 0.0
        try:
            await self._frontier.put_back(claim, payload=_payload(request), priority=priority, to_end=True)
        except LeaseLostError as error:
            logger.warning("%s", error)
            self._claims.pop(request.unique_key, None)
            return None
        self._claims.pop(request.unique_key, None)
        self._in_front = min(self._in_front + forefront, self._prefetch)
        self._changed()
        return ProcessedRequest(
            unique_key=request.unique_key, was_already_present=True, was_already_handled=False
        )

    async def is_empty(self) -> bool:
        """See Crawlee. What can be fetched is claimed for the next fetch, which is how it is known."""
        self._times.note()
        async with self._claiming:
            await self._claim()
            if self._ready:
                return False
        return _ASKS_WHETHER_FINISHED or await self.is_finished()

    async def is_finished(self) -> bool:
        """See Crawlee: whether no process has anything to do."""
        now = time.monotonic()
        if self._claims or self._ready or now < self._unfinished_until:
            return False
        finished = await self._frontier.is_finished()
        if not finished:
            self._unfinished_until = now + _EMPTY_SECONDS
        return finished

    async def _claim(self) -> None:
        """Claims the next requests, unless some are claimed already or there were none just now."""
        while (self._in_front or not self._ready) and time.monotonic() >= self._empty_until:
            # What was put into the front since the last claim goes before what was claimed then.
            count = self._in_front or self._prefetch
            claims = await self._frontier.claim(count, lease_seconds=self._lease_seconds)
            self._keeper.hold(claims)
            found: list[tuple[Claim, Request]] = []
            for claim in claims:
                try:
                    found.append((claim, _request(claim.item)))
                except ValidationError as error:
                    logger.error("item %s is no request: %s", claim.item.item_id, error)  # says all
                    await self._frontier.fail(claim, f"is no request: {error}", retry=False)
            self._ready[:0] = found
            self._in_front = 0
            if not claims:
                self._empty_until = time.monotonic() + _EMPTY_SECONDS

    def _changed(self) -> None:
        self._empty_until = self._unfinished_until = 0.0
        self._times.note(changed=True)

    def _item(self, request: Request, *, forefront: bool) -> FrontierItem:
        return self._frontier.link(
            request.url,
            unique_key=request.unique_key,
            payload=_payload(request),
            depth=request.crawl_depth,
            priority=_forefront() if forefront else 0.0,
        )

    def _on_lost(self, claim: Claim, why: str) -> None:
        logger.warning("request %s: %s, somebody else will handle it", claim.item.url, why)
        self._ready = [each for each in self._ready if each[0] is not claim]
        self._claims = {key: each for key, each in self._claims.items() if each is not claim}


class _CollectionClient:
    """What datasets and key-value stores share: a site of their own, whose pages are their records."""

    def __init__(self, backend: DynamoDBBackend, site: Site) -> None:
        self._backend = backend
        self._site = site
        self._times = _Times(site.created_at)

    async def drop(self) -> None:
        """See Crawlee."""
        await self._backend.delete_site(self._site.site_id)

    async def purge(self) -> None:
        """See Crawlee."""
        await self._backend.delete_site(self._site.site_id)
        await self._backend.save_site(self._site)
        self._times.note(changed=True)

    def _metadata(self) -> dict[str, Any]:
        return {
            "id": self._site.site_id,
            "name": _name(self._site.config),
            **self._times.fields(),
        }

    async def _versions(self, pages: AsyncIterator[Page]) -> AsyncIterator[tuple[Page, PageVersion]]:
        """Pages with their current versions, read some at a time."""
        some: list[Page] = []
        async for page in pages:
            some.append(page)
            if len(some) == _READ_AT_ONCE:
                for pair in await self._read(some):
                    yield pair
                some = []
        for pair in await self._read(some):
            yield pair

    async def _read(self, pages: list[Page]) -> list[tuple[Page, PageVersion]]:
        found = await asyncio.gather(
            *(
                self._backend.get_version(
                    page.page_id, page.current_version_id or _VALUE, site_id=self._site.site_id
                )
                for page in pages
            )
        )
        return [(page, version) for page, version in zip(pages, found, strict=True) if version is not None]


class DynamoDBDatasetClient(_CollectionClient, DatasetClient):
    """A dataset, in the order in which its items were pushed."""

    def __init__(self, backend: DynamoDBBackend, site: Site, item_key: str | None) -> None:
        super().__init__(backend, site)
        self._item_key = item_key
        self._latest = 0

    async def get_metadata(self) -> DatasetMetadata:
        """See Crawlee. Counts the items by reading their pages."""
        count = await self._backend.count_pages(self._site.site_id)
        return DatasetMetadata(item_count=count, **self._metadata())

    async def push_data(self, data: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
        """See Crawlee.

        Raises:
            InvalidArgumentError: An item is no mapping of JSON, or lacks the key by which items are one.
            PartialBatchError: Some items were not pushed; all others were.
        """
        items = [data] if isinstance(data, Mapping) else list(data)
        records = [self._record(item) for item in items]
        if self._item_key is not None:
            await gather_bounded(self._commit, records, _COMMITS_AT_ONCE)
        else:
            await self._backend.save_versions_bulk([version for _, version in records], keep_unchanged=True)
            await self._backend.save_pages_bulk([page for page, _ in records])
        self._times.note(changed=True)

    async def get_data(
        self,
        *,
        offset: int = 0,
        limit: int | None = 999_999_999_999,
        clean: bool = False,
        desc: bool = False,
        fields: list[str] | None = None,
        omit: list[str] | None = None,
        unwind: list[str] | None = None,
        skip_empty: bool = False,
        skip_hidden: bool = False,
        flatten: list[str] | None = None,
        view: str | None = None,
    ) -> DatasetItemsListPage:
        """See Crawlee. Of the filters, `skip_empty` is supported."""
        _warn_of(
            clean=clean,
            fields=fields,
            omit=omit,
            unwind=unwind,
            skip_hidden=skip_hidden,
            flatten=flatten,
            view=view,
        )
        total = await self._backend.count_pages(self._site.site_id)
        found = self.iterate_items(offset=offset, limit=limit, desc=desc, skip_empty=skip_empty)
        items = [dict(item) async for item in found]
        return DatasetItemsListPage(
            count=len(items),
            offset=offset,
            limit=limit or max(0, total - offset),
            total=total,
            desc=desc,
            items=items,
        )

    async def iterate_items(
        self,
        *,
        offset: int = 0,
        limit: int | None = None,
        clean: bool = False,
        desc: bool = False,
        fields: list[str] | None = None,
        omit: list[str] | None = None,
        unwind: list[str] | None = None,
        skip_empty: bool = False,
        skip_hidden: bool = False,
    ) -> AsyncIterator[Mapping[str, Any]]:
        """See Crawlee. An offset, and `desc`, read the pages of what they pass over, but no items."""
        _warn_of(clean=clean, fields=fields, omit=omit, unwind=unwind, skip_hidden=skip_hidden)
        self._times.note()
        pages = self._pages(offset, limit, desc=desc)
        async with aclosing(self._versions(pages)) as versions:  # type: ignore[type-var] # a generator
            async for _, version in versions:
                item = _item_of(version)
                if item or not skip_empty:
                    yield item

    async def _pages(self, offset: int, limit: int | None, *, desc: bool) -> AsyncIterator[Page]:
        if desc:
            pages = [page async for page in self._backend.iter_pages(self._site.site_id)]
            pages.reverse()
            for page in pages[offset : None if limit is None else offset + limit]:
                yield page
            return
        async with aclosing(sliced(self._backend.iter_pages(self._site.site_id), offset, limit)) as some:
            async for page in some:
                yield page

    async def _commit(self, record: tuple[Page, PageVersion]) -> None:
        await self._backend.commit_page(*record)

    def _record(self, item: Any) -> tuple[Page, PageVersion]:
        if not isinstance(item, Mapping):
            raise InvalidArgumentError("data", f"an item is a mapping, not {type(item).__name__}")
        text = _json("data", item)
        own = {name: item[name] for name in _OWN_FIELDS if isinstance(item.get(name), str)}
        rest = {name: value for name, value in item.items() if name not in own}
        digest = hashlib.sha256(_bytes(text)).hexdigest()
        if self._item_key is None:
            # Later items sort behind earlier ones, and so do those of one call.
            self._latest = max(time.time_ns(), self._latest + 1)
            page_id, version_id = f"{self._latest:016x}-{secrets.token_hex(4)}", "item"
        else:
            key = item.get(self._item_key)
            if key is None:
                raise InvalidArgumentError("data", f"an item lacks the item_key {self._item_key!r}")
            page_id = hashlib.sha256(_bytes(_json("data", key))).hexdigest()[:32]
            version_id = digest[:32]
        url = item.get("url")
        version = PageVersion(
            version_id=version_id,
            page_id=page_id,
            site_id=self._site.site_id,
            run_id=self._site.site_id,
            markdown=own.get("markdown", ""),
            html=own.get("html"),
            plain_text=_json("data", rest),
            content_hash=digest,
            url=url if isinstance(url, str) and url else f"crawlee:{page_id}",
            content_type="application/json",
            status_code=200,
            char_count=len(text),
            extra={"own": list(own)},
        )
        page = Page(
            page_id=page_id,
            site_id=self._site.site_id,
            url=version.url,
            current_version_id=version_id,
            content_hash=digest,
            status_code=200,
            version_count=1,
        )
        return page, version


class DynamoDBKeyValueStoreClient(_CollectionClient, KeyValueStoreClient):
    """A key-value store; values of any size."""

    async def get_metadata(self) -> KeyValueStoreMetadata:
        """See Crawlee."""
        return KeyValueStoreMetadata(**self._metadata())

    async def get_value(self, *, key: str) -> KeyValueStoreRecord[Any] | None:
        """See Crawlee."""
        self._times.note()
        version = await self._backend.get_version(key, _VALUE, site_id=self._site.site_id)
        return None if version is None or version.is_tombstone else _record_of(version)

    async def set_value(self, *, key: str, value: Any, content_type: str | None = None) -> None:
        """See Crawlee.

        Raises:
            InvalidArgumentError: The value is neither bytes, text nor JSON.
            InvalidKeyError: The key is too long.
        """
        if isinstance(value, bytes | bytearray):
            kind, text = "bytes", base64.b64encode(value).decode()
            size, default = len(value), "application/octet-stream"
        elif isinstance(value, str):
            kind, text, size, default = (
                "text",
                value,
                len(_bytes(value)),
                "text/plain; charset=utf-8",
            )
        else:
            kind, text = "json", _json("value", value)
            size, default = len(_bytes(text)), "application/json; charset=utf-8"
        await self._save(key, kind, text, size, content_type or default)

    async def delete_value(self, *, key: str) -> None:
        """See Crawlee."""
        if await self.record_exists(key=key):
            await self._save(key, "json", "null", 0, "", is_deleted=True)

    async def iterate_keys(
        self, *, exclusive_start_key: str | None = None, limit: int | None = None
    ) -> AsyncIterator[KeyValueStoreRecordMetadata]:
        """See Crawlee. Reads the values too, since their size and type are kept with them."""
        async for record in self.iterate_entries(exclusive_start_key=exclusive_start_key, limit=limit):
            yield KeyValueStoreRecordMetadata(
                key=record.key, content_type=record.content_type, size=record.size
            )

    async def iterate_entries(
        self, *, exclusive_start_key: str | None = None, limit: int | None = None
    ) -> AsyncIterator[KeyValueStoreRecord[Any]]:
        """See Crawlee."""
        self._times.note()
        count = 0
        pages = self._after(exclusive_start_key)
        if limit == 0:
            return
        async with aclosing(self._versions(pages)) as versions:  # type: ignore[type-var] # a generator
            async for _, version in versions:
                if version.is_tombstone:
                    continue
                yield _record_of(version)
                count += 1
                if count == limit:
                    return

    async def get_public_url(self, *, key: str) -> str:
        """See Crawlee.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("values in DynamoDB have no public URL")

    async def record_exists(self, *, key: str) -> bool:
        """See Crawlee."""
        self._times.note()
        versions = await self._backend.list_versions(
            key, 1, include_content=False, site_id=self._site.site_id
        )
        return any(not version.is_tombstone for version in versions)

    async def _after(self, key: str | None) -> AsyncIterator[Page]:
        async with aclosing(self._backend.iter_pages(self._site.site_id)) as pages:  # type: ignore[type-var] # as above
            async for page in pages:
                if key is None or page.page_id > key:
                    yield page

    async def _save(
        self, key: str, kind: str, text: str, size: int, content_type: str, *, is_deleted: bool = False
    ) -> None:
        version = PageVersion(
            version_id=_VALUE,
            page_id=key,
            site_id=self._site.site_id,
            run_id=self._site.site_id,
            plain_text=text,
            content_hash=hashlib.sha256(_bytes(text)).hexdigest(),
            url=f"crawlee:{key}",
            content_type=content_type,
            status_code=200,
            char_count=size,
            is_tombstone=is_deleted,
            extra={"kind": kind},
        )
        page = Page(
            page_id=key,
            site_id=self._site.site_id,
            url=version.url,
            current_version_id=_VALUE,
            is_tombstone=is_deleted,
        )
        await self._backend.save_version(version, keep_unchanged=True)
        await self._backend.save_page(page)
        self._times.note(changed=True)


def _not_found(kind: str, id: str) -> ValueError:
    return ValueError(f'{kind} with ID "{id}" not found.')


def _name(config: Mapping[str, Any]) -> str | None:
    name = config.get("name")
    return name if isinstance(name, str) else None


def _forefront() -> float:
    """A priority before all that there are: the latest that was put there comes first."""
    return time.time()


def _payload(request: Request) -> str:
    return request.model_dump_json(by_alias=True, exclude_none=True)


def _request(item: FrontierItem) -> Request:
    """The request of an item; one of its URL alone, if something else than Crawlee added it."""
    if item.payload is None:
        return Request.from_url(item.url, unique_key=item.unique_key or item.normalized_url)
    return Request.model_validate_json(item.payload)


def _unprocessed(request: Request) -> UnprocessedRequest:
    return UnprocessedRequest(unique_key=request.unique_key, url=request.url, method=request.method)


def _bytes(text: str) -> bytes:
    """For hashes and sizes, of any text: what can not be stored is refused where it is stored."""
    return text.encode(errors="surrogatepass")


def _json(field: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(field, f"is no JSON: {error}") from error


def _item_of(version: PageVersion) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(version.plain_text or "{}")
    own = version.extra.get("own")
    for name in own if isinstance(own, list) else ():
        item[str(name)] = getattr(version, str(name))
    return item


def _record_of(version: PageVersion) -> KeyValueStoreRecord[Any]:
    text = version.plain_text or ""
    kind = version.extra.get("kind")
    value: Any = text
    if kind == "bytes":
        value = base64.b64decode(text)
    elif kind == "json":
        value = json.loads(text)
    return KeyValueStoreRecord(
        key=version.page_id,
        content_type=version.content_type or "",
        size=version.char_count,
        value=value,
    )


def _warn_of(**options: object) -> None:
    given = [name for name, value in options.items() if value not in (False, None)]
    if given:
        logger.warning("options of a dataset that are not supported: %s", ", ".join(given))
