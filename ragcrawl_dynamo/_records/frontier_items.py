"""Saves and reads frontier items as plain records, past the queue."""

from __future__ import annotations

from datetime import datetime

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.coalescing import Puts
from ragcrawl_dynamo._dynamodb.codec import from_item, to_sized_item
from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Exists,
    Missing,
    Path,
    Update,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import Slice, delete_partition, read_slice
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Value, encode_value
from ragcrawl_dynamo._schema.attributes import EXPIRES_AT, expiry
from ragcrawl_dynamo._schema.keys import (
    control_key,
    frontier_key,
    hosts_partition,
    items_partitions,
    members_partition,
    records_partition,
)
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.errors import ConditionFailedError, InvalidArgumentError, NotFoundError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus


class FrontierItemStore:
    """Key `{digit}#{run_id}` / `{item_id}`; final items may have a time to live."""

    def __init__(self, gateway: Gateway, table: Table[FrontierItem], clock: Clock) -> None:
        self._gateway = gateway
        self._table = table
        self._clock = clock
        self._puts = Puts(gateway, table)

    async def close(self) -> None:
        """Sends the writes that are still waiting."""
        await self._puts.close()

    async def save(self, item: FrontierItem) -> None:
        """Saves an item, and replaces a stored one with the same key."""
        check_kind("item", item, FrontierItem)
        extra = self._expiry(item.completed_at or self._clock.now()) if item.status.is_final else {}
        await self._puts.put(*to_sized_item(self._table, item, extra))

    async def get_items(
        self, run_id: str, status: FrontierStatus | str | None, limit: int, cursor: str | None
    ) -> Slice[FrontierItem]:
        """Returns a slice of a run's items; with a status it may read the whole run."""
        conditions = [_is_kept(self._clock.now())]
        if status is not None:
            conditions.append(Compare("status", "=", {"S": _checked(status)}))
        first, *more = (
            Query(self._table, partition, filter=AllOf(conditions)) for partition in items_partitions(run_id)
        )
        return await read_slice(self._gateway, first, self._decode, limit=limit, cursor=cursor, more=more)

    async def update_status(
        self, run_id: str, item_id: str, status: FrontierStatus | str, error: str | None
    ) -> FrontierItem:
        """Sets the status of an item and the times that follow from it; returns the updated item."""
        new_status = _checked(status)
        now = self._clock.now()
        moment = encode_value(now, model="FrontierItem", field="completed_at")
        put: dict[Path, Value] = {"status": {"S": new_status}}
        # The item leaves the queue, and its lease ends.
        remove = ["queue", "queue_order", "lease_expires_at"]
        if error is not None:
            put["last_error"] = encode_value(error, model="FrontierItem", field="last_error")
        if new_status.is_final:
            put["completed_at"] = moment
            put.update(self._expiry(now))
        else:
            remove += ["completed_at", EXPIRES_AT]
            if new_status is FrontierStatus.IN_PROGRESS:
                put["started_at"] = moment
            else:
                remove.append("started_at")
        request = requests.update_request(
            self._table,
            frontier_key(run_id, item_id),
            Update(put=put, remove=remove),
            Exists(self._table.partition_key),
        )
        try:
            response = await self._gateway.call("UpdateItem", request)
        except ConditionFailedError:
            raise NotFoundError(
                f"frontier item {item_id!r} of run {run_id!r} does not exist: create it with "
                f"save_frontier_item()"
            ) from None
        return self._decode(response["Attributes"])

    async def clear(self, run_id: str, site_id: str | None = None) -> int:
        """Deletes the items of a run and the records of its queue.

        Args:
            run_id: The run.
            site_id: Only deletes what belongs to this site; None for all sites.

        Returns:
            How many items were deleted.
        """
        of_site = None if site_id is None else Compare("site_id", "=", {"S": site_id})
        deleted = 0
        for partition in items_partitions(run_id):
            query = Query(self._table, partition, filter=of_site)
            deleted += await delete_partition(self._gateway, query)
        # The control last: it says how many buckets there are.
        response = await self._gateway.call("GetItem", requests.get_request(self._table, control_key(run_id)))
        # The hosts of a run of schema version 1, whose control does not say so, have one bucket.
        buckets = int(response["Item"].get("buckets", {"N": "1"})["N"]) if "Item" in response else 0
        hosts = [hosts_partition(run_id, bucket) for bucket in range(buckets)]
        for partition in (*hosts, members_partition(run_id), records_partition(run_id)):
            await delete_partition(self._gateway, Query(self._table, partition, filter=of_site))
        return deleted

    def _expiry(self, completed_at: datetime) -> dict[str, Value]:
        return expiry(self._gateway.config.frontier_ttl_days, completed_at)

    def _decode(self, item: Item) -> FrontierItem:
        return from_item(self._table, item)


def _is_kept(now: datetime) -> Condition:
    """The condition that an item has not expired."""
    # DynamoDB deletes an expired item within days, not at once (AWS: "Using time to live").
    return AnyOf((Missing(EXPIRES_AT), Compare(EXPIRES_AT, ">", {"N": str(int(now.timestamp()))})))


def _checked(status: FrontierStatus | str) -> FrontierStatus:
    try:
        return FrontierStatus(status)
    except ValueError:
        allowed = ", ".join(FrontierStatus)
        raise InvalidArgumentError("status", f"must be one of {allowed}, not {status!r}") from None
