"""Defines the five tables: their keys, their indexes, and the model of the items that give each its name.

| table | partition key | sort key | indexes (all KEYS_ONLY) |
|---|---|---|---|
| sites | site_id | | |
| runs | site_id | run_id | global by_run_id (run_id); local by_created_at (site_id, created_at) |
| pages | site_id | page_id | global by_url (url_key, site_id) |
| versions | page_id | version_key | global by_site (indexed_site, page_id), sparse |
| frontier | run_id | item_id | global by_queue (queue, queue_order), sparse |

A site's `seeds`, `allowed_domains` and `config`, and a run's `seeds` and `config_snapshot`, are compressed if
they take more than 32 KB, see `_dynamodb.packed_values`.

Tables also hold other records. Their partition keys begin with "#", which no escaped id does:

| table | key | item |
|---|---|---|
| sites | `{site_id}` | a site |
| runs | `{site_id}` / `{run_id}` | a run |
| runs | `#schema` / `#schema` | the schema record of all five tables |
| pages | `{site_id}` / `{page_id}` | a page |
| pages | `#{site_id}` / `lane#{shard}` | a shard of the change log: its holder, its retention |
| pages | `#{site_id}` / `consumer#{consumer}` | the cursor of a consumer of the change feed |
| pages | `#{site_id}` / `index#{consumer}` | the lease and the cursor of a consumer that keeps an index |
| pages | `#{site_id}` / `chunks#{consumer}#{hash}` | the chunks of a page in that index |
| pages | `#{site_id}#{shard}` / `{sequence_number}` | a log entry; expires after `change_retention_days` |
| versions | `{page_id}` / `{version_id}#{site_id}#` | the head of a version |
| versions | `#{page_id}` / `{version_id}#{site_id}#{generation}#{number}` | a body part |
| versions | `#{page_id}` / `{version_id}#{site_id}#{generation}#users` | the versions that share a body |
| frontier | `{digit}#{run_id}` / `{item_id}` | an item; a final one expires after `frontier_ttl_days` |
| frontier | `#{run_id}` / `control` | the control of the run |
| frontier | `#{run_id}#{bucket}` / `host#{host}` | a host: its limits, its leases in flight, its counts |
| frontier | `#{run_id}` / `count#{number}` | a shard of the run's counters |
| frontier | `#{run_id}#members` / `member#{process}` | a process that claims from the run |
| frontier | `#{run_id}#{bucket}` / `budget#{host}` | how many links of a host were admitted |

by_site lists a version by its first body part or, if it has none, by its head. by_queue lists open items
under `{run_id}#{host}#{shard}`, and hosts that have work under `#{run_id}#{bucket}`: the list of hosts.
"""

from dataclasses import dataclass
from typing import Any, Self

from ragcrawl_dynamo._dynamodb.table import Index, Table
from ragcrawl_dynamo._dynamodb.values import Key
from ragcrawl_dynamo._schema.keys import (
    control_key,
    frontier_key,
    host_key,
    hosts_partition,
    page_key,
    run_key,
    schema_key,
    site_key,
    url_key,
    version_key,
)
from ragcrawl_dynamo._schema.records import HostRecord, RunControl, SchemaRecord
from ragcrawl_dynamo.models import CONTENT_FIELDS, CrawlRun, FrontierItem, Page, PageVersion, Site


def site_keys(site: Site) -> Key:
    """Returns the key attributes of a site's item."""
    return site_key(site.site_id)


def run_keys(run: CrawlRun) -> Key:
    """Returns the key attributes of a run's item."""
    return run_key(run.site_id, run.run_id)


def page_keys(page: Page) -> Key:
    """Returns the key attributes of a page's item, with that of by_url."""
    return {**page_key(page.site_id, page.page_id), "url_key": {"S": url_key(page.url)}}


def version_keys(version: PageVersion) -> Key:
    """Returns the key attributes of a version's head; `site_entry` builds that of by_site."""
    return version_key(version.page_id, version.version_id, version.site_id)


def frontier_keys(item: FrontierItem) -> Key:
    """Returns the key attributes of a frontier item; the queue itself adds those of by_queue."""
    return frontier_key(item.run_id, item.item_id)


def host_keys(record: HostRecord) -> Key:
    """Returns the key attributes of a host record, with those of the list of hosts if the host is listed."""
    key = host_key(record.run, record.host, record.bucket)
    if record.order is not None:
        partition = hosts_partition(record.run, record.bucket)
        key |= {"queue": {"S": partition}, "queue_order": {"S": record.order}}
    return key


def schema_keys(record: SchemaRecord) -> Key:
    """Returns the key attributes of the schema record."""
    return schema_key()


def control_keys(control: RunControl) -> Key:
    """Returns the key attributes of a run's control."""
    return control_key(control.run)


SITES = Table("sites", Site, site_keys, "site_id", packed=("seeds", "allowed_domains", "config"))
RUNS = Table(
    "runs",
    CrawlRun,
    run_keys,
    "site_id",
    "run_id",
    indexes=(
        Index("by_run_id", "run_id"),
        Index("by_created_at", "site_id", "created_at", is_global=False),
    ),
    packed=("seeds", "config_snapshot"),
)
PAGES = Table(
    "pages",
    Page,
    page_keys,
    "site_id",
    "page_id",
    indexes=(Index("by_url", "url_key", "site_id"),),
    # Only log entries expire, and chunk records of pages that are gone. A page has no such attribute.
    ttl_attribute="expires_at",
    ttl_setting="change_retention_days",
)
VERSIONS = Table(
    "versions",
    PageVersion,
    version_keys,
    "page_id",
    "version_key",
    indexes=(Index("by_site", "indexed_site", "page_id"),),
    separate=CONTENT_FIELDS,
)
FRONTIER = Table(
    "frontier",
    FrontierItem,
    frontier_keys,
    "run_id",
    "item_id",
    indexes=(Index("by_queue", "queue", "queue_order"),),
    ttl_attribute="expires_at",
    ttl_setting="frontier_ttl_days",
)
# The same tables, for the other records that they hold.
HOSTS = Table("frontier", HostRecord, host_keys, "run_id", "item_id", indexes=FRONTIER.indexes)
SCHEMA = Table("runs", SchemaRecord, schema_keys, "site_id", "run_id")
CONTROLS = Table("frontier", RunControl, control_keys, "run_id", "item_id")


@dataclass(frozen=True, slots=True)
class Tables:
    """The five tables of one prefix.

    The records of `hosts` and `controls` lie in the frontier table, that of `schema` in the runs table.
    """

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
        """Returns the tables whose names begin with `prefix`."""
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
        """Returns the five tables of DynamoDB."""
        return (self.sites, self.runs, self.pages, self.versions, self.frontier)
