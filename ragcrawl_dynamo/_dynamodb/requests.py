"""Builds requests; reads by full key are strongly consistent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._dynamodb.expressions import AllOf, Compare, Condition, Placeholders, Update
from ragcrawl_dynamo._dynamodb.table import E, Index, Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.table_options import AWS_MANAGED_KEY, TableOptions

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import (
        AttributeDefinitionTypeDef,
        BatchGetItemInputTypeDef,
        BatchWriteItemInputTypeDef,
        CreateTableInputTypeDef,
        DeleteItemInputTypeDef,
        GetItemInputTypeDef,
        GlobalSecondaryIndexTypeDef,
        KeysAndAttributesTypeDef,
        KeySchemaElementTypeDef,
        LocalSecondaryIndexTypeDef,
        OnDemandThroughputTypeDef,
        PutItemInputTypeDef,
        QueryInputTypeDef,
        ScanInputTypeDef,
        TransactWriteItemsInputTypeDef,
        TransactWriteItemTypeDef,
        UpdateItemInputTypeDef,
        UpdateTableInputTypeDef,
        WarmThroughputTypeDef,
        WriteRequestTypeDef,
    )


@dataclass(frozen=True, slots=True)
class Query:
    """One listing of a partition; each page of it is a request.

    Attributes:
        table: The table.
        partition: The value of the partition key; of the index's partition key if an index is named.
        index: The name of an index, which returns keys only; a global one is eventually consistent.
        sort: A condition on the sort key.
        filter: A condition that the items that are read must meet to be returned.
        attributes: The names of the attributes to return; all by default.
        count: Whether to return the number of items only.
        forward: Whether to list ascending by sort key.
        consistent: Whether to read strongly consistent, for twice the read units; a global index cannot.
    """

    table: Table[Any]
    partition: str
    index: str | None = None
    sort: Condition | None = None
    filter: Condition | None = None
    attributes: Sequence[str] | None = None
    count: bool = False
    forward: bool = True
    consistent: bool = True

    @property
    def key_attributes(self) -> frozenset[str]:
        """The names of the attributes that a cursor of this listing needs."""
        of_index = self.table.index(self.index).key_attributes if self.index else ()
        return frozenset((*self.table.primary_key, *of_index))


def query_request(query: Query, *, limit: int | None = None, start: Key | None = None) -> QueryInputTypeDef:
    """Reads one page of a listing: at most `limit` items, after the key `start`."""
    index = query.table.index(query.index) if query.index else None
    to = Placeholders()
    conditions: list[Condition] = [
        Compare((index or query.table).partition_key, "=", {"S": query.partition}),
    ]
    if query.sort:
        conditions.append(query.sort)
    request: QueryInputTypeDef = {
        "TableName": query.table.name,
        "KeyConditionExpression": AllOf(conditions).render(to),
        "ScanIndexForward": query.forward,
        "ConsistentRead": query.consistent and (index is None or not index.is_global),
    }
    if query.index:
        request["IndexName"] = query.index
    if query.filter:
        request["FilterExpression"] = query.filter.render(to)
    if query.count:
        request["Select"] = "COUNT"
    elif query.attributes is not None:
        request["ProjectionExpression"] = ", ".join(map(to.path, query.attributes))
    if limit is not None:
        request["Limit"] = limit
    if start is not None:
        request["ExclusiveStartKey"] = start
    request["ExpressionAttributeNames"] = to.names
    request["ExpressionAttributeValues"] = to.values
    return request


def scan_request(
    table: Table[E], *, index: str | None = None, limit: int | None = None, start: Key | None = None
) -> ScanInputTypeDef:
    """Reads one page of a whole table or a global index; for small tables and migrations only."""
    request: ScanInputTypeDef = {"TableName": table.name, "ConsistentRead": index is None}
    if index is not None:
        request["IndexName"] = index
    if limit is not None:
        request["Limit"] = limit
    if start is not None:
        request["ExclusiveStartKey"] = start
    return request


def get_request(table: Table[E], key: Key) -> GetItemInputTypeDef:
    """Reads one item by full key."""
    return {"TableName": table.name, "Key": key, "ConsistentRead": True}


def put_request(table: Table[E], item: Item, condition: Condition | None = None) -> PutItemInputTypeDef:
    """Writes an item, in any case or if `condition` holds; a refusal returns the stored item."""
    request: PutItemInputTypeDef = {"TableName": table.name, "Item": item}
    if condition is not None:
        to = Placeholders()
        request["ConditionExpression"] = condition.render(to)
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        request["ExpressionAttributeNames"] = to.names
        if to.values:
            request["ExpressionAttributeValues"] = to.values
    return request


def delete_request(table: Table[E], key: Key, *, old: bool = False) -> DeleteItemInputTypeDef:
    """Deletes an item, if there is one; with `old`, the answer has that item."""
    request: DeleteItemInputTypeDef = {"TableName": table.name, "Key": key}
    if old:
        request["ReturnValues"] = "ALL_OLD"
    return request


def update_request(
    table: Table[E], key: Key, update: Update, condition: Condition | None = None
) -> UpdateItemInputTypeDef:
    """Changes an item, if `condition` holds, and returns the new item; a refusal returns the stored one."""
    to = Placeholders()
    request: UpdateItemInputTypeDef = {
        "TableName": table.name,
        "Key": key,
        "UpdateExpression": update.render(to),
        "ReturnValues": "ALL_NEW",
    }
    if condition is not None:
        request["ConditionExpression"] = condition.render(to)
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    request["ExpressionAttributeNames"] = to.names
    if to.values:
        request["ExpressionAttributeValues"] = to.values
    return request


def transact_put(table: Table[E], item: Item, condition: Condition | None = None) -> TransactWriteItemTypeDef:
    """Returns a put as an element of a transaction."""
    return {"Put": put_request(table, item, condition)}


def transact_update(
    table: Table[E], key: Key, update: Update, condition: Condition
) -> TransactWriteItemTypeDef:
    """Returns an update as an element of a transaction; a refusal returns the stored item."""
    request: Any = update_request(table, key, update, condition)
    del request["ReturnValues"]
    return {"Update": request}


def transact_delete(table: Table[E], key: Key, condition: Condition) -> TransactWriteItemTypeDef:
    """Returns a delete as an element of a transaction; a refusal returns the stored item."""
    to = Placeholders()
    delete: Any = {
        **delete_request(table, key),
        "ConditionExpression": condition.render(to),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        "ExpressionAttributeNames": to.names,
        "ExpressionAttributeValues": to.values,
    }
    return {"Delete": delete}


def transaction_request(
    token: str, writes: Sequence[TransactWriteItemTypeDef]
) -> TransactWriteItemsInputTypeDef:
    """Does all of at most 100 writes, or none; the same token again within 10 minutes does nothing more."""
    return {"TransactItems": writes, "ClientRequestToken": token}


def batch_write_request(table: Table[E], writes: Sequence[WriteRequestTypeDef]) -> BatchWriteItemInputTypeDef:
    """Does at most 25 puts and deletes, independent of each other; their keys must differ."""
    return {"RequestItems": {table.name: writes}}


def batch_get_request(
    table: Table[E], keys: Sequence[Key], attributes: Sequence[str] | None = None
) -> BatchGetItemInputTypeDef:
    """Reads at most 100 items by full key, all or some of their attributes; the keys must differ."""
    wanted: KeysAndAttributesTypeDef = {"Keys": keys, "ConsistentRead": True}
    if attributes is not None:
        to = Placeholders()
        wanted["ProjectionExpression"] = ", ".join(map(to.path, (*table.primary_key, *attributes)))
        wanted["ExpressionAttributeNames"] = to.names
    return {"RequestItems": {table.name: wanted}}


def create_table_request(table: Table[E], config: DynamoDBConfig) -> CreateTableInputTypeDef:
    """Creates a table with all its indexes, and with the options that are set when it is created."""
    request: CreateTableInputTypeDef = {
        "TableName": table.name,
        "KeySchema": key_schema(table),
        "AttributeDefinitions": _attribute_definitions(table.key_attributes),
        "BillingMode": config.billing_mode,
        "DeletionProtectionEnabled": config.deletion_protection,
    }
    local: list[LocalSecondaryIndexTypeDef] = [
        {
            "IndexName": index.name,
            "KeySchema": key_schema(index),
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
        for index in table.indexes
        if not index.is_global
    ]
    if local:
        request["LocalSecondaryIndexes"] = local
    indexes = [_global_index(index, config) for index in table.indexes if index.is_global]
    if indexes:
        request["GlobalSecondaryIndexes"] = indexes
    _set_throughput(request, config)
    _set_options(request, config.tables)
    if config.tags:
        request["Tags"] = [{"Key": key, "Value": value} for key, value in config.tags.items()]
    return request


def create_index_request(
    table: Table[E], index: Index, defined: Sequence[AttributeDefinitionTypeDef], config: DynamoDBConfig
) -> UpdateTableInputTypeDef:
    """Adds one global index to a table that has the attribute definitions `defined` already.

    AWS needs the definitions of the new index only; moto forgets those that are not repeated.
    """
    known = {definition["AttributeName"] for definition in defined}
    return {
        "TableName": table.name,
        "AttributeDefinitions": [*defined, *_attribute_definitions(set(index.key_attributes) - known)],
        "GlobalSecondaryIndexUpdates": [{"Create": _global_index(index, config)}],
    }


def _global_index(index: Index, config: DynamoDBConfig) -> GlobalSecondaryIndexTypeDef:
    """Returns the definition of a global index."""
    definition: GlobalSecondaryIndexTypeDef = {
        "IndexName": index.name,
        "KeySchema": key_schema(index),
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }
    _set_throughput(definition, config)
    return definition


def key_schema(keyed: Table[E] | Index) -> list[KeySchemaElementTypeDef]:
    """Returns the keys of a table or an index."""
    schema: list[KeySchemaElementTypeDef] = [{"AttributeName": keyed.partition_key, "KeyType": "HASH"}]
    if keyed.sort_key is not None:
        schema.append({"AttributeName": keyed.sort_key, "KeyType": "RANGE"})
    return schema


def _attribute_definitions(names: Iterable[str]) -> list[AttributeDefinitionTypeDef]:
    """Defines key attributes, which all are strings."""
    return [{"AttributeName": name, "AttributeType": "S"} for name in sorted(names)]


def _set_throughput(
    definition: CreateTableInputTypeDef | GlobalSecondaryIndexTypeDef, config: DynamoDBConfig
) -> None:
    """Sets the capacity and the limits of a table or an index, as far as they differ from the defaults."""
    options = config.tables
    if config.billing_mode == "PROVISIONED":
        definition["ProvisionedThroughput"] = {
            "ReadCapacityUnits": config.read_capacity,
            "WriteCapacityUnits": config.write_capacity,
        }
    largest: OnDemandThroughputTypeDef = {}
    if options.on_demand_max_read is not None:
        largest["MaxReadRequestUnits"] = options.on_demand_max_read
    if options.on_demand_max_write is not None:
        largest["MaxWriteRequestUnits"] = options.on_demand_max_write
    if largest:
        definition["OnDemandThroughput"] = largest
    warm: WarmThroughputTypeDef = {}
    if options.warm_read is not None:
        warm["ReadUnitsPerSecond"] = options.warm_read
    if options.warm_write is not None:
        warm["WriteUnitsPerSecond"] = options.warm_write
    if warm:
        definition["WarmThroughput"] = warm


def _set_options(request: CreateTableInputTypeDef, options: TableOptions) -> None:
    """Sets the options of a table that differ from the defaults: local engines do not know all of them."""
    if options.kms_key is not None:
        request["SSESpecification"] = {"Enabled": True, "SSEType": "KMS"}
        # DynamoDB takes this key if none is named, and only then (AWS: SSESpecification).
        if options.kms_key != AWS_MANAGED_KEY:
            request["SSESpecification"]["KMSMasterKeyId"] = options.kms_key
    if options.table_class != "STANDARD":
        request["TableClass"] = options.table_class
    if options.stream_view is not None:
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": options.stream_view}


def put(item: Item) -> WriteRequestTypeDef:
    """Returns a put as an element of a batch."""
    return {"PutRequest": {"Item": item}}


def delete(key: Key) -> WriteRequestTypeDef:
    """Returns a deletion as an element of a batch."""
    return {"DeleteRequest": {"Key": key}}
