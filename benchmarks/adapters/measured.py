"""Measures the crawl of a process, and prints the measurements as one line of JSON.

python -m benchmarks.adapters.crawl_scrapy URL,URL own FOLDER
python -m benchmarks.adapters.crawl_scrapy URL,URL dynamodb ENDPOINT PREFIX partiql
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import local_config

# Operations that read or write items. All others describe and create tables, once a process.
ITEM_OPERATIONS = {
    *("BatchGetItem", "GetItem", "Query", "Scan"),
    *("BatchExecuteStatement", "BatchWriteItem", "DeleteItem", "PutItem", "TransactWriteItems", "UpdateItem"),
}


def arguments() -> tuple[list[str], DynamoDBConfig | None, str]:
    """Returns the URLs, the settings of DynamoDB, and a folder.

    Without settings the crawler uses its own storage in the folder, or in memory if there is no folder.
    """
    _, urls, storage, location, *rest = sys.argv
    if storage != "dynamodb":
        return urls.split(","), None, location if storage == "own" else ""
    prefix, conditional_batches = rest
    return (
        urls.split(","),
        local_config(location, table_prefix=prefix, conditional_batches=conditional_batches),
        "",
    )


def measured(crawl: Callable[[], int]) -> None:
    """Runs a crawl, which returns its number of pages, and prints its measurements.

    Requests and units are those of items, not those of tables.
    """
    operations: Counter[str] = Counter()
    totals = {"requests": 0.0, "read_units": 0.0, "write_units": 0.0, "commit_units": 0.0}
    close = DynamoDBBackend.close

    async def close_measured(self: DynamoDBBackend) -> None:
        await close(self)
        for (operation, _), metrics in self.metrics().items():
            if operation in ITEM_OPERATIONS:
                operations[operation] += metrics.requests
                totals["requests"] += metrics.requests
                totals["read_units"] += metrics.read_units
                # DynamoDB Local counts 4 units for 1 KB in a transaction, where AWS's rule is 2.
                is_commit = operation == "TransactWriteItems"
                units = metrics.write_units * (0.5 if is_commit else 1.0)
                totals["write_units"] += units
                totals["commit_units"] += units if is_commit else 0.0

    DynamoDBBackend.close = close_measured  # type: ignore[method-assign] # reads the counters of every backend
    start, cpu_start = time.perf_counter(), time.process_time()
    pages = crawl()
    print(
        json.dumps(
            {
                "pages": pages,
                "seconds": time.perf_counter() - start,
                "cpu": time.process_time() - cpu_start,
                **totals,
                "operations": operations,
            }
        )
    )
