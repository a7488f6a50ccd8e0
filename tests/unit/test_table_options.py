from typing import Any

import pytest
from pydantic import ValidationError

from ragcrawl_dynamo import DynamoDBConfig, InvalidArgumentError, TableOptions, connect

PROVISIONED = {"billing_mode": "PROVISIONED", "read_capacity": 10, "write_capacity": 20}
KEY_ID = "0f9e8d7c-1234-5678-9abc-def012345678"


def test_table_options_are_those_of_dynamodb_by_default() -> None:
    options = DynamoDBConfig().tables
    unset = options.model_dump(exclude={"table_class", "autoscaling_target"})
    assert set(unset.values()) == {None}
    assert options.table_class == "STANDARD"
    assert not options.is_autoscaled


@pytest.mark.parametrize(
    "key",
    [
        KEY_ID,
        "mrk-" + "0123456789abcdef" * 2,
        "alias/aws/dynamodb",
        "alias/team/crawl-1",
        f"arn:aws:kms:eu-central-1:123456789012:key/{KEY_ID}",
        "arn:aws-us-gov:kms:us-gov-west-1:123456789012:alias/crawl",
    ],
)
def test_table_options_take_every_name_of_a_key(key: str) -> None:
    assert TableOptions(kms_key=key).kms_key == key


@pytest.mark.parametrize(
    ("options", "field", "allowed"),
    [
        ({"kms_key": "crawl"}, "kms_key", "must be the id, the ARN or the alias of a KMS key"),
        ({"table_class": "COLD"}, "table_class", "'STANDARD' or 'STANDARD_INFREQUENT_ACCESS'"),
        ({"stream_view": "ALL"}, "stream_view", "'KEYS_ONLY', 'NEW_IMAGE', 'OLD_IMAGE'"),
        ({"on_demand_max_read": 0}, "on_demand_max_read", "greater than or equal to 1"),
        ({"autoscaling_target": 95}, "autoscaling_target", "less than or equal to 90"),
        ({"autoscaling_target": 19}, "autoscaling_target", "greater than or equal to 20"),
        ({"encryption": True}, "encryption", "Extra inputs are not permitted"),
    ],
)
def test_table_options_name_the_field_and_what_is_allowed(
    options: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        DynamoDBConfig.model_validate({"tables": options})
    assert f"tables.{field}" in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("billing", "options", "problem"),
    [
        ({}, {"warm_read": 11_999}, "tables.warm_read is 11,999, and an on-demand table begins with 12,000"),
        ({}, {"warm_write": 3_999}, "tables.warm_write is 3,999, and an on-demand table begins with 4,000"),
        ({}, {"autoscaling_max_read": 50}, "autoscaling_max_read needs billing_mode PROVISIONED"),
        ({}, {"autoscaling_max_write": 50}, "autoscaling_max_write needs billing_mode PROVISIONED"),
        (PROVISIONED, {"warm_read": 9}, "tables.warm_read is 9, and read_capacity is 10"),
        (PROVISIONED, {"warm_write": 19}, "tables.warm_write is 19, and write_capacity is 20"),
        (PROVISIONED, {"on_demand_max_read": 50}, "on_demand_max_read needs billing_mode PAY_PER_REQUEST"),
        (PROVISIONED, {"on_demand_max_write": 50}, "on_demand_max_write needs billing_mode PAY_PER_REQUEST"),
        (PROVISIONED, {"autoscaling_max_read": 9}, "autoscaling_max_read is 9, and read_capacity is 10"),
        (PROVISIONED, {"autoscaling_max_write": 19}, "max_write is 19, and write_capacity is 20"),
    ],
)
def test_table_options_fit_the_billing(
    billing: dict[str, Any], options: dict[str, int], problem: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        DynamoDBConfig.model_validate({**billing, "tables": options})
    assert problem in str(caught.value)
    (name,) = options
    raised = {name: options[name] + 1}
    if "needs" not in problem:
        assert getattr(DynamoDBConfig.model_validate({**billing, "tables": raised}).tables, name)


def test_table_options_are_keywords_of_connect() -> None:
    store = connect(DynamoDBConfig(), tables={"kms_key": "alias/crawl"})
    assert store.config.tables == TableOptions(kms_key="alias/crawl")
    with pytest.raises(InvalidArgumentError, match="needs billing_mode PROVISIONED"):
        connect(DynamoDBConfig(), tables=TableOptions(autoscaling_max_read=10))


def test_table_options_come_from_the_environment() -> None:
    environ = {
        "RAGCRAWL_DYNAMO_TABLES_KMS_KEY": "alias/crawl",
        "RAGCRAWL_DYNAMO_TABLES_WARM_READ": "20000",
        "RAGCRAWL_DYNAMO_TABLES_STREAM_VIEW": "KEYS_ONLY",
        "RAGCRAWL_DYNAMO_TABLE_PREFIX": "env_",
    }
    config = DynamoDBConfig.from_env(environ)
    assert config.tables == TableOptions(kms_key="alias/crawl", warm_read=20_000, stream_view="KEYS_ONLY")
    assert config.table_prefix == "env_"
    replaced = DynamoDBConfig.from_env(environ, tables=TableOptions())
    assert replaced.tables == TableOptions()
    with pytest.raises(ValidationError, match=r"tables\.kms"):
        DynamoDBConfig.from_env({"RAGCRAWL_DYNAMO_TABLES_KMS": "alias/crawl"})
