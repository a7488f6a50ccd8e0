from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    StorageConfig,
    create_storage_backend,
)


def test_config_defaults_are_as_documented() -> None:
    config = StorageConfig().backend
    assert (config.table_prefix, config.region, config.endpoint_url) == ("ragcrawl_", None, None)
    assert config.billing_mode == "PAY_PER_REQUEST"


def test_create_storage_backend_does_no_io() -> None:
    backend = create_storage_backend(StorageConfig(backend=DynamoDBConfig(table_prefix="x_")))
    assert isinstance(backend, DynamoDBBackend)
    assert backend.config.table_prefix == "x_"


def test_create_storage_backend_takes_the_settings_of_the_backend_alone() -> None:
    backend = create_storage_backend(DynamoDBConfig(table_prefix="x_"))
    assert isinstance(backend, DynamoDBBackend)
    assert backend.config.table_prefix == "x_"
    assert backend.metrics() == {}


def test_create_storage_backend_refuses_other_values_than_configurations() -> None:
    settings: Any = {"table_prefix": "x_"}
    with pytest.raises(InvalidArgumentError, match="config: must be a StorageConfig or a DynamoDBConfig"):
        create_storage_backend(settings)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("table_prefix", "a b", "must be made of letters A-Z and a-z, digits, '_', '-' and '.'"),
        ("table_prefix", "x" * 248, "at most 247 characters"),
        ("region", "nowhere", "region must be an AWS region such as us-east-1"),
        ("region", "us east 1", "must be an AWS region such as us-east-1"),
        ("endpoint_url", "localhost:8000", "must be http(s)://host[:port], such as http://127.0.0.1:8000"),
        ("content_bucket_endpoint_url", "s3", "must be http(s)://host[:port]"),
        ("billing_mode", "FREE", "'PAY_PER_REQUEST' or 'PROVISIONED'"),
        ("read_capacity", 0, "greater than or equal to 1"),
        ("connect_timeout", 0, "greater than 0"),
        ("max_connections", 5, "greater than or equal to 6"),
        ("retry_attempts", 0, "greater than or equal to 1"),
        ("retry_base_delay", 0, "must be above 0 unless retry_attempts is set"),
        ("frontier_ttl_days", 0, "greater than or equal to 1"),
        ("secret_access_key", "x", "access_key_id and secret_access_key go together"),
        ("session_token", "x", "session_token needs access_key_id"),
        ("no_such_field", 1, "Extra inputs are not permitted"),
    ],
)
def test_config_names_the_field_and_what_is_allowed(field: str, value: object, allowed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DynamoDBConfig.model_validate({field: value})
    assert field in str(caught.value)
    assert allowed in str(caught.value)
    assert "pattern" not in str(caught.value)


def test_config_refuses_profile_and_keys_together() -> None:
    with pytest.raises(ValidationError, match="profile and static keys exclude each other"):
        DynamoDBConfig(profile="p", access_key_id=SecretStr("a"), secret_access_key=SecretStr("b"))


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DynamoDBConfig().region = "eu-west-1"  # type: ignore[misc] # that is what is tested


def test_config_shows_no_secret_in_reprs_or_errors() -> None:
    secrets = {"access_key_id": "AKIA-visible", "secret_access_key": "hidden", "session_token": "t0k3n"}
    config = StorageConfig(backend=DynamoDBConfig.model_validate(secrets))
    assert not [
        secret for secret in secrets.values() if secret in f"{config!r} {config} {config.model_dump_json()}"
    ]
    with pytest.raises(ValidationError) as caught:
        DynamoDBConfig.model_validate({**secrets, "region": "x y"})
    assert "hidden" not in str(caught.value)


def test_config_from_env_sets_any_field() -> None:
    environ = {
        "RAGCRAWL_DYNAMO_TABLE_PREFIX": "env_",
        "RAGCRAWL_DYNAMO_REGION": "eu-central-1",
        "RAGCRAWL_DYNAMO_MAX_CONNECTIONS": "80",
        "RAGCRAWL_DYNAMO_POINT_IN_TIME_RECOVERY": "true",
        "RAGCRAWL_DYNAMO_TAGS": '{"team": "crawl"}',
        "RAGCRAWL_DYNAMO_ACCESS_KEY_ID": "a",
        "RAGCRAWL_DYNAMO_SECRET_ACCESS_KEY": "b",
        "UNRELATED": "x",
    }
    config = StorageConfig.from_env(environ, region="eu-west-1").backend
    assert (config.table_prefix, config.region, config.max_connections) == ("env_", "eu-west-1", 80)
    assert config.point_in_time_recovery is True
    assert config.tags == {"team": "crawl"}
    assert config.secret_access_key == SecretStr("b")


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("RAGCRAWL_DYNAMO_REGIO", "eu-west-1", "regio"),
        ("RAGCRAWL_DYNAMO_TAGS", "not json", "tags"),
        ("RAGCRAWL_DYNAMO_MAX_CONNECTIONS", "many", "max_connections"),
    ],
)
def test_config_from_env_names_the_field_of_a_wrong_variable(name: str, value: str, field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        DynamoDBConfig.from_env({name: value})
