"""Names of attributes that items hold beside the fields of their models, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ragcrawl_dynamo._dynamodb.values import Item

# Epoch seconds after which DynamoDB may delete an item, in tables that have time to live.
EXPIRES_AT = "expires_at"

# A page's revision: the random name of its latest change. A commit changes the page as it was read.
REVISION = "revision"

# The order of a page's latest change in the change feed.
CHANGE_ORDER = "change_order"


def expiry(days: int | None, moment: datetime) -> Item:
    """When DynamoDB may delete an item, so many days after a moment, if ever."""
    if days is None:
        return {}
    return {EXPIRES_AT: {"N": str(int((moment + timedelta(days=days)).timestamp()))}}


def change_order(item: Mapping[str, Any]) -> int | None:
    """The order of a page's latest change, if its item has one."""
    return int(item[CHANGE_ORDER]["N"]) if CHANGE_ORDER in item else None
