"""Request builders are pure, and never put a user's value into an expression."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import DynamoDBConfig, TableOptions
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    BeginsWith,
    Between,
    Compare,
    Condition,
    Exists,
    Missing,
    Update,
)
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._schema.tables import PAGES, RUNS, VERSIONS, Tables

names = st.text(min_size=1, max_size=8)
values = st.text(max_size=8).map(lambda text: {"S": text})
conditions: st.SearchStrategy[Condition] = st.recursive(
    st.one_of(
        st.builds(Compare, names, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), values),
        st.builds(Between, names, values, values),
        st.builds(BeginsWith, names, values),
        st.builds(Exists, names),
        st.builds(Missing, st.tuples(names, names)),
    ),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(AllOf)
        | st.lists(inner, min_size=1, max_size=3).map(AnyOf)
    ),
    max_leaves=5,
)
# What is left of an expression without its placeholders and our own words.
OUR_WORDS = re.compile(
    r"[#:]\d+|BETWEEN|AND|OR|SET|ADD|REMOVE|begins_with|attribute_exists|attribute_not_exists"
    r"|if_not_exists|[<>=+().,\s]"
)


@given(conditions, names)
def test_query_request_uses_placeholders_for_names_and_values(condition: Condition, partition: str) -> None:
    request = requests.query_request(Query(PAGES, partition, filter=condition, attributes=["page_id"]))
    used = (
        f"{request['KeyConditionExpression']} {request['FilterExpression']} {request['ProjectionExpression']}"
    )
    assert OUR_WORDS.sub("", used) == ""
    assert set(re.findall(r"#\d+", used)) == request["ExpressionAttributeNames"].keys()
    assert set(re.findall(r":\d+", used)) == request["ExpressionAttributeValues"].keys()


@given(st.dictionaries(names, values, min_size=1, max_size=3), st.lists(names, max_size=2))
def test_update_request_uses_placeholders(put: Any, remove: list[str]) -> None:
    update = Update(
        put=put, increment={("stats", name): {"N": "1"} for name in put}, union=put, remove=remove
    )
    request = requests.update_request(PAGES, {}, update, Exists("page_id"))
    assert OUR_WORDS.sub("", request["UpdateExpression"]) == ""


def test_requests_by_key_and_by_local_index_are_strongly_consistent() -> None:
    assert requests.get_request(PAGES, {})["ConsistentRead"] is True
    assert requests.batch_get_request(PAGES, [{}])["RequestItems"]["pages"]["ConsistentRead"] is True
    assert requests.query_request(Query(PAGES, "s"))["ConsistentRead"] is True
    assert requests.query_request(Query(RUNS, "s", index="by_created_at"))["ConsistentRead"] is True
    assert requests.query_request(Query(RUNS, "r", index="by_run_id"))["ConsistentRead"] is False


def test_create_table_request_projects_only_keys_into_indexes() -> None:
    for table in Tables.of("p_").all():
        request = requests.create_table_request(table, DynamoDBConfig())
        for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
            indexes: Any = request.get(kind, [])
            assert all(index["Projection"] == {"ProjectionType": "KEYS_ONLY"} for index in indexes)


def test_create_table_request_follows_the_config() -> None:
    config = DynamoDBConfig(
        billing_mode="PROVISIONED",
        read_capacity=7,
        write_capacity=9,
        tags={"team": "crawl"},
        deletion_protection=True,
    )
    request = requests.create_table_request(VERSIONS.named("p_"), config)
    capacity = {"ReadCapacityUnits": 7, "WriteCapacityUnits": 9}
    assert request["TableName"] == "p_versions"
    assert request["ProvisionedThroughput"] == capacity
    assert request["GlobalSecondaryIndexes"][0]["ProvisionedThroughput"] == capacity
    assert request["Tags"] == [{"Key": "team", "Value": "crawl"}]
    assert request["DeletionProtectionEnabled"] is True
    on_demand = requests.create_table_request(VERSIONS, DynamoDBConfig())
    assert on_demand["BillingMode"] == "PAY_PER_REQUEST"
    assert "ProvisionedThroughput" not in on_demand


KEY = "arn:aws:kms:eu-central-1:123456789012:key/0f9e8d7c-1234-5678-9abc-def012345678"


def test_create_table_request_has_no_option_that_is_not_set() -> None:
    request = requests.create_table_request(PAGES, DynamoDBConfig())
    unset = {"SSESpecification", "TableClass", "StreamSpecification", "OnDemandThroughput", "WarmThroughput"}
    assert not unset & request.keys()
    assert not unset & request["GlobalSecondaryIndexes"][0].keys()


def test_create_table_request_has_the_options_of_the_tables() -> None:
    options = TableOptions(
        kms_key=KEY,
        table_class="STANDARD_INFREQUENT_ACCESS",
        stream_view="NEW_IMAGE",
        on_demand_max_read=100,
        on_demand_max_write=50,
        warm_read=20_000,
        warm_write=8_000,
    )
    request = requests.create_table_request(PAGES, DynamoDBConfig(tables=options))
    assert request["SSESpecification"] == {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY}
    assert request["TableClass"] == "STANDARD_INFREQUENT_ACCESS"
    assert request["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    for keyed in (request, request["GlobalSecondaryIndexes"][0]):
        assert keyed["OnDemandThroughput"] == {"MaxReadRequestUnits": 100, "MaxWriteRequestUnits": 50}
        assert keyed["WarmThroughput"] == {"ReadUnitsPerSecond": 20_000, "WriteUnitsPerSecond": 8_000}


def test_create_table_request_sends_one_of_two_limits() -> None:
    options = TableOptions(on_demand_max_write=50, warm_read=20_000)
    request = requests.create_table_request(PAGES, DynamoDBConfig(tables=options))
    assert request["OnDemandThroughput"] == {"MaxWriteRequestUnits": 50}
    assert request["WarmThroughput"] == {"ReadUnitsPerSecond": 20_000}


def test_create_table_request_does_not_name_the_key_that_aws_manages() -> None:
    options = TableOptions(kms_key="alias/aws/dynamodb")
    request = requests.create_table_request(PAGES, DynamoDBConfig(tables=options))
    assert request["SSESpecification"] == {"Enabled": True, "SSEType": "KMS"}


def test_create_index_request_has_the_limits_of_the_tables() -> None:
    config = DynamoDBConfig(tables=TableOptions(on_demand_max_read=100, warm_write=8_000))
    (update,) = requests.create_index_request(PAGES, PAGES.indexes[0], [], config)[
        "GlobalSecondaryIndexUpdates"
    ]
    assert update["Create"]["OnDemandThroughput"] == {"MaxReadRequestUnits": 100}
    assert update["Create"]["WarmThroughput"] == {"WriteUnitsPerSecond": 8_000}
