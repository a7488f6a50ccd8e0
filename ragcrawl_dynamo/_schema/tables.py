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

from dataclasses import dataclass
from typing import Any, Self

from ragcrawl_dynamo._dynamodb.table import Index, Table
from ragcrawl_dynamo._dynamodb.values import Key, moment_text
from ragcrawl_dynamo._schema.keys import (
    control_key,
    due_list,
    frontier_key,
    host_key,
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
    """The key attributes of a site's item."""
    return site_key(site.site_id)


def run_keys(run: CrawlRun) -> Key:
    """The key attributes of a run's item."""
    return run_key(run.site_id, run.run_id)


def page_keys(page: Page) -> Key:
    """The key attributes of a page's item, that of the URL index included."""
    return {**page_key(page.site_id, page.page_id), "url_key": {"S": url_key(page.url)}}


def version_keys(version: PageVersion) -> Key:
    """The key attributes of a version's item; that of the site index is sparse, see `site_entry`."""
    return version_key(version.page_id, version.version_id, version.site_id)


def frontier_keys(item: FrontierItem) -> Key:
    """The key attributes of a frontier item."""
    return frontier_key(item.run_id, item.item_id)


def host_keys(record: HostRecord) -> Key:
    """The key attributes of a host record, that of its turn included where it has work."""
    key = host_key(record.run, record.host)
    if (due := record.due) is not None:
        key |= {"queue": {"S": due_list(record.run)}, "queue_order": {"S": moment_text(due)}}
    return key


def schema_keys(record: SchemaRecord) -> Key:
    """The key attributes of the schema's record."""
    return schema_key()


def control_keys(control: RunControl) -> Key:
    """The key attributes of a run's control."""
    return control_key(control.run)


SITES = Table("sites", Site, site_keys, "site_id")
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
    # ADD, the only atomic way to grow a set, works on top-level attributes alone (AWS: UpdateItem).
    lifted={"stats_domains_crawled": ("stats", "domains_crawled")},
)
PAGES = Table(
    "pages",
    Page,
    page_keys,
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
# The same table, seen as what else it holds.
HOSTS = Table("frontier", HostRecord, host_keys, "run_id", "item_id", indexes=FRONTIER.indexes)
SCHEMA = Table("runs", SchemaRecord, schema_keys, "site_id", "run_id")
CONTROLS = Table("frontier", RunControl, control_keys, "run_id", "item_id")


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
