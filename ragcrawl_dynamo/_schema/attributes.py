"""Names the attributes that items hold beside the fields of their models, and reads and builds them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ragcrawl_dynamo._dynamodb.values import Item

# The seconds since 1970 after which DynamoDB may delete an item, in tables with a time to live.
EXPIRES_AT = "expires_at"

# The revision of a page: a random name for its latest update. A commit is refused if the revision is no
# longer the one that it read.
REVISION = "revision"

# The order of a page's latest change in the change feed: a number that grows with each change of the page.
CHANGE_ORDER = "change_order"

# The HTTP status of the fetch by which a frontier item became final.
OUTCOME_STATUS = "outcome_status"


def expiry(days: int | None, moment: datetime) -> Item:
    """Returns the attribute that lets DynamoDB delete an item `days` after a moment; nothing for None."""
    if days is None:
        return {}
    return {EXPIRES_AT: {"N": str(int((moment + timedelta(days=days)).timestamp()))}}


def change_order(item: Mapping[str, Any]) -> int | None:
    """Returns the order of a page's latest change; None if no change was logged."""
    return int(item[CHANGE_ORDER]["N"]) if CHANGE_ORDER in item else None
