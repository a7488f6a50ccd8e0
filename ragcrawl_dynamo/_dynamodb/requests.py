"""Pure builders of the requests that the stores send; reads by full key are strongly consistent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._dynamodb.expressions import AllOf, Compare, Condition, Placeholders, Update
from ragcrawl_dynamo._dynamodb.table import E, Index, Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo.config import DynamoDBConfig

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
        ProvisionedThroughputTypeDef,
        PutItemInputTypeDef,
        QueryInputTypeDef,
        ScanInputTypeDef,
        TransactWriteItemsInputTypeDef,
        TransactWriteItemTypeDef,
        UpdateItemInputTypeDef,
        UpdateTableInputTypeDef,
        WriteRequestTypeDef,
    )


@dataclass(frozen=True, slots=True)
class Query:
    """One listing of a partition, of which each page is a request of its own.

    Attributes:
        table: The table.
        partition: Value of the partition key, of the index's where one is named.
        index: Name of an index, which returns keys only; a global one is eventually consistent.
        sort: Condition on the sort key.
        filter: Condition that read items must meet to be returned.
        attributes: Names of the attributes to return; all by default.
        count: Return the number of items only.
        forward: Ascending by sort key.
        consistent: Strongly consistent, for twice the read units; a global index never is.
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
        """Names of the attributes that mark a place in this listing."""
        own = self.table.index(self.index).key_attributes if self.index else ()
        return frozenset((*self.table.primary_key, *own))


def query_request(query: Query, *, limit: int | None = None, start: Key | None = None) -> QueryInputTypeDef:
    """One page of a listing: at most `limit` items read, after the key `start`."""
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


def scan_request(table: Table[E], *, limit: int | None = None, start: Key | None = None) -> ScanInputTypeDef:
    """One page of a whole table; only the sites are listed so, and migrations read so."""
    request: ScanInputTypeDef = {"TableName": table.name, "ConsistentRead": True}
    if limit is not None:
        request["Limit"] = limit
    if start is not None:
        request["ExclusiveStartKey"] = start
    return request


def get_request(table: Table[E], key: Key) -> GetItemInputTypeDef:
    """One item by full key."""
    return {"TableName": table.name, "Key": key, "ConsistentRead": True}


def put_request(table: Table[E], item: Item, condition: Condition | None = None) -> PutItemInputTypeDef:
    """Writes an item over whatever is there, or only if `condition` holds; a refusal has it as it was."""
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
    """Removes an item, if there is one; with `old`, the answer has what was there."""
    request: DeleteItemInputTypeDef = {"TableName": table.name, "Key": key}
    if old:
        request["ReturnValues"] = "ALL_OLD"
    return request


def update_request(table: Table[E], key: Key, update: Update, condition: Condition) -> UpdateItemInputTypeDef:
    """Changes an item if `condition` holds and returns it as it is then; a refusal has it as it was."""
    to = Placeholders()
    request: UpdateItemInputTypeDef = {
        "TableName": table.name,
        "Key": key,
        "UpdateExpression": update.render(to),
        "ConditionExpression": condition.render(to),
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    request["ExpressionAttributeNames"] = to.names
    if to.values:
        request["ExpressionAttributeValues"] = to.values
    return request


def transact_put(table: Table[E], item: Item, condition: Condition | None = None) -> TransactWriteItemTypeDef:
    """A put as an element of a transaction."""
    return {"Put": put_request(table, item, condition)}


def transact_update(
    table: Table[E], key: Key, update: Update, condition: Condition
) -> TransactWriteItemTypeDef:
    """An update as an element of a transaction; a refusal has the item as it was."""
    request: Any = update_request(table, key, update, condition)
    del request["ReturnValues"]
    return {"Update": request}


def transaction_request(
    token: str, writes: Sequence[TransactWriteItemTypeDef]
) -> TransactWriteItemsInputTypeDef:
    """All of at most 100 writes, or none; once, though sent again with the same token within 10 minutes."""
    return {"TransactItems": writes, "ClientRequestToken": token}


def batch_write_request(table: Table[E], writes: Sequence[WriteRequestTypeDef]) -> BatchWriteItemInputTypeDef:
    """At most 25 puts and deletes, each for itself; their keys must differ."""
    return {"RequestItems": {table.name: writes}}


def batch_get_request(
    table: Table[E], keys: Sequence[Key], attributes: Sequence[str] | None = None
) -> BatchGetItemInputTypeDef:
    """At most 100 items by full key, all or some of their attributes; the keys must differ."""
    wanted: KeysAndAttributesTypeDef = {"Keys": keys, "ConsistentRead": True}
    if attributes is not None:
        to = Placeholders()
        wanted["ProjectionExpression"] = ", ".join(map(to.path, (*table.primary_key, *attributes)))
        wanted["ExpressionAttributeNames"] = to.names
    return {"RequestItems": {table.name: wanted}}


def create_table_request(table: Table[E], config: DynamoDBConfig) -> CreateTableInputTypeDef:
    """A table with all its indexes, tagged and protected as configured."""
    request: CreateTableInputTypeDef = {
        "TableName": table.name,
        "KeySchema": key_schema(table),
        "AttributeDefinitions": _attribute_definitions(table.key_attributes),
        "BillingMode": config.billing_mode,
        "DeletionProtectionEnabled": config.deletion_protection,
    }
    local: list[LocalSecondaryIndexTypeDef] = [
        {"IndexName": each.name, "KeySchema": key_schema(each), "Projection": {"ProjectionType": "KEYS_ONLY"}}
        for each in table.indexes
        if not each.is_global
    ]
    if local:
        request["LocalSecondaryIndexes"] = local
    indexes = [_global_index(each, config) for each in table.indexes if each.is_global]
    if indexes:
        request["GlobalSecondaryIndexes"] = indexes
    if config.billing_mode == "PROVISIONED":
        request["ProvisionedThroughput"] = _throughput(config)
    if config.tags:
        request["Tags"] = [{"Key": key, "Value": value} for key, value in config.tags.items()]
    return request


def create_index_request(
    table: Table[E], index: Index, defined: Sequence[AttributeDefinitionTypeDef], config: DynamoDBConfig
) -> UpdateTableInputTypeDef:
    """Adds one global index to a table that exists and has `defined` already.

    AWS needs the definitions of the new index only; moto forgets those that are not repeated.
    """
    known = {each["AttributeName"] for each in defined}
    return {
        "TableName": table.name,
        "AttributeDefinitions": [*defined, *_attribute_definitions(set(index.key_attributes) - known)],
        "GlobalSecondaryIndexUpdates": [{"Create": _global_index(index, config)}],
    }


def _global_index(index: Index, config: DynamoDBConfig) -> GlobalSecondaryIndexTypeDef:
    """The definition of a global index."""
    definition: GlobalSecondaryIndexTypeDef = {
        "IndexName": index.name,
        "KeySchema": key_schema(index),
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }
    if config.billing_mode == "PROVISIONED":
        definition["ProvisionedThroughput"] = _throughput(config)
    return definition


def key_schema(keyed: Table[E] | Index) -> list[KeySchemaElementTypeDef]:
    """The keys of a table or an index."""
    schema: list[KeySchemaElementTypeDef] = [{"AttributeName": keyed.partition_key, "KeyType": "HASH"}]
    if keyed.sort_key is not None:
        schema.append({"AttributeName": keyed.sort_key, "KeyType": "RANGE"})
    return schema


def _attribute_definitions(names: Iterable[str]) -> list[AttributeDefinitionTypeDef]:
    """Key attributes, every one a string."""
    return [{"AttributeName": name, "AttributeType": "S"} for name in sorted(names)]


def _throughput(config: DynamoDBConfig) -> ProvisionedThroughputTypeDef:
    return {"ReadCapacityUnits": config.read_capacity, "WriteCapacityUnits": config.write_capacity}


def put(item: Item) -> WriteRequestTypeDef:
    """An item to write, as an element of a batch."""
    return {"PutRequest": {"Item": item}}


def delete(key: Key) -> WriteRequestTypeDef:
    """An item to remove, as an element of a batch."""
    return {"DeleteRequest": {"Key": key}}
