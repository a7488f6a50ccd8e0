"""Finds the region and the endpoint of a client, and the settings or variables that chose them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from botocore.loaders import create_loader

from ragcrawl_dynamo.config import ENV_PREFIX, DynamoDBConfig

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

Service: TypeAlias = Literal["DynamoDB", "S3", "Application Auto Scaling"]

DEFAULT_REGION = "us-east-1"

# botocore reads the second one alone; AWS's other SDKs read the first one, and Lambda and ECS set it.
_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")

# Application Auto Scaling has none.
_SETTINGS: dict[Service, str] = {"DynamoDB": "endpoint_url", "S3": "content_bucket_endpoint_url"}


@dataclass(frozen=True, slots=True)
class Destination:
    """The region and the endpoint of requests, each with its source.

    A source is the name of a setting ("setting region"), of an environment variable ("AWS_REGION") or of a
    profile ("profile 'crawler'"), "session" for a session that was passed, or "default".

    Attributes:
        region: The AWS region.
        region_source: The setting, variable or profile that chose the region.
        endpoint_url: The URL; None for the endpoint of AWS.
        endpoint_source: The setting, variable or profile that chose the URL.
    """

    region: str
    region_source: str
    endpoint_url: str | None = None
    endpoint_source: str = "default"

    def __str__(self) -> str:
        url = f"{self.endpoint_url} ({self.endpoint_source})" if self.endpoint_url else "of AWS"
        return f"endpoint {url}, region {self.region!r} ({self.region_source})"


def find_destination(
    config: DynamoDBConfig,
    service: Service,
    session: AioSession,
    *,
    ignores_configured: bool | None = None,
) -> Destination:
    """Finds the destination of a client. Empty environment variables count as not set.

    Args:
        config: The settings, which come first.
        service: The service.
        session: Knows the profile, and reads the shared configuration files.
        ignores_configured: Whether only settings choose an endpoint. By default the environment and the
            profile say so, as for every client of botocore.

    Raises:
        ProfileNotFound: The profile does not exist.
        ConfigParseError: The shared configuration file cannot be read.
    """
    region, region_source = next(choice for choice in _regions(config, session) if choice[0])
    if ignores_configured is None:
        ignores_configured = bool(session.get_config_variable("ignore_configured_endpoint_urls"))
    endpoints = _endpoints(config, service, session, ignores_configured=ignores_configured)
    url, url_source = next((choice for choice in endpoints if choice[0]), (None, "default"))
    return Destination(str(region), region_source, url, url_source)


@cache
def partition_of(region: str) -> str:
    """Returns the AWS partition of a region, such as "aws-cn", by botocore's data; "aws" if it has none."""
    partitions: list[dict[str, Any]] = create_loader().load_data("partitions")["partitions"]
    for partition in partitions:
        # The pattern knows regions that are newer than the data.
        if region in partition["regions"] or re.match(partition["regionRegex"], region):
            return str(partition["id"])
    return "aws"


def _regions(config: DynamoDBConfig, session: AioSession) -> Iterator[tuple[str | None, str]]:
    yield config.region, _setting(config, "region")
    yield session.instance_variables().get("region"), "session"
    for name in _REGION_VARIABLES:
        yield os.environ.get(name), name
    yield session.get_scoped_config().get("region"), _profile(session)
    yield DEFAULT_REGION, "default"


def _endpoints(
    config: DynamoDBConfig, service: Service, session: AioSession, *, ignores_configured: bool
) -> Iterator[tuple[str | None, str]]:
    """Yields the endpoints that are configured, each with its source, in botocore's order."""
    if setting := _SETTINGS.get(service):
        yield getattr(config, setting), _setting(config, setting)
    profile = session.get_scoped_config()
    if not ignores_configured:
        name = service.replace(" ", "_")
        for variable in (f"AWS_ENDPOINT_URL_{name.upper()}", "AWS_ENDPOINT_URL"):
            yield os.environ.get(variable), variable
        services = session.full_config.get("services", {}).get(profile.get("services"), {})
        yield services.get(name.lower(), {}).get("endpoint_url"), f"services of {_profile(session)}"
        yield profile.get("endpoint_url"), _profile(session)
    if service == "Application Auto Scaling":
        # A simulated AWS has all services at one URL. An endpoint of AWS has one service only.
        for url, source in _endpoints(config, "DynamoDB", session, ignores_configured=ignores_configured):
            yield None if _is_of_aws(url) else url, source


def _setting(config: DynamoDBConfig, name: str) -> str:
    """Names who chose a setting: the variable of the setting if it has the same value, or the setting."""
    variable = f"{ENV_PREFIX}{name.upper()}"
    return variable if os.environ.get(variable) == getattr(config, name) else f"setting {name}"


def _is_of_aws(url: str | None) -> bool:
    return ".amazonaws." in f"{urlsplit(url or '').hostname}."


def _profile(session: AioSession) -> str:
    return f"profile {session.get_config_variable('profile') or 'default'!r}"
