"""What the crawls of the three crawlers share: a process measures its crawl, and prints one line of JSON.

python -m benchmarks.adapters.crawl_scrapy URL own FOLDER
python -m benchmarks.adapters.crawl_scrapy URL dynamodb ENDPOINT PREFIX partiql
"""

import json
import sys
import time
from collections.abc import Callable

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo._dynamodb.metrics import READS, WRITES
from ragcrawl_dynamo.testing import local_config


def arguments() -> tuple[str, DynamoDBConfig | None, str]:
    """The URL, the settings of DynamoDB or None for the crawler's own storage, and a folder for that."""
    _, url, storage, place, *rest = sys.argv
    if storage == "own":
        return url, None, place
    prefix, way = rest
    return url, local_config(place, table_prefix=prefix, conditional_batches=way), ""


def measured(crawl: Callable[[], int]) -> None:
    """Runs a crawl, which returns how many pages there were, and prints what they took.

    Requests and units are those of data: tables are described and made once a process.
    """
    found = {"requests": 0.0, "read_units": 0.0, "write_units": 0.0, "commit_units": 0.0}
    close = DynamoDBBackend.close

    async def close_measured(self: DynamoDBBackend) -> None:
        await close(self)
        for (operation, _), counted in self.metrics().items():
            if operation in READS | WRITES:
                found["requests"] += counted.requests
                found["read_units"] += counted.read_units
                # DynamoDB Local counts 4 units for 1 KB in a transaction, where AWS's rule is 2.
                in_commits = operation == "TransactWriteItems"
                units = counted.write_units * (0.5 if in_commits else 1.0)
                found["write_units"] += units
                found["commit_units"] += units if in_commits else 0.0

    DynamoDBBackend.close = close_measured  # type: ignore[method-assign] # to look at each one's counters
    began, cpu = time.perf_counter(), time.process_time()
    pages = crawl()
    print(
        json.dumps(
            {
                "pages": pages,
                "seconds": time.perf_counter() - began,
                "cpu": time.process_time() - cpu,
                **found,
            }
        )
    )
