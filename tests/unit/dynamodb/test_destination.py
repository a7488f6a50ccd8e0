"""Which region and endpoint are used, which setting chose them, and where this is reported."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.session import AioSession
from botocore.config import Config

from ragcrawl_dynamo import (
    CredentialsError,
    DynamoDBBackend,
    DynamoDBConfig,
    EndpointUnreachableError,
    RequestRejectedError,
    TableNotFoundError,
)
from ragcrawl_dynamo._dynamodb.client import Access
from ragcrawl_dynamo._dynamodb.destination import partition_of
from ragcrawl_dynamo.iam import policy
from tests.support.aws_environment import AwsEnvironment
from tests.support.http_server import free_port, http_server, refusing

if TYPE_CHECKING:
    from aiohttp import web

PROFILES = """
[default]
region = eu-south-1

[profile crawler]
region = eu-west-3
endpoint_url = http://127.0.0.3:1
services = local

[services local]
dynamodb =
  endpoint_url = http://127.0.0.4:1
"""
QUICK: dict[str, Any] = {"retry_base_delay": 0.001, "retry_attempts": 2, "call_timeout": 5}


@pytest.mark.parametrize(
    ("settings", "variables", "region", "source"),
    [
        ({"region": "eu-north-1"}, {"AWS_REGION": "eu-west-1"}, "eu-north-1", "setting region"),
        ({}, {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1", "AWS_REGION"),
        ({}, {"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2", "AWS_DEFAULT_REGION"),
        ({"profile": "crawler"}, {"AWS_REGION": "eu-west-1"}, "eu-west-1", "AWS_REGION"),
        ({"profile": "crawler"}, {}, "eu-west-3", "profile 'crawler'"),
        ({}, {"AWS_PROFILE": "crawler"}, "eu-west-3", "profile 'crawler'"),
        ({}, {}, "eu-south-1", "profile 'default'"),
        ({}, {"AWS_CONFIG_FILE": "/none"}, "us-east-1", "default"),
        (
            {"region": "eu-north-1"},
            {"RAGCRAWL_DYNAMO_REGION": "eu-north-1"},
            "eu-north-1",
            "RAGCRAWL_DYNAMO_REGION",
        ),
        ({"region": "eu-north-1"}, {"RAGCRAWL_DYNAMO_REGION": "eu-west-1"}, "eu-north-1", "setting region"),
    ],
)
def test_region_is_that_of_the_setting_the_environment_or_the_profile(
    aws_environment: AwsEnvironment,
    settings: dict[str, Any],
    variables: dict[str, str],
    region: str,
    source: str,
) -> None:
    aws_environment.write(PROFILES)
    aws_environment.set(**variables)
    destination = DynamoDBBackend(DynamoDBConfig(**settings)).find_destination()
    assert (destination.region, destination.region_source) == (region, source)
    assert f"region {region!r} ({source})" in str(destination)


SERVICE, ALL = "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"
VARIABLE = "RAGCRAWL_DYNAMO_ENDPOINT_URL"
ONE, TWO = "http://127.0.0.1:1", "http://127.0.0.2:1"


@pytest.mark.parametrize(
    ("settings", "variables", "url", "source"),
    [
        ({"endpoint_url": ONE}, {SERVICE: TWO}, ONE, "setting endpoint_url"),
        ({"endpoint_url": ONE}, {VARIABLE: ONE}, ONE, VARIABLE),
        ({}, {SERVICE: ONE, ALL: TWO}, ONE, SERVICE),
        ({"profile": "crawler"}, {ALL: TWO}, TWO, ALL),
        ({"profile": "crawler"}, {ALL: ""}, "http://127.0.0.4:1", "services of profile 'crawler'"),
        ({}, {}, None, "default"),
        ({}, {"AWS_ENDPOINT_URL_S3": ONE}, None, "default"),
        ({}, {ALL: ONE, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, None, "default"),
        (
            {"endpoint_url": TWO},
            {ALL: ONE, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            TWO,
            "setting endpoint_url",
        ),
    ],
)
async def test_endpoint_is_that_of_the_setting_the_environment_or_the_profile(
    aws_environment: AwsEnvironment,
    settings: dict[str, Any],
    variables: dict[str, str],
    url: str | None,
    source: str,
) -> None:
    """The destination that is found is the one that a client of botocore uses."""
    aws_environment.write(PROFILES)
    aws_environment.set_keys()
    aws_environment.set(**variables)
    config = DynamoDBConfig(**settings)
    destination = DynamoDBBackend(config).find_destination()
    assert (destination.endpoint_url, destination.endpoint_source) == (url, source)
    session = AioSession(profile=config.profile)
    async with session.create_client("dynamodb", endpoint_url=config.endpoint_url) as client:
        assert client.meta.endpoint_url == (url or "https://dynamodb.eu-south-1.amazonaws.com")


def test_endpoint_of_a_profile_serves_s3_too(aws_environment: AwsEnvironment) -> None:
    aws_environment.write(PROFILES)
    destination = Access().find_destination(DynamoDBConfig(profile="crawler"), "S3")
    assert (destination.endpoint_url, destination.endpoint_source) == (
        "http://127.0.0.3:1",
        "profile 'crawler'",
    )
    aws_environment.set(AWS_ENDPOINT_URL_S3=ONE)
    destination = Access().find_destination(DynamoDBConfig(profile="crawler"), "S3")
    assert (destination.endpoint_url, destination.endpoint_source) == (ONE, "AWS_ENDPOINT_URL_S3")
    config = DynamoDBConfig(profile="crawler", content_bucket_endpoint_url=TWO)
    destination = Access().find_destination(config, "S3")
    assert (destination.endpoint_url, destination.endpoint_source) == (
        TWO,
        "setting content_bucket_endpoint_url",
    )


def test_client_config_can_ignore_configured_endpoints(aws_environment: AwsEnvironment) -> None:
    aws_environment.set(AWS_ENDPOINT_URL=ONE)
    options = Config(ignore_configured_endpoint_urls=True)
    assert DynamoDBBackend(DynamoDBConfig(), client_config=options).find_destination().endpoint_url is None


async def test_requests_go_to_the_destination_and_are_signed_for_its_region(
    aws_environment: AwsEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    scopes: set[str] = set()

    async def note(request: web.Request) -> web.Response:
        scopes.add(request.headers["Authorization"].split("/", 2)[2].split(",")[0])
        return await refusing("ResourceNotFoundException", "no such table")(request)

    aws_environment.set_keys()
    async with http_server(note) as url:
        aws_environment.set(AWS_ENDPOINT_URL=url, AWS_REGION="eu-central-1")
        backend = DynamoDBBackend(DynamoDBConfig(**QUICK))
        where = f"endpoint {url} (AWS_ENDPOINT_URL), region 'eu-central-1' (AWS_REGION)"
        with caplog.at_level(logging.INFO), pytest.raises(TableNotFoundError) as caught:
            await backend.initialize(create_tables=False)
    assert scopes == {"eu-central-1/dynamodb/aws4_request"}
    assert where in str(caught.value)
    assert f"DynamoDB: {where}" in caplog.messages


async def test_endpoint_of_the_environment_is_named_by_errors_and_warned_of(
    aws_environment: AwsEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    aws_environment.set_keys()
    url = f"http://127.0.0.1:{free_port()}"
    aws_environment.set(AWS_ENDPOINT_URL_DYNAMODB=url)
    with pytest.raises(EndpointUnreachableError) as caught:
        await DynamoDBBackend(DynamoDBConfig(**QUICK)).initialize()
    assert f"endpoint {url} (AWS_ENDPOINT_URL_DYNAMODB), region 'us-east-1' (default)" in str(caught.value)
    assert "others can read along" not in caplog.text
    aws_environment.set(AWS_ENDPOINT_URL_DYNAMODB="http://dynamodb.example.com")
    backend = DynamoDBBackend(DynamoDBConfig(**QUICK))
    await backend._rooms.gateway.open()
    await backend.close()
    assert "http://dynamodb.example.com (set by AWS_ENDPOINT_URL_DYNAMODB) are not encrypted" in caplog.text


@pytest.mark.parametrize(
    ("variables", "error", "told"),
    [
        ({"AWS_REGION": "eu central 1"}, RequestRejectedError, r"region 'eu central 1' \(AWS_REGION\)"),
        ({"AWS_ENDPOINT_URL": "localhost"}, RequestRejectedError, r"endpoint localhost \(AWS_ENDPOINT_URL\)"),
        ({"AWS_PROFILE": "typo"}, CredentialsError, r"profile \(typo\) could not be found"),
        ({"AWS_PROFILE": "broken"}, CredentialsError, "services section"),
    ],
)
async def test_environment_that_cannot_be_used_is_a_typed_error(
    aws_environment: AwsEnvironment, variables: dict[str, str], error: type[Exception], told: str
) -> None:
    aws_environment.write("[profile broken]\nservices = none\n")
    aws_environment.set_keys()
    aws_environment.set(**variables)
    with pytest.raises(error, match=told):
        await DynamoDBBackend(DynamoDBConfig(**QUICK)).initialize()


async def test_shared_configuration_that_cannot_be_read_is_a_typed_error(
    aws_environment: AwsEnvironment,
) -> None:
    aws_environment.write("no section = 1")
    with pytest.raises(CredentialsError, match="Unable to parse config file"):
        await DynamoDBBackend(DynamoDBConfig(**QUICK)).initialize()


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-central-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("eusc-de-east-1", "aws-eusc"),
        # Newer than botocore's data.
        ("cn-south-7", "aws-cn"),
        ("local", "aws"),
    ],
)
def test_partition_follows_the_region(region: str, partition: str) -> None:
    assert partition_of(region) == partition


def test_iam_policy_follows_the_region(aws_environment: AwsEnvironment) -> None:
    aws_environment.set(AWS_REGION="us-gov-west-1")
    config = DynamoDBConfig(content_bucket="bodies")
    arns = {arn for part in policy(config, "worker")["Statement"] for arn in part["Resource"]}
    assert "arn:aws-us-gov:dynamodb:us-gov-west-1:*:table/ragcrawl_pages" in arns
    assert "arn:aws-us-gov:s3:::bodies" in arns
    (first, *_) = policy(config, "worker", partition="aws-iso")["Statement"]
    assert all(arn.startswith("arn:aws-iso:") for arn in first["Resource"])
