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
| RAGCRAWL_DYNAMO_CONFIG | a DynamoDBConfig, or a dict of its fields | from the environment |
| RAGCRAWL_DYNAMO_SITE_ID | the site that is crawled | the spider's name |
| RAGCRAWL_DYNAMO_RUN_ID | the run of this site | none, it is required |
| RAGCRAWL_DYNAMO_LEASE_SECONDS | seconds until others get the requests of a killed process | 60 |
| RAGCRAWL_DYNAMO_HOST_DELAY | seconds between requests to a host, by all processes | DOWNLOAD_DELAY |
| RAGCRAWL_DYNAMO_HOST_MAX_IN_FLIGHT | requests to a host at a time, by all processes | no limit |
| RAGCRAWL_DYNAMO_PREFETCH | requests that are claimed ahead | twice CONCURRENT_REQUESTS |

A request is completed after its callback has ended, the pipelines have processed its items, and its new
requests are stored. A request fails if its download fails, if its last response has one of RETRY_HTTP_CODES,
if its callback raises, or if a pipeline raises for one of its items. Any process tries a failed request again
later; after `frontier_max_attempts` it becomes a dead letter. A request that a downloader middleware refuses,
for example because of robots.txt, is skipped.

What differs from Scrapy's own scheduler:

- **Order.** Of one priority, the oldest request comes first, over several hosts. Scrapy's default is the
  youngest one.
- **Requests that cannot be stored** stay in the memory of their process, as with Scrapy's JOBDIR. Their
  callbacks are not methods of the spider, or their `meta` or `cb_kwargs` hold something else than None,
  bools, numbers, text, bytes, datetimes, and lists, tuples, sets and dicts of these.
- **Start requests** are filtered like all others, although Scrapy sets `dont_filter` for them. Otherwise
  every process would crawl them.
- **DUPEFILTER_CLASS** gets no requests. `enqueue_request` returns True for duplicates; the stat
  `dupefilter/filtered` counts them.
- **Retries and redirects** by Scrapy's own middlewares stay in their process, under the same lease.
- **Debug logs** of botocore are off unless their level is set, because Scrapy has all messages made and drops
  them later.
- **Leases** can be lost while a request is crawled, if its process is suspended. Another process crawls the
  request too.
"""

from ragcrawl_dynamo.adapters.scrapy.addon import Addon
from ragcrawl_dynamo.adapters.scrapy.dupefilter import FrontierDupeFilter
from ragcrawl_dynamo.adapters.scrapy.middleware import FrontierMiddleware
from ragcrawl_dynamo.adapters.scrapy.pipeline import PagePipeline
from ragcrawl_dynamo.adapters.scrapy.scheduler import FrontierScheduler

__all__ = ["Addon", "FrontierDupeFilter", "FrontierMiddleware", "FrontierScheduler", "PagePipeline"]
