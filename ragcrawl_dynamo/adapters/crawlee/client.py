"""Opens the request queues, datasets and key-value stores of a crawl: Crawlee's storage client."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, Unpack

from crawlee.storage_clients import StorageClient
from typing_extensions import override

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Site, StorageConfig, WrongEventLoopError
from ragcrawl_dynamo.adapters._runs import open_run, run_name
from ragcrawl_dynamo.adapters.crawlee.collection import Collection
from ragcrawl_dynamo.adapters.crawlee.dataset import DynamoDBDatasetClient
from ragcrawl_dynamo.adapters.crawlee.key_value_store import DynamoDBKeyValueStoreClient
from ragcrawl_dynamo.adapters.crawlee.options import RequestQueueOptions, RequestQueueSettings
from ragcrawl_dynamo.adapters.crawlee.request_queue import DynamoDBRequestQueueClient

if TYPE_CHECKING:
    from crawlee.configuration import Configuration

logger: logging.Logger = logging.getLogger(__name__)

# Crawlee's alias for storages that are opened without a name.
_DEFAULT_ALIAS = "__default__"


class DynamoDBStorageClient(StorageClient):
    """Crawlee's `storage_client`. Use it in `async with`: the end of the block releases unfinished requests.

    Args:
        config: Settings of the backend. By default they come from the environment.
        site_id: The site that is crawled.
        run_id: The run of this site. Processes with the same site and run share one crawl.
        item_key: Field that identifies an item of a dataset: items with the same value replace each other.
            By default every pushed item is a new one.
        **queue_options: `prefetch`, `lease_seconds`, `host_delay` and `host_max_in_flight`, as
            `RequestQueueOptions` describes them.
    """

    def __init__(
        self,
        config: DynamoDBConfig | None = None,
        *,
        site_id: str,
        run_id: str,
        item_key: str | None = None,
        **queue_options: Unpack[RequestQueueOptions],
    ) -> None:
        self._config = config or StorageConfig.from_env().backend
        self._site_id = site_id
        self._run_id = run_id
        self._item_key = item_key
        self._queue_settings = RequestQueueSettings(**queue_options)
        self._backend = DynamoDBBackend(self._config)
        self._is_open = False
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cache_key = object()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Opens the backend."""
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases unfinished requests, and closes the backend."""
        await self.close()

    async def close(self) -> None:
        """Releases unfinished requests, and closes the backend.

        Raises:
            WrongEventLoopError: It is open in another event loop, which is not closed.
        """
        self._check_loop()
        stack = self._stack
        self._forget()
        await stack.aclose()
        await self._backend.close()

    @property
    def backend(self) -> DynamoDBBackend:
        """The open backend, for everything that Crawlee does not offer.

        Raises:
            RuntimeError: The storage client is not open.
        """
        if not self._is_open:
            raise RuntimeError("the storage client is not open: use it in 'async with'")
        return self._backend

    @override
    def get_storage_client_cache_key(self, configuration: Configuration) -> object:
        # Storages are shared within this client only, since another client may have another site or run. They
        # are not shared with a time in which it was open before, as in an earlier `asyncio.run`.
        self._leave_closed_loop()
        return self._cache_key

    @override
    async def create_rq_client(
        self,
        *,
        id: str | None = None,
        name: str | None = None,
        alias: str | None = None,
        configuration: Configuration | None = None,
    ) -> DynamoDBRequestQueueClient:
        backend = await self._open()
        run_id = id or self._storage_id(name, alias)
        if id is not None and await backend.get_run(self._site_id, id) is None:
            raise _not_found("Request queue", id)
        run = await open_run(backend, self._site_id, run_id, {"crawler": "crawlee", "name": name})
        client = DynamoDBRequestQueueClient(backend, run, self._queue_settings)
        await self._stack.enter_async_context(client)
        return client

    @override
    async def create_dataset_client(
        self,
        *,
        id: str | None = None,
        name: str | None = None,
        alias: str | None = None,
        configuration: Configuration | None = None,
    ) -> DynamoDBDatasetClient:
        collection = await self._open_collection("dataset", id, name, alias)
        return DynamoDBDatasetClient(collection, self._item_key)

    @override
    async def create_kvs_client(
        self,
        *,
        id: str | None = None,
        name: str | None = None,
        alias: str | None = None,
        configuration: Configuration | None = None,
    ) -> DynamoDBKeyValueStoreClient:
        collection = await self._open_collection("key_value_store", id, name, alias)
        return DynamoDBKeyValueStoreClient(collection)

    async def _open_collection(
        self,
        kind: Literal["dataset", "key_value_store"],
        id: str | None,
        name: str | None,
        alias: str | None,
    ) -> Collection:
        backend = await self._open()
        site_id = id or f"{self._storage_id(name, alias)}:{kind}"
        site = await backend.get_site(site_id)
        if site is None:
            if id is not None:
                raise _not_found(kind.replace("_", "-").capitalize(), id)
            site = Site(site_id=site_id, name=site_id, seeds=[], config={"crawlee": kind, "name": name})
            await backend.save_site(site)
        return Collection(backend, site)

    def _storage_id(self, name: str | None, alias: str | None) -> str:
        """Returns the id of a storage: a named one belongs to the site, all others to the run."""
        if name is not None:
            return f"{self._site_id}/@{name}"
        run = run_name(self._site_id, self._run_id)
        return run if alias in (None, _DEFAULT_ALIAS) else f"{run}/{alias}"

    async def _open(self) -> DynamoDBBackend:
        self._check_loop()
        async with self._opening:
            if not self._is_open:
                await self._stack.enter_async_context(self._backend)
                self._loop = asyncio.get_running_loop()
                self._is_open = True
            return self._backend

    def _check_loop(self) -> None:
        """Checks that the client is not open in another event loop; leaves one that is closed.

        Raises:
            WrongEventLoopError: It is open in another event loop, which is not closed.
        """
        self._leave_closed_loop()
        if self._is_open and self._loop is not asyncio.get_running_loop():
            raise WrongEventLoopError

    def _leave_closed_loop(self) -> None:
        """Forgets the storages that an earlier `asyncio.run` left open in its event loop, which is closed."""
        if not self._is_open or self._loop is None or not self._loop.is_closed():
            return
        logger.warning(
            "the storage client was left open in an event loop that is closed; requests that it held come "
            "back when their leases end: use it in 'async with'"
        )
        # No task of that loop can be awaited any more. The backend closes its connections itself.
        self._stack.pop_all()
        self._forget()

    def _forget(self) -> None:
        """Forgets the open storages, those that Crawlee has cached too."""
        self._is_open = False
        self._opening = asyncio.Lock()
        self._cache_key = object()
        self._stack = AsyncExitStack()


def _not_found(kind: str, id: str) -> ValueError:
    # The words of Crawlee's own storage clients.
    return ValueError(f'{kind} with ID "{id}" not found.')
