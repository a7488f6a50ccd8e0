"""Settings: which DynamoDB to use, how long to wait, and how to create the tables."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from ragcrawl_dynamo.table_options import TableOptions, matching

__all__ = ["DynamoDBConfig", "StorageConfig"]

ENV_PREFIX = "RAGCRAWL_DYNAMO_"

# AWS allows 255 characters for a table name; "versions" is the longest suffix of this package.
_MAX_PREFIX = 255 - len("versions")

_PREFIX = r"^[A-Za-z0-9_.-]*$"
_Prefix = Annotated[
    str, Field(pattern=_PREFIX), matching(_PREFIX, "made of letters A-Z and a-z, digits, '_', '-' and '.'")
]
_REGION = r"^[A-Za-z0-9-]+$"
_Region = Annotated[str, Field(pattern=_REGION), matching(_REGION, "an AWS region such as us-east-1")]
_URL = r"^https?://[^/\s]+"
_Url = Annotated[
    str, Field(pattern=_URL), matching(_URL, "http(s)://host[:port], such as http://127.0.0.1:8000")
]


class DynamoDBConfig(BaseModel):
    """The settings of a backend on DynamoDB. They are frozen, and neither repr nor errors show a secret.

    Unless static keys are given, credentials are found in the standard AWS way: environment, shared files or
    `profile`, container and instance roles.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    table_prefix: _Prefix = Field(default="ragcrawl_", max_length=_MAX_PREFIX)
    """Text before the table names "sites", "runs", "pages", "versions" and "frontier", of at most 247
    characters.
    """
    region: _Region | None = Field(default=None, max_length=63)
    """The AWS region. By default that of AWS_REGION, else of AWS_DEFAULT_REGION, else of the profile, else
    us-east-1. With `endpoint_url` any name works; only the request signature uses it.
    """
    endpoint_url: _Url | None = None
    """The URL of DynamoDB Local, moto or a VPC endpoint. By default that of AWS_ENDPOINT_URL_DYNAMODB, else
    of AWS_ENDPOINT_URL, else of the profile, else the endpoint of AWS.
    AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true leaves out the environment and the profile.
    """
    profile: str | None = Field(default=None, min_length=1)
    """The profile in the shared AWS configuration files."""
    access_key_id: SecretStr | None = None
    """A static access key. Needs `secret_access_key`."""
    secret_access_key: SecretStr | None = None
    """The secret of the static access key. Needs `access_key_id`."""
    session_token: SecretStr | None = None
    """The session token of a temporary static key."""
    billing_mode: Literal["PAY_PER_REQUEST", "PROVISIONED"] = "PAY_PER_REQUEST"
    """On demand, or provisioned with `read_capacity` and `write_capacity`."""
    read_capacity: int = Field(default=5, ge=1)
    """Provisioned read capacity units of each table and global index."""
    write_capacity: int = Field(default=5, ge=1)
    """Provisioned write capacity units of each table and global index."""
    connect_timeout: float = Field(default=5.0, gt=0)
    """Seconds to open a connection."""
    read_timeout: float = Field(default=10.0, gt=0)
    """Seconds without a byte of the answer after which one attempt is given up."""
    call_timeout: float = Field(default=60.0, gt=0, le=900)
    """Seconds for one request in total: waiting for a permit, all attempts and the pauses between them. At
    most 900, which is well below the hour that readers of the change feed allow for a commit.
    """
    health_timeout: float = Field(default=5.0, gt=0)
    """Seconds after which `health_check()` returns False."""
    table_timeout: float = Field(default=300.0, gt=0)
    """Seconds that `initialize()` waits until tables and indexes are active."""
    max_connections: int = Field(default=50, ge=6, le=10_000)
    """The size of the connection pool. Some connections are kept free for health checks; the number of the
    others limits the requests in flight.
    """
    retry_attempts: int | None = Field(default=None, ge=1, le=100)
    """The most attempts of one request in total, including the first. None for as many as `call_timeout` has
    time for.
    """
    retry_base_delay: float = Field(default=0.05, ge=0)
    """Seconds. The pause before attempt n+1 is random between 0 and base * 2**(n-1). It is above 0 unless
    `retry_attempts` is set.
    """
    retry_max_delay: float = Field(default=5.0, ge=0)
    """The longest pause between two attempts in seconds."""
    coalescing: bool = True
    """Sends single saves and gets that are made at the same time in batches. If False, each of them is a
    request of its own.
    """
    conditional_batches: Literal["auto", "partiql", "item"] = "auto"
    """How to send several conditional writes: "partiql" in PartiQL batches, "item" in one request for each,
    "auto" in batches as long as the endpoint supports them and the role may use them.
    """
    compression_level: int = Field(default=15, ge=1, le=22)
    """The zstd level of bodies, from 1 (fast) to 22 (small). At most 9 is used for bodies over 1 MiB."""
    max_content_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """The largest body of a version in bytes before compression, saved or read."""
    content_bucket: str | None = Field(default=None, min_length=3, max_length=63)
    """The S3 bucket for large bodies. It must exist. None keeps all bodies in DynamoDB."""
    content_bucket_threshold: int = Field(default=1024 * 1024, ge=4096)
    """The size in bytes after compression from which a body goes to the bucket."""
    content_bucket_endpoint_url: _Url | None = None
    """The URL of an S3 service outside of AWS. By default as for `endpoint_url`, with AWS_ENDPOINT_URL_S3."""
    max_deleted_share: float = Field(default=0.5, ge=0, le=1)
    """The largest share of a site's pages, versions or bodies that one call marks as gone or deletes, unless
    it is called with `allow_mass_deletion`.
    """
    change_feed: bool = True
    """Logs the pages that commits create, change and delete, for `list_changes`. This takes two write units
    for each change. The setting must be the same for all processes that write to a site.
    """
    change_retention_days: int | None = Field(default=30, ge=1)
    """Days after which DynamoDB deletes a change that this process logs. None keeps all. Readers go by the
    setting of the processes that logged the changes, not by their own.
    """
    frontier_ttl_days: int | None = Field(default=None, ge=1)
    """Days after which DynamoDB deletes finished frontier items. None keeps all."""
    frontier_max_attempts: int = Field(default=5, ge=1, le=1000)
    """How many leases of an item may fail or expire before the item is given up as failed. A lease that no
    caller has received is not counted.
    """
    frontier_retry_delay: float = Field(default=2.0, ge=0, le=86_400)
    """Seconds until the second attempt of a failed item, doubled for each further one."""
    frontier_max_retry_delay: float = Field(default=3600.0, ge=0, le=2_592_000)
    """The longest delay of a failed item in seconds."""
    frontier_max_clock_skew: float = Field(default=2.0, ge=0, le=3600)
    """The largest difference in seconds between the clocks of any two workers. An item is claimed again only
    when its lease has been over for that long. A worker whose clock is provably off by more than half of it
    refuses to add, claim and renew.
    """
    frontier_buckets: int = Field(default=16, ge=1, le=256)
    """Over how many lists the hosts of a new run are spread; the run keeps this number. One list takes 1,000
    write units a second; a host takes one when it comes, and one when it goes. Every worker reads the
    beginning of every list once a second, an idle one up to twice.
    """
    frontier_seen_cache: int = Field(default=100_000, ge=0)
    """How many links of a run a process remembers as known; about 150 bytes each."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tags of the tables, set when they are created."""
    point_in_time_recovery: bool = False
    """Enables continuous backups of every table."""
    deletion_protection: bool = False
    """Makes DynamoDB refuse DeleteTable, set when the tables are created."""
    tables: TableOptions = Field(default_factory=TableOptions)
    """Encryption, class, streams and limits of the tables. A variable such as RAGCRAWL_DYNAMO_TABLES_KMS_KEY
    sets one of them.
    """

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together: set both or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("profile and static keys exclude each other: set one of them")
        if self.retry_attempts is None and 0.0 in (self.retry_base_delay, self.retry_max_delay):
            raise ValueError(
                "retry_base_delay and retry_max_delay must be above 0 unless retry_attempts is set"
            )
        if self.endpoint_url is None and self.region is not None and self.region.count("-") < 2:
            raise ValueError("region must be an AWS region such as us-east-1 if endpoint_url is not set")
        for problem in self.tables.problems(self.billing_mode, self.read_capacity, self.write_capacity):
            raise ValueError(problem)
        return self

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Reads settings from the environment.

        RAGCRAWL_DYNAMO_REGION sets `region`, and so on for every field. RAGCRAWL_DYNAMO_TABLES_KMS_KEY sets
        `tables.kms_key`, and so on for every field of `TableOptions`.

        Args:
            environ: The variables. The environment of the process by default.
            **overrides: Values of fields that replace those of the environment.

        Raises:
            pydantic.ValidationError: A value is not allowed, or a variable with the prefix names no field.
        """
        source = os.environ if environ is None else environ
        settings: dict[str, Any] = {
            name.removeprefix(ENV_PREFIX).lower(): value
            for name, value in source.items()
            if name.startswith(ENV_PREFIX)
        }
        if isinstance(tags := settings.get("tags"), str):
            # Invalid JSON stays text, so that pydantic names the field and the type that it takes.
            with suppress(orjson.JSONDecodeError):
                settings["tags"] = orjson.loads(tags)
        of_tables = [name for name in settings if name.startswith("tables_")]
        if of_tables:
            settings["tables"] = {name.removeprefix("tables_"): settings.pop(name) for name in of_tables}
        return cls(**{**settings, **overrides})


class StorageConfig(BaseModel):
    """The choice of a storage backend. DynamoDB is the only one so far."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    backend: DynamoDBConfig = Field(default_factory=DynamoDBConfig)
    """The settings of the backend."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Reads settings from the environment; see `DynamoDBConfig.from_env`."""
        return cls(backend=DynamoDBConfig.from_env(environ, **overrides))
