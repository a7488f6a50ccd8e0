"""ragcrawl 0.0.2 on this storage; needs the extra `ragcrawl`.

    from ragcrawl_dynamo.adapters.ragcrawl import install

    install()

After this line ragcrawl's `create_storage_backend`, and with it its `CrawlJob` and `SyncJob`, answer a
`DynamoDBConfig` with the backend here. All its settings count but `ttl_days`, since pages and versions do not
expire here (`prune_versions` bounds history). `table_prefix` gets a `_`, so that these tables stand beside
those that ragcrawl's own backend makes, with a `-`.

What does not map:

- **Ids without a site.** `get_page(page_id)` and its like look in the sites for which this backend has saved
  something, the latest first. One that has saved no run looks through all other sites too. So a crawl reads
  a page by its key, and a site that crawls the same URLs is not mixed up with it, as it is in ragcrawl's own
  backends. `get_version(version_id)` reads the index of a site's versions: half a read unit for some 36 of
  them.
- **Datetimes.** ragcrawl's are naive local ones; stored ones are UTC, and come back as naive local ones.
- **Order.** Pages are listed by id, not by `last_seen`. An offset reads what it passes over.
- **The queue.** ragcrawl keeps its own in memory, so that a crawl whose process was killed begins anew; what
  it had stored is found again.
- **Changes** are not logged for `list_changes`: ragcrawl saves a version and its page one after the other.
- `config_snapshot` is stored without credentials.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import ragcrawl.models as theirs
from pydantic import BaseModel, SecretStr
from pydantic_core import to_jsonable_python
from ragcrawl.storage.backend import StorageBackend

import ragcrawl_dynamo as ours
from ragcrawl_dynamo import (
    BackendStateError,
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    NotFoundError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo._dynamodb.pagination import iterate
from ragcrawl_dynamo.adapters._portal import Portal
from ragcrawl_dynamo.adapters._slices import sliced

if TYPE_CHECKING:
    from ragcrawl.config.storage_config import DynamoDBConfig as RagcrawlConfig

__all__ = ["RagcrawlBackend", "install"]

_M = TypeVar("_M", bound=BaseModel)
_T = TypeVar("_T")

# Where ragcrawl's factory looks for its own backend.
_MODULE = "ragcrawl.storage.dynamodb.backend"

# What a snapshot of ragcrawl's settings must not tell.
_CREDENTIALS = {"aws_access_key_id", "aws_secret_access_key", "aws_profile", "cookies", "proxy"}

# A slice of a listing.
_SLICE = 100


def install() -> None:
    """Makes ragcrawl use this storage wherever it is told to use DynamoDB; safe to repeat."""
    module = ModuleType(_MODULE, __doc__)
    module.DynamoDBBackend = RagcrawlBackend  # type: ignore[attr-defined] # the name that ragcrawl imports
    sys.modules[_MODULE] = module


class RagcrawlBackend(StorageBackend):
    """ragcrawl's synchronous `StorageBackend`, over a backend in a thread with an event loop of its own.

    Its methods are those of ragcrawl; they raise this package's errors. Use it from any thread.

    Args:
        config: ragcrawl's settings, or this package's for what those do not have.
    """

    def __init__(self, config: RagcrawlConfig | DynamoDBConfig) -> None:
        self.config = config
        self._config = config if isinstance(config, DynamoDBConfig) else _settings(config)
        self._lock = threading.Lock()
        self._opened: tuple[Portal, DynamoDBBackend] | None = None
        # Sites that something was saved for; the latest is the last.
        self._sites: dict[str, None] = {}
        self._has_run = False

    def initialize(self) -> None:
        """Makes the tables that are missing."""
        with self._lock:
            if self._opened is not None:
                return
            portal = Portal("ragcrawl_dynamo")
            backend = DynamoDBBackend(self._config)
            try:
                portal.call(backend.initialize())
            except BaseException:
                portal.close()
                raise
            self._opened = portal, backend

    def close(self) -> None:
        """Closes the connections; `initialize` opens them again."""
        with self._lock:
            if self._opened is None:
                return
            portal, backend = self._opened
            try:
                portal.call(backend.close())
            finally:
                portal.close()
                self._opened = None

    def health_check(self) -> bool:
        """Whether DynamoDB answers; before `initialize`, which makes the tables, whether it can be asked."""
        if self._opened is not None:
            return self._run(lambda backend: backend.health_check())
        portal = Portal("ragcrawl_dynamo")
        try:
            portal.call(DynamoDBBackend(self._config).describe_tables())
        except RagcrawlDynamoError:
            return False
        finally:
            portal.close()
        return True

    def metrics(self) -> dict[tuple[str, str], ours.OperationMetrics]:
        """See DynamoDBBackend."""
        return self._open()[1].metrics()

    def save_site(self, site: theirs.Site) -> None:
        """Saves a site."""
        self._note(site.site_id)
        self._run(lambda backend: backend.save_site(_ours(ours.Site, site)))

    def get_site(self, site_id: str) -> theirs.Site | None:
        """A site."""
        return _maybe(theirs.Site, self._run(lambda backend: backend.get_site(site_id)))

    def list_sites(self) -> list[theirs.Site]:
        """All sites, the newest first."""
        sites = self._collect(lambda backend: backend.iter_sites())
        return [_theirs(theirs.Site, each) for each in sorted(sites, key=_created_at, reverse=True)]

    def delete_site(self, site_id: str) -> bool:
        """Deletes a site with all that belongs to it; whether there was anything."""
        return self._run(lambda backend: backend.delete_site(site_id))

    def save_run(self, run: theirs.CrawlRun) -> None:
        """Saves a run."""
        self._note(run.site_id)
        self._has_run = True
        self._run(lambda backend: backend.save_run(_ours(ours.CrawlRun, run)))

    def get_run(self, run_id: str) -> theirs.CrawlRun | None:
        """A run."""
        return _maybe(theirs.CrawlRun, self._run(lambda backend: backend.get_run(run_id)))

    def list_runs(self, site_id: str, limit: int = 100, offset: int = 0) -> list[theirs.CrawlRun]:
        """A site's runs, the newest first."""
        runs = self._collect(lambda backend: backend.iter_runs(site_id), offset, limit)
        return [_theirs(theirs.CrawlRun, each) for each in runs]

    def get_latest_run(self, site_id: str) -> theirs.CrawlRun | None:
        """The run that was created last."""
        return _maybe(theirs.CrawlRun, self._run(lambda backend: backend.get_latest_run(site_id)))

    def save_page(self, page: theirs.Page) -> None:
        """Saves a page."""
        self._note(page.site_id)
        self._run(lambda backend: backend.save_page(_ours(ours.Page, page)))

    def get_page(self, page_id: str) -> theirs.Page | None:
        """A page by its id; see the module for where it is looked for."""
        return _maybe(theirs.Page, self._find(lambda backend, site: backend.get_page(site, page_id)))

    def get_page_by_url(self, site_id: str, url: str) -> theirs.Page | None:
        """A page by its URL."""
        return _maybe(theirs.Page, self._run(lambda backend: backend.get_page_by_url(site_id, url)))

    def list_pages(
        self, site_id: str, limit: int = 1000, offset: int = 0, include_tombstones: bool = False
    ) -> list[theirs.Page]:
        """A site's pages, by id."""
        pages = self._collect(lambda backend: backend.iter_pages(site_id, include_tombstones), offset, limit)
        return [_theirs(theirs.Page, each) for each in pages]

    def get_pages_needing_recrawl(
        self, site_id: str, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[theirs.Page]:
        """Pages whose last crawl is that long ago, the oldest first."""
        pages = self._run(lambda backend: backend.get_pages_needing_recrawl(site_id, max_age_hours, limit))
        return [_theirs(theirs.Page, each) for each in pages]

    def count_pages(self, site_id: str, include_tombstones: bool = False) -> int:
        """How many pages a site has."""
        return self._run(lambda backend: backend.count_pages(site_id, include_tombstones))

    def save_version(self, version: theirs.PageVersion) -> None:
        """Saves a version."""
        self._note(version.site_id)
        # ragcrawl names it in the page that it saves next, also if its content is that of the one before.
        self._run(lambda backend: backend.save_version(_ours(ours.PageVersion, version), keep_unchanged=True))

    def get_version(self, version_id: str) -> theirs.PageVersion | None:
        """A version by its id; see the module for where it is looked for."""
        found = self._find(lambda backend, site: backend.find_version(site, version_id))
        return _maybe(theirs.PageVersion, found)

    def get_current_version(self, page_id: str) -> theirs.PageVersion | None:
        """The version that its page calls the current one."""
        found = self._find(lambda backend, site: backend.get_current_version(site, page_id))
        return _maybe(theirs.PageVersion, found)

    def list_versions(self, page_id: str, limit: int = 100) -> list[theirs.PageVersion]:
        """A page's versions, the newest first."""
        found = self._find(lambda backend, site: backend.list_versions(page_id, limit, site_id=site))
        return [_theirs(theirs.PageVersion, each) for each in found or ()]

    def save_frontier_item(self, item: theirs.FrontierItem) -> None:
        """Saves a frontier item."""
        self._note(item.site_id)
        self._run(lambda backend: backend.save_frontier_item(_ours(ours.FrontierItem, item)))

    def get_frontier_items(
        self, run_id: str, status: str | None = None, limit: int = 1000
    ) -> list[theirs.FrontierItem]:
        """A run's items, those of the highest priority first, then the oldest."""
        wanted = None if status is None else ours.FrontierStatus(status)
        items = self._collect(
            lambda backend: iterate(lambda cursor: backend.get_frontier_items(run_id, wanted, _SLICE, cursor))
        )
        items.sort(key=lambda each: (-each.priority, each.discovered_at))
        return [_theirs(theirs.FrontierItem, each) for each in items[:limit]]

    def update_frontier_status(self, item_id: str, status: str, error: str | None = None) -> None:
        """Sets an item's status; nothing if there is no such item.

        The run is what stands before the last `_` of the item's id, as ragcrawl makes these, or one of the
        runs of the sites in which pages are looked for.
        """
        wanted = ours.FrontierStatus(status)

        async def update(backend: DynamoDBBackend, run_id: str) -> bool:
            try:
                await backend.update_frontier_status(run_id, item_id, wanted, error)
            except NotFoundError:
                return False
            return True

        async def update_in(backend: DynamoDBBackend, site_id: str) -> bool:
            async with aclosing(backend.iter_runs(site_id)) as runs:  # type: ignore[type-var] # a generator
                async for run in runs:
                    if await update(backend, run.run_id):
                        return True
            return False

        run_id = item_id.rpartition("_")[0]
        if not (run_id and self._run(lambda backend: update(backend, run_id))):
            self._find(update_in)

    def clear_frontier(self, run_id: str) -> int:
        """Deletes a run's items; returns how many."""
        return self._run(lambda backend: backend.clear_frontier(run_id))

    def save_pages_bulk(self, pages: list[theirs.Page]) -> int:
        """Saves pages; returns how many."""
        self._note(*(each.site_id for each in pages))
        return self._run(lambda backend: backend.save_pages_bulk([_ours(ours.Page, each) for each in pages]))

    def save_versions_bulk(self, versions: list[theirs.PageVersion]) -> int:
        """Saves versions; returns how many."""
        self._note(*(each.site_id for each in versions))
        records = [_ours(ours.PageVersion, each) for each in versions]
        return self._run(lambda backend: backend.save_versions_bulk(records, keep_unchanged=True))

    def _open(self) -> tuple[Portal, DynamoDBBackend]:
        if self._opened is None:
            raise BackendStateError("the backend is not open: call initialize() first")
        return self._opened

    def _run(self, work: Callable[[DynamoDBBackend], Coroutine[Any, Any, _T]]) -> _T:
        portal, backend = self._open()
        return portal.call(work(backend))

    def _collect(
        self,
        records: Callable[[DynamoDBBackend], AsyncIterator[_M]],
        first: int = 0,
        count: int | None = None,
    ) -> list[_M]:
        """Part of what an iterator gives."""
        if first < 0 or (count is not None and count < 0):
            raise InvalidArgumentError("offset" if first < 0 else "limit", "must not be negative")

        async def collect(backend: DynamoDBBackend) -> list[_M]:
            return [record async for record in sliced(records(backend), first, count)]

        return self._run(collect)

    def _note(self, *site_ids: str) -> None:
        """Notes sites that something is saved for."""
        for site_id in site_ids:
            self._sites.pop(site_id, None)
            self._sites[site_id] = None

    def _find(self, look: Callable[[DynamoDBBackend, str], Coroutine[Any, Any, _T]]) -> _T | None:
        """The first that there is in one of the sites, tried one after the other."""
        own = list(reversed(self._sites))

        async def find(backend: DynamoDBBackend) -> _T | None:
            for site_id in own:
                if found := await look(backend, site_id):
                    return found
            if self._has_run:
                return None
            async with aclosing(backend.iter_sites()) as sites:  # type: ignore[type-var] # a generator
                async for site in sites:
                    if site.site_id not in self._sites and (found := await look(backend, site.site_id)):
                        return found
            return None

        return self._run(find)


def _settings(config: RagcrawlConfig) -> DynamoDBConfig:
    """Ragcrawl's settings as this package's."""
    keys: dict[str, Any] = {}
    if config.aws_access_key_id is not None and config.aws_secret_access_key is not None:
        keys = {
            "access_key_id": SecretStr(config.aws_access_key_id),
            "secret_access_key": SecretStr(config.aws_secret_access_key),
        }
    return DynamoDBConfig(
        table_prefix=f"{config.table_prefix}_",
        region=config.region,
        endpoint_url=config.endpoint_url,
        profile=config.aws_profile,
        billing_mode=config.billing_mode,
        read_capacity=config.read_capacity_units,
        write_capacity=config.write_capacity_units,
        **keys,
    )


def _ours(model: type[_M], record: BaseModel) -> _M:
    """A record of ragcrawl as one of this package."""
    fields = {name: _as_utc(value) for name, value in record if name in model.model_fields}
    if isinstance(record, theirs.CrawlRun):
        fields["stats"] = record.stats.model_dump()
        fields["config_snapshot"] = _without_credentials(
            to_jsonable_python(record.config_snapshot, fallback=str)
        )
    elif isinstance(record, theirs.Site):
        fields["config"] = to_jsonable_python(record.config, fallback=str)
    elif isinstance(record, theirs.PageVersion):
        fields["extra"] = to_jsonable_python(record.extra, fallback=str)
    return model.model_validate(fields)


def _theirs(model: type[_M], record: BaseModel) -> _M:
    """A record of this package as one of ragcrawl."""
    fields = {name: _as_local(value) for name, value in record if name in model.model_fields}
    if isinstance(record, ours.CrawlRun):
        fields["stats"] = record.stats.model_dump()
    return model.model_validate(fields)


def _maybe(model: type[_M], record: BaseModel | None) -> _M | None:
    return None if record is None else _theirs(model, record)


def _as_utc(value: Any) -> Any:
    """A naive local datetime as an aware one; everything else as it is."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _as_local(value: Any) -> Any:
    """A datetime as a naive local one; everything else as it is."""
    return value.astimezone().replace(tzinfo=None) if isinstance(value, datetime) else value


def _without_credentials(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_credentials(each) for name, each in value.items() if name not in _CREDENTIALS}
    if isinstance(value, list):
        return [_without_credentials(each) for each in value]
    return value


def _created_at(site: ours.Site) -> datetime:
    return site.created_at
