"""Decides which parts of a request are refused, for lack of capacity or because of a conflict."""

from __future__ import annotations

from typing import Any

from tests.support.aws.chance import Chance
from tests.support.aws.engine import Answer, error
from tests.support.aws.limits import Buckets, write_units
from tests.support.aws.settings import Settings
from tests.support.aws.tables import ItemLocks, Table
from tests.support.aws.writes import SINGLE_WRITES, Item, Write, partition_of, text_of

THROTTLED, CONFLICT = "ThrottlingError", "TransactionConflict"

_MESSAGES = {
    THROTTLED: "Throughput exceeds the current capacity of your table or index.",
    CONFLICT: "Transaction is ongoing for the item",
}


class Refusals:
    """Decides about requests, and charges the units of those that are not refused."""

    def __init__(self, chance: Chance, buckets: Buckets, locks: ItemLocks) -> None:
        self._chance = chance
        self._buckets = buckets
        self._locks = locks

    def of_writes(
        self, operation: str, writes: list[Write], tables: dict[str, Table], settings: Settings
    ) -> dict[int, str]:
        """Returns the parts of a request that are refused, with the reason of each; charges the others."""
        refused: dict[int, str] = {}
        is_transaction = operation == "TransactWriteItems"
        for i, write in enumerate(writes):
            if self._conflicts(operation, write, settings):
                refused[i] = CONFLICT
            elif not self._takes_write(write, tables[write.table], settings, factor=1 + is_transaction):
                refused[i] = THROTTLED
        return refused

    def _conflicts(self, operation: str, write: Write, settings: Settings) -> bool:
        """Returns whether a write meets another one (AWS: "Transaction conflict handling in DynamoDB")."""
        if operation == "TransactWriteItems":
            is_met = self._locks.is_held(write.id)
        elif operation in SINGLE_WRITES:
            is_met = self._locks.is_held(write.id, by_transaction=True)
        else:
            return False
        return is_met or self._chance.hits(settings.conflicts, f"conflict/{write.id[1].decode()}")

    def _takes_write(self, write: Write, table: Table, settings: Settings, factor: int) -> bool:
        if (limits := settings.limits) is None:
            return True
        partition = text_of(write.key[table.schema.keys[0]])
        buckets = [(write.table, partition)]
        of = write.id[1]
        for name, index in table.indexes.items():
            if write.touched is None or write.touched & {*index.keys}:
                buckets += [(f"{write.table}/{name}", key) for key in index.partitions(of, write.item)]
        if not all(self._buckets.has_room("write", *bucket, limits) for bucket in buckets):
            return False
        self._buckets.charge("write", *buckets[0], limits, factor * write_units(write.item))
        return True

    def charge_index(self, table: str, index: str, partitions: set[str], settings: Settings) -> None:
        """Charges the partitions of an index for an entry that changes."""
        if settings.limits is not None:
            for partition in partitions:
                self._buckets.charge("write", f"{table}/{index}", partition, settings.limits, 1)

    def charge_write(self, write: Write, table: Table, image: Item, settings: Settings) -> None:
        """Charges the rest of an update, whose units are known when it is done."""
        if settings.limits is not None and write.item is None:
            partition = text_of(write.key[table.schema.keys[0]])
            units = write_units(image) - 1
            self._buckets.charge("write", write.table, partition, settings.limits, units)

    def takes_read(self, name: str, partition: str | None, settings: Settings) -> bool:
        """Returns whether a key takes another read; a scan, which names no key, is not limited."""
        if settings.limits is None or partition is None:
            return True
        return self._buckets.has_room("read", name, partition, settings.limits)

    def charge_reads(self, name: str, partitions: list[str], answer: Answer, settings: Settings) -> None:
        """Charges keys for the units of a read, in equal parts."""
        if settings.limits is None or not partitions:
            return
        consumed = answer.body.get("ConsumedCapacity", [])
        parts = [consumed] if isinstance(consumed, dict) else consumed
        units = sum(part["CapacityUnits"] for part in parts) / len(partitions)
        for partition in partitions:
            self._buckets.charge("read", name, partition, settings.limits, units)

    def answer(self, operation: str, count: int, refused: dict[int, str]) -> Answer:
        """Makes the answer to a request that is refused as a whole.

        Args:
            operation: The operation.
            count: How many parts it has.
            refused: The parts that are refused, with their reasons.
        """
        if operation == "TransactWriteItems":
            reasons: list[Item] = [{"Code": "None"} for _ in range(count)]
            for i, code in refused.items():
                reasons[i] = {"Code": code, "Message": _MESSAGES[code]}
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = (
                f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            )
            return error("TransactionCanceledException", message, CancellationReasons=reasons)
        if CONFLICT in refused.values():
            return error("TransactionConflictException", _MESSAGES[CONFLICT])
        return self.throttled(operation)

    def throttled(self, operation: str) -> Answer:
        """Makes the error of a request that is throttled as a whole. On-demand tables have another one."""
        is_on_demand = self._chance.draw(f"throttled/{operation}") < 0.5
        code = "ThrottlingException" if is_on_demand else "ProvisionedThroughputExceededException"
        return error(code, _MESSAGES[THROTTLED])

    def statement_error(self, code: str, table: str) -> Item:
        """Makes the answer to one statement that is refused."""
        if code == THROTTLED and self._chance.draw("throttled/statement") < 0.5:
            code = "ProvisionedThroughputExceeded"
        return {
            "Error": {"Code": code, "Message": _MESSAGES.get(code, _MESSAGES[THROTTLED])},
            "TableName": table,
        }


def partition_of_read(operation: str, request: Item, table: Table) -> tuple[str, str | None]:
    """Returns the table or index that is read, and the value of its partition key; None for a scan."""
    name, keys = request["TableName"], table.schema.keys
    if (index := request.get("IndexName")) in table.schema.indexes:
        name, keys = f"{name}/{index}", table.schema.indexes[index]
    if operation == "GetItem":
        return name, text_of(request["Key"][keys[0]])
    return name, partition_of(request, keys[0])


def without(values: list[Any], left_out: dict[int, str]) -> list[Any]:
    """Returns the values at all other places."""
    return [value for i, value in enumerate(values) if i not in left_out]
