"""Stores the records of ragcrawl 0.0.2 in DynamoDB.

It needs the extra `ragcrawl`. Call `install` once:

    from ragcrawl_dynamo.adapters.ragcrawl import install

    install()

From then on ragcrawl's `create_storage_backend`, which its `CrawlJob` and `SyncJob` call, creates a
`RagcrawlBackend` for a `DynamoDBConfig` of ragcrawl. All settings of this config are used, except `ttl_days`:
pages and versions do not expire here (`prune_versions` limits the history). A `_` is added to `table_prefix`,
where ragcrawl's own backend adds a `-`, so that the tables of both exist side by side.

`ragcrawl-dynamo ragcrawl` runs ragcrawl's own command line on these tables (extra `cli`).

The largest differences from ragcrawl's own backends; docs/adapters/ragcrawl-differences.md has all:

- **Ids without a site.** `get_page(page_id)` and similar methods look in the sites for which this backend has
  saved something, the latest one first. Only a backend that has saved no run looks in all other sites too. So
  a crawl reads a page by its key, and never gets the page of another site with the same URL, as it does with
  ragcrawl's own backends. `get_version(version_id)` reads the index of a site's versions: half a read unit
  for about 36 versions.
- **Datetimes.** ragcrawl's are local and naive. They are stored in UTC, and converted back.
- **Listings** have ragcrawl's orders. `list_pages` reads all pages of the site, and `get_frontier_items` all
  items of the run. An offset reads the records that it skips.
- **The queue.** ragcrawl keeps its queue in memory. If the process is killed, the crawl starts again from its
  seeds; stored pages are recognized.
- **Changes** are not logged for `list_changes`, because ragcrawl saves a version and its page separately.
- **`config`** of sites and **`config_snapshot`** of runs are stored without credentials.
"""

from ragcrawl_dynamo.adapters.ragcrawl.backend import RagcrawlBackend
from ragcrawl_dynamo.adapters.ragcrawl.factory import install

__all__ = ["RagcrawlBackend", "install"]
