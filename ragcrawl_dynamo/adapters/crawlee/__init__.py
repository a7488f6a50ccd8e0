"""Stores the request queues, datasets and key-value stores of Crawlee for Python in DynamoDB.

It needs the extra `crawlee`. Pass the storage client to a crawler:

    async with DynamoDBStorageClient(config, site_id="docs", run_id="monday") as storage_client:
        crawler = HttpCrawler(storage_client=storage_client)

All processes with the same site and run share one crawl and its request queue. A process leases the requests
that it handles. If it is killed, other processes get its requests after `lease_seconds`. Handled requests
stay handled, so a restarted process resumes the crawl. A new `run_id` starts a new crawl.

| Crawlee | stored as |
|---|---|
| request queue | the frontier of a run; `unique_key` identifies the item, and its payload is the request |
| dataset | a site; each item is a page, and the item's fields are the version of this page |
| key-value store | a site; each key is the id of a page, and its value is the version of this page |
| default and alias storages | part of the run |
| named storages | part of the site, shared by all its runs |

Differences from Crawlee's other storages:

- **`purge_on_start`** is ignored: the second process would delete the data of the first one. A second `run()`
  of one crawler purges the queue as always, for all processes; `purge_request_queue=False` does not.
- **State of a crawler**: `use_state`, other auto-saved values, statistics and the session pool are kept in
  memory by each process, and saved under the same keys. They cannot be merged. So a process does not
  overwrite a value that another one has saved since it read the value; it logs an error. Give the crawlers
  of several processes different `id`s. Two that save within the same milliseconds can still overwrite each
  other.
- **`host_delay` and `host_max_in_flight`**: the queue waits up to two seconds for a host that is due before
  it says that it is empty. It does not claim ahead with a `host_delay`.
- **Leases** can be lost while a handler runs, if its process is suspended. A storage client cannot cancel the
  handler, so the handler runs to its end, and its data is stored. Another process handles the request too.
- **Pushed items** are pushed again if the process is killed between the push and the end of its request, as
  with every storage of Crawlee. With `item_key="url"`, items with the same URL are versions of one page: the
  newest one replaces the others. Such a dataset is listed by the hash of that field, and `list_changes`
  returns every change.
- **Failed requests** without retries left become dead letters of the frontier. They count as handled.
- **Handled requests** are written in the background: `mark_request_as_handled` does not wait for it.
  `is_finished`, `get_metadata`, `get_request` and the end of the storage client do. The requests of a process
  that is killed before are handled again.
- **`forefront`** does not move a request that is pending already.
- **`was_already_handled`** can be False for a request that another process has handled in the meantime.
- **Requests** of more than 400 KB, compressed, cannot be stored: they are logged and returned as unprocessed.
- **Items and values** are JSON: a tuple comes back as a list, and a datetime as text.
- **Times in metadata** are those of this process, except `created_at`.
- **Deleted values** leave a tombstone until their store is dropped.
- **Dropped storages** are empty. One that is still open makes a new record when it is written to.
- **Event loops**: the storage client can be used in one `asyncio.run` after the other, in `async with` each
  time. Storages that were opened before have to be opened again.
- **Public URLs** are not supported.
"""

from ragcrawl_dynamo.adapters.crawlee.client import DynamoDBStorageClient
from ragcrawl_dynamo.adapters.crawlee.dataset import DynamoDBDatasetClient
from ragcrawl_dynamo.adapters.crawlee.key_value_store import DynamoDBKeyValueStoreClient
from ragcrawl_dynamo.adapters.crawlee.options import RequestQueueOptions
from ragcrawl_dynamo.adapters.crawlee.request_queue import DynamoDBRequestQueueClient

__all__ = [
    "DynamoDBDatasetClient",
    "DynamoDBKeyValueStoreClient",
    "DynamoDBRequestQueueClient",
    "DynamoDBStorageClient",
    "RequestQueueOptions",
]
