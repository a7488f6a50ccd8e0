"""Stores the requests of Scrapy spiders in DynamoDB, and their items as pages.

It needs the extra `scrapy`, Scrapy 2.13 or later, and the asyncio reactor. Add it to the settings:

    ADDONS = {"ragcrawl_dynamo.adapters.scrapy.Addon": 500}
    RAGCRAWL_DYNAMO_RUN_ID = "monday"

The add-on installs a scheduler, which keeps requests in the frontier of a run; a duplicate filter, because
the frontier filters duplicates; and an item pipeline, which commits items with a `url` as pages.

All processes with the same site and run share one crawl. A process leases the requests that it crawls. If it
is killed, other processes crawl its requests after the lease has ended. Finished requests stay finished, so a
restarted process resumes the crawl. A new run id starts a new crawl.

| setting | meaning | default |
|---|---|---|
| RAGCRAWL_DYNAMO_CONFIG | a DynamoDBConfig, a dict of its fields, or that as JSON | from the environment |
| RAGCRAWL_DYNAMO_SITE_ID | the site that is crawled | the spider's name |
| RAGCRAWL_DYNAMO_RUN_ID | the run of this site | none, it is required |
| RAGCRAWL_DYNAMO_LEASE_SECONDS | seconds until others get the requests of a killed process | 60 |
| RAGCRAWL_DYNAMO_ERROR_ATTEMPTS | how often a request is crawled that ends with an error | 1 |
| RAGCRAWL_DYNAMO_HOST_DELAY | seconds between requests to a host, by all processes | DOWNLOAD_DELAY |
| RAGCRAWL_DYNAMO_HOST_MAX_IN_FLIGHT | requests to a host at a time, by all processes | no limit |
| RAGCRAWL_DYNAMO_PREFETCH | requests that are claimed ahead | twice CONCURRENT_REQUESTS |

Settings may be text, as `scrapy crawl -s` passes them. Settings of the project itself stay: with
`ITEM_PIPELINES = {"ragcrawl_dynamo.adapters.scrapy.PagePipeline": None}` no item is stored, and with another
number the pipeline has another place. The commands `scrapy shell`, `fetch`, `parse`, `check` and `bench` do
not use DynamoDB.

A request is completed after its callback has ended, the pipelines have processed its items, and its new
requests are stored. A request fails if its download fails, if its last response has one of RETRY_HTTP_CODES,
if its callback raises, or if a pipeline raises for one of its items. It becomes a dead letter, which
`requeue_failed` puts back; as in Scrapy itself, it is not crawled again, unless
RAGCRAWL_DYNAMO_ERROR_ATTEMPTS says so. A request is crawled again, up to `frontier_max_attempts` times in
all, if its process was killed, or if DynamoDB did not take an item. A request that a downloader middleware
refuses, for example because of robots.txt, is skipped.

Delays: the frontier spaces the requests to a host over all processes, by DOWNLOAD_DELAY, the spider's
`download_delay`, or the delay that DOWNLOAD_SLOTS has for the name of the host. The downloader of each
process keeps its delay too, for retries, and does not vary it at random, unless the project sets
DOWNLOAD_DELAY_JITTER. The two delays are not added. AutoThrottle, CONCURRENT_REQUESTS_PER_DOMAIN, the
concurrency of a slot, and slots that `download_slot` names work in each process, as in Scrapy.

Differences from Scrapy's own scheduler:

- **Order.** Of one priority, the oldest request comes first, over several hosts. Scrapy's default is the
  youngest one.
- **Requests that cannot be stored** stay in the memory of their process, as with Scrapy's JOBDIR, and are
  lost with it. They are over 400 KB, their URL is not http(s), their callbacks are not methods of the spider,
  or their `meta` or `cb_kwargs` hold something else than None, bools, numbers, text, bytes, datetimes, and
  lists, tuples, sets and dicts of these. The stat `scheduler/unserializable` counts them.
- **Start requests** are filtered like all others, although Scrapy sets `dont_filter` for them. Otherwise
  every process would crawl them.
- **Redirects** are requests of their own: the frontier filters them, so that a page to which many links
  redirect is fetched once. Retries, and redirects of requests that are not filtered, stay under the lease of
  their request, in its process.
- **DUPEFILTER_CLASS**: a filter that the project sets is asked first; requests that pass it are filtered by
  the frontier too. `BaseDupeFilter` itself turns filtering off, except for start requests. The frontier knows
  of a duplicate only after a moment: `request_dropped`, the log and `dupefilter/filtered` come then.
- **JOBDIR** keeps the state of the spider, and no requests.
- **Debug logs** of the client of DynamoDB are off unless the level of their loggers is set.
- **Leases** can be lost while a request is crawled, if its process is suspended. Another process crawls the
  request too.
"""

from ragcrawl_dynamo.adapters.scrapy.addon import Addon
from ragcrawl_dynamo.adapters.scrapy.dupefilter import FrontierDupeFilter
from ragcrawl_dynamo.adapters.scrapy.middleware import FrontierMiddleware
from ragcrawl_dynamo.adapters.scrapy.pipeline import PagePipeline
from ragcrawl_dynamo.adapters.scrapy.scheduler import FrontierScheduler

__all__ = ["Addon", "FrontierDupeFilter", "FrontierMiddleware", "FrontierScheduler", "PagePipeline"]
