"""Saves a corpus with ragcrawl 0.0.2's own DynamoDB backend and prints its cost; runs in .venv-peers.

python benchmarks/peer_ragcrawl.py ENDPOINT CORPUS.json
"""

import json
import os
import sys
from datetime import datetime
from typing import Any

# pynamodb takes them from here alone.
os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}

from pynamodb.connection.base import Connection  # type: ignore[import-not-found,unused-ignore]
from ragcrawl.config.storage_config import (  # type: ignore[import-not-found,unused-ignore]
    DynamoDBConfig,
)
from ragcrawl.models.page import Page  # type: ignore[import-not-found,unused-ignore]
from ragcrawl.models.page_version import (  # type: ignore[import-not-found,unused-ignore]
    PageVersion,
)
from ragcrawl.storage.dynamodb import models  # type: ignore[import-not-found,unused-ignore]
from ragcrawl.storage.dynamodb.backend import (  # type: ignore[import-not-found,unused-ignore]
    DynamoDBBackend,
)

units = 0.0


def count_units() -> None:
    """Adds up the capacity units of every answer."""
    original = Connection._make_api_call

    def counted(self: Any, operation: str, arguments: dict[str, Any], *rest: Any) -> Any:
        global units
        answer = original(self, operation, arguments, *rest)
        units += answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)
        return answer

    Connection._make_api_call = counted


def main(endpoint: str, corpus: str) -> None:
    """Saves each version and its page, then reads each current version."""
    backend = DynamoDBBackend(DynamoDBConfig(table_prefix="peer", endpoint_url=endpoint))
    for model in (
        models.SiteModel,
        models.CrawlRunModel,
        models.PageModel,
        models.PageVersionModel,
        models.FrontierItemModel,
    ):
        # Its tables cannot be made otherwise: its indexes have no provisioned capacity.
        model.Meta.billing_mode = "PAY_PER_REQUEST"
    backend.initialize()
    count_units()
    with open(corpus) as file:
        pairs = json.load(file)
    stored, lost = [], 0
    for version, page in pairs:
        for name in ("crawled_at", "created_at"):
            version[name] = datetime.fromisoformat(version[name])
        for name in ("first_seen", "last_seen", "last_crawled", "last_changed"):
            page[name] = page[name] and datetime.fromisoformat(page[name])
        try:
            backend.save_version(PageVersion(**version))
            backend.save_page(Page(**page))
            stored.append(page["page_id"])
        except Exception:
            lost += 1
    written = units
    for page_id in stored:
        backend.get_current_version(page_id)
    print(json.dumps({"write": written, "read": units - written, "stored": len(stored), "lost": lost}))


if __name__ == "__main__":
    main(*sys.argv[1:])
