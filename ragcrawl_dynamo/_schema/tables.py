"""The five tables: their keys, their indexes, and which model each one holds.

| table | partition key | sort key | indexes (all KEYS_ONLY) |
|---|---|---|---|
| sites | site_id | | |
| runs | site_id | run_id | global by_run_id; local by_created_at |
| pages | site_id | page_id | global by_url (url_key, site_id) |
| versions | page_id | version_key | global by_site (indexed_site, page_id), sparse |
| frontier | run_id | item_id | global by_queue (queue, queue_order), sparse |

The frontier also holds, beside a run's items, one record for each of its hosts and one for the run itself;
the pages, beside a site's pages, the log of their changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, TypeVar

from ragcrawl_dynamo._content.packing import CONTENT_FIELDS
from ragcrawl_dynamo._schema import keys as _keys
from ragcrawl_dynamo._schema.host import HostRecord, RunControl
from ragcrawl_dynamo._schema.records import SchemaRecord
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.models import CrawlRun, Entity, FrontierItem, Page, PageVersion, Site

E = TypeVar("E", bound=Entity)


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index; its projection is KEYS_ONLY."""

    name: str
    partition_key: str
    sort_key: str | None = None
    is_global: bool = True

    @property
    def key_attributes(self) -> tuple[str, ...]:
        """Names of the index's own key attributes."""
        return (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)


@dataclass(frozen=True, slots=True)
class Table(Generic[E]):
    """One table. Every key attribute is a string.

    Attributes:
        name: The name: without prefix in this module's definitions, in full after `named`.
        model: What an item is decoded to.
        keys: The key attributes of a model, those of the indexes included.
        partition_key: Name of the partition key attribute.
        sort_key: Name of the sort key attribute.
        indexes: Secondary indexes.
        separate: Fields that an item does not hold as attributes.
        lifted: Attribute name -> (outer, inner) for fields of a nested model that are stored beside it.
        ttl_attribute: Number of epoch seconds after which DynamoDB may delete an item.
        ttl_setting: Name of the setting that says after how many days; None there switches it off.
        primary_key: Names of the table's own key attributes.
        key_attributes: Names of all attributes that are a key of the table or of an index.
    """

    name: str
    model: type[E]
    keys: Callable[[E], _keys.Key]
    partition_key: str
    sort_key: str | None = None
    indexes: tuple[Index, ...] = ()
    separate: frozenset[str] = frozenset()
    lifted: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    ttl_attribute: str | None = None
    ttl_setting: str = ""
    primary_key: tuple[str, ...] = field(init=False)
    key_attributes: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Derives what is asked for with each item."""
        own = (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)
        object.__setattr__(self, "primary_key", own)
        of_indexes = (index.key_attributes for index in self.indexes)
        object.__setattr__(self, "key_attributes", frozenset(own).union(*of_indexes))

    def named(self, prefix: str) -> Self:
        """This table under its full name."""
        return replace(self, name=prefix + self.name)

    def expires_by(self, config: DynamoDBConfig) -> str | None:
        """The attribute by which DynamoDB deletes items, if it does with these settings."""
        if self.ttl_attribute is None or getattr(config, self.ttl_setting) is None:
            return None
        return self.ttl_attribute

    def index(self, name: str) -> Index:
        """The index of that name."""
        return next(index for index in self.indexes if index.name == name)


SITES = Table("sites", Site, _keys.site_keys, "site_id")
RUNS = Table(
    "runs",
    CrawlRun,
    _keys.run_keys,
    "site_id",
    "run_id",
    indexes=(
        Index("by_run_id", "run_id"),
        Index("by_created_at", "site_id", "created_at", is_global=False),
    ),
    # ADD, the only atomic way to grow a set, works on top-level attributes alone (AWS: UpdateItem).
    lifted={"stats_domains_crawled": ("stats", "domains_crawled")},
)
PAGES = Table(
    "pages",
    Page,
    _keys.page_keys,
    "site_id",
    "page_id",
    indexes=(Index("by_url", "url_key", "site_id"),),
    # Of the log of changes; a page has none.
    ttl_attribute="expires_at",
    ttl_setting="change_retention_days",
)
VERSIONS = Table(
    "versions",
    PageVersion,
    _keys.version_keys,
    "page_id",
    "version_key",
    indexes=(Index("by_site", "indexed_site", "page_id"),),
    separate=CONTENT_FIELDS,
)
FRONTIER = Table(
    "frontier",
    FrontierItem,
    _keys.frontier_keys,
    "run_id",
    "item_id",
    indexes=(Index("by_queue", "queue", "queue_order"),),
    ttl_attribute="expires_at",
    ttl_setting="frontier_ttl_days",
)
# The same table, seen as what else it holds.
HOSTS = Table("frontier", HostRecord, _keys.host_keys, "run_id", "item_id", indexes=FRONTIER.indexes)
SCHEMA = Table("runs", SchemaRecord, _keys.schema_keys, "site_id", "run_id")
CONTROLS = Table("frontier", RunControl, _keys.control_keys, "run_id", "item_id")


@dataclass(frozen=True, slots=True)
class Tables:
    """The five tables of one prefix; `hosts` and `controls` are in the frontier's, `schema` in the runs'."""

    sites: Table[Site]
    runs: Table[CrawlRun]
    pages: Table[Page]
    versions: Table[PageVersion]
    frontier: Table[FrontierItem]
    hosts: Table[HostRecord]
    controls: Table[RunControl]
    schema: Table[SchemaRecord]

    @classmethod
    def of(cls, prefix: str) -> Self:
        """The tables whose names begin with `prefix`."""
        return cls(
            sites=SITES.named(prefix),
            runs=RUNS.named(prefix),
            pages=PAGES.named(prefix),
            versions=VERSIONS.named(prefix),
            frontier=FRONTIER.named(prefix),
            hosts=HOSTS.named(prefix),
            controls=CONTROLS.named(prefix),
            schema=SCHEMA.named(prefix),
        )

    def all(self) -> tuple[Table[Any], ...]:
        """The five tables that there are."""
        return (self.sites, self.runs, self.pages, self.versions, self.frontier)
