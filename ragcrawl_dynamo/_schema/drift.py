"""Compares a table with the settings: the table may be older, or may have been changed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.autoscaling import ScaledCapacity, Scaling, scaled_capacities
from ragcrawl_dynamo._schema.table_check import index_names, schema_differences
from ragcrawl_dynamo.config import DynamoDBConfig

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TableDescriptionTypeDef, TimeToLiveDescriptionTypeDef

# The name of an option, its value in DynamoDB, and its value in the settings.
_Option: TypeAlias = tuple[str, object, object]

# The states of a key or a time to live that is in use, or about to be.
_ON = frozenset({"ENABLED", "ENABLING", "UPDATING"})


@dataclass(frozen=True, slots=True)
class FoundTable:
    """The state of an existing table, as AWS describes it.

    Attributes:
        description: DynamoDB's description.
        time_to_live: DynamoDB's description of its time to live; None if it is not known.
        has_recovery: Whether point-in-time recovery is on; None if it is not known.
        scaling: The capacities that are scaled, of this table and of others; None if they are not known.
    """

    description: TableDescriptionTypeDef
    time_to_live: TimeToLiveDescriptionTypeDef | None
    has_recovery: bool | None
    scaling: Scaling | None

    @property
    def billing_mode(self) -> str:
        """The billing mode. DynamoDB gives none for a table that is PROVISIONED."""
        return self.description.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")


def differences(table: Table[Any], config: DynamoDBConfig, existing: FoundTable) -> Iterator[str]:
    """Yields the differences between a table and the settings, one line for each."""
    for sentence in schema_differences(table, existing.description):
        yield f"{table.name}: {sentence}"
    yield from _lines(table.name, _table_options(table, config, existing))
    yield from _lines(table.name, _throughput_options(existing.description, config, existing.billing_mode))
    for index in existing.description.get("GlobalSecondaryIndexes", []):
        if index["IndexName"] in {known.name for known in table.indexes}:
            where = f"{table.name}, index {index['IndexName']}"
            yield from _lines(where, _throughput_options(index, config, existing.billing_mode))
    if existing.scaling is not None:
        for capacity in scaled_capacities(table, config):
            scaled = existing.scaling.get(capacity.key)
            actual = None if scaled is None else _scaling_text(scaled)
            option = f"auto scaling of {capacity.dimension.rpartition(':')[2]}"
            yield from _lines(_where(capacity), [(option, actual, _scaling_text(capacity))])


def _table_options(table: Table[Any], config: DynamoDBConfig, existing: FoundTable) -> Iterator[_Option]:
    """Yields the options that a table has once."""
    description, options = existing.description, config.tables
    present = index_names(description)
    needed = {index.name for index in table.indexes if index.is_global}
    for name in sorted(present ^ needed):
        is_there = name in present
        yield f"index {name}", "there" if is_there else "missing", f"it is {'not ' if is_there else ''}needed"
    yield "billing_mode", existing.billing_mode, config.billing_mode
    yield "tables.kms_key", *_keys(description, options.kms_key)
    table_class = description.get("TableClassSummary", {}).get("TableClass", "STANDARD")
    yield "tables.table_class", table_class, options.table_class
    stream = description.get("StreamSpecification", {"StreamEnabled": False})
    view = stream.get("StreamViewType") if stream.get("StreamEnabled") else None
    yield "tables.stream_view", view, options.stream_view
    is_protected = description.get("DeletionProtectionEnabled", False)
    yield "deletion_protection", is_protected, config.deletion_protection
    if existing.has_recovery is not None:
        yield "point_in_time_recovery", existing.has_recovery, config.point_in_time_recovery
    if existing.time_to_live is not None:
        is_on = existing.time_to_live.get("TimeToLiveStatus") in _ON
        attribute = existing.time_to_live.get("AttributeName") if is_on else None
        wanted = table.expires_by(config)
        yield f"time to live ({table.ttl_setting})", _expiry_text(attribute), _expiry_text(wanted)


def _keys(description: TableDescriptionTypeDef, wanted: str | None) -> tuple[str | None, str | None]:
    """Returns the key of a table and the key of the settings; equal ones if they may be the same key."""
    encryption = description.get("SSEDescription", {})
    actual = encryption.get("KMSMasterKeyArn", "KMS") if encryption.get("Status") in _ON else None
    if wanted is None or actual is None:
        return actual, wanted
    # DynamoDB gives the ARN of the key. Only KMS knows which key an alias names.
    is_alias = "alias/" in wanted
    if is_alias or actual.rpartition("/")[2] == wanted.rpartition("/")[2]:
        return wanted, wanted
    return actual, wanted


def _throughput_options(definition: Any, config: DynamoDBConfig, billing_mode: str) -> Iterator[_Option]:
    """Yields the capacity and the limits of a table or an index."""
    options = config.tables
    warm = definition.get("WarmThroughput", {})
    largest = definition.get("OnDemandThroughput", {})
    capacity = definition.get("ProvisionedThroughput", {})
    for kind in ("read", "write"):
        way = kind.title()
        least: int | None = getattr(options, f"warm_{kind}")
        warmth: int | None = warm.get(f"{way}UnitsPerSecond")
        # It grows with the traffic. Engines that do not know it say nothing.
        if least is not None and warmth is not None and warmth < least:
            yield f"tables.warm_{kind}", warmth, least
        # Options of the other billing mode follow from that difference.
        if billing_mode != config.billing_mode:
            continue
        if billing_mode == "PROVISIONED":
            actual = capacity.get(f"{way}CapacityUnits")
            smallest: int = getattr(config, f"{kind}_capacity")
            limit: int | None = getattr(options, f"autoscaling_max_{kind}")
            if limit is None:
                yield f"{kind}_capacity", actual, smallest
            elif actual is None or not smallest <= actual <= limit:
                yield f"{kind}_capacity", actual, f"{smallest:,} to {limit:,}"
        else:
            # DynamoDB says -1 for no limit (AWS: OnDemandThroughput).
            units = largest.get(f"Max{way}RequestUnits", -1)
            yield (
                f"tables.on_demand_max_{kind}",
                None if units == -1 else units,
                getattr(options, f"on_demand_max_{kind}"),
            )


def _where(capacity: ScaledCapacity) -> str:
    return capacity.resource.removeprefix("table/").replace("/index/", ", index ")


def _scaling_text(capacity: ScaledCapacity) -> str:
    target = "without a target" if capacity.target is None else f"at {capacity.target:g} %"
    return f"{capacity.smallest:,} to {capacity.largest:,} {target}"


def _expiry_text(attribute: str | None) -> str:
    return "off" if attribute is None else f"on by {attribute}"


def _lines(where: str, options: Any) -> Iterator[str]:
    """Yields a line for each option whose two values differ."""
    for name, actual, wanted in options:
        if actual != wanted:
            yield f"{where}: {name} is {_text(actual)}, the settings say {_text(wanted)}"


def _text(value: object) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            return "on" if value else "off"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
