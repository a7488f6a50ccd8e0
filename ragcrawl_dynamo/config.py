"""Settings: what to connect to, how long to wait, how the tables are made."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

__all__ = ["DynamoDBConfig", "StorageConfig"]

ENV_PREFIX = "RAGCRAWL_DYNAMO_"

# The longest table name is 255 characters; "versions" is our longest suffix.
_MAX_PREFIX = 255 - len("versions")


class DynamoDBConfig(BaseModel):
    """How to reach DynamoDB and how to make its tables. Frozen; no secret shows in its repr or its errors.

    Credentials resolve the standard AWS way (environment, shared files or `profile`, container and
    instance roles) unless static keys are given.

    Attributes:
        table_prefix: Put before "sites", "runs", "pages", "versions" and "frontier".
        region: AWS region; with `endpoint_url` any name, it only takes part in the signature.
        endpoint_url: For DynamoDB Local, moto or a VPC endpoint; None for AWS's own.
        profile: Section of the shared AWS configuration files.
        access_key_id: Static key; needs `secret_access_key`.
        secret_access_key: Static secret; needs `access_key_id`.
        session_token: For temporary static keys.
        billing_mode: On demand, or provisioned with the two capacities below.
        read_capacity: Provisioned read capacity units of each table and global index.
        write_capacity: Provisioned write capacity units of each table and global index.
        connect_timeout: Seconds to open a connection.
        read_timeout: Seconds without a byte of an answer before one attempt is given up.
        call_timeout: Seconds that one request may take in all: waiting for a slot, attempts and pauses; 900
            at most, well below the hour that readers of changes allow for a commit.
        health_timeout: Seconds after which `health_check()` answers False.
        table_timeout: Seconds that `initialize()` waits for tables and indexes to become active.
        max_connections: Size of the connection pool. Some connections are kept free for health checks,
            the others bound the requests in flight.
        retry_attempts: Tries of one request in all, the first included.
        retry_base_delay: Seconds; the pause before try n+1 is random between 0 and base * 2**(n-1).
        retry_max_delay: Seconds; upper bound of a pause.
        coalescing: Send single saves and gets that are made at the same time in batches; otherwise each is a
            request of its own.
        conditional_batches: How many conditional writes are sent: in PartiQL batches ("partiql"), one request
            each ("item"), or "auto": in batches where they are allowed.
        compression_level: zstd level of bodies, 1 (fast) to 22 (small); 9 at most for those over 1 MiB.
        max_content_bytes: What the body of one version may take before compression, saved or read.
        content_bucket: S3 bucket for large bodies; None keeps them in DynamoDB. It must exist.
        content_bucket_threshold: Bytes after compression from which on a body goes there.
        content_bucket_endpoint_url: Of an S3 that is not AWS's; None for AWS's own.
        max_deleted_share: Share of a site's versions, or bodies, above which a clean-up refuses to delete
            unless told to.
        change_feed: Log what commits create, change and delete, for `list_changes`; two write units a change.
            It must be the same for all who write to a site.
        change_retention_days: Days for which the log is kept, after which DynamoDB deletes it; None keeps it.
        frontier_ttl_days: Days after which DynamoDB deletes finished frontier items; None keeps them.
        frontier_max_attempts: Leases of an item that may fail or expire before it is given up as failed.
        frontier_retry_delay: Seconds before a failed item's second attempt, doubled for each further one.
        frontier_max_retry_delay: Seconds; upper bound of that.
        frontier_max_clock_skew: Seconds by which the clocks of any two workers may differ. A lease is taken
            over that much later than it ends; a worker whose clock is provably further off refuses to claim.
        frontier_seen_cache: Links of a run that a process remembers as known; some 150 bytes each.
        tags: Tags of the tables, set when they are created.
        point_in_time_recovery: Continuous backups for every table.
        deletion_protection: Refuse DeleteTable, set when the tables are created.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    table_prefix: str = Field(default="ragcrawl_", pattern=r"^[A-Za-z0-9_.-]*$", max_length=_MAX_PREFIX)
    region: str = Field(default="us-east-1", pattern=r"^[A-Za-z0-9-]+$", max_length=63)
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+")
    profile: str | None = Field(default=None, min_length=1)
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    billing_mode: Literal["PAY_PER_REQUEST", "PROVISIONED"] = "PAY_PER_REQUEST"
    read_capacity: int = Field(default=5, ge=1)
    write_capacity: int = Field(default=5, ge=1)
    connect_timeout: float = Field(default=5.0, gt=0)
    read_timeout: float = Field(default=10.0, gt=0)
    call_timeout: float = Field(default=60.0, gt=0, le=900)
    health_timeout: float = Field(default=5.0, gt=0)
    table_timeout: float = Field(default=300.0, gt=0)
    max_connections: int = Field(default=50, ge=6, le=10_000)
    retry_attempts: int = Field(default=8, ge=1, le=100)
    retry_base_delay: float = Field(default=0.05, ge=0)
    retry_max_delay: float = Field(default=5.0, ge=0)
    coalescing: bool = True
    conditional_batches: Literal["auto", "partiql", "item"] = "auto"
    compression_level: int = Field(default=15, ge=1, le=22)
    max_content_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    content_bucket: str | None = Field(default=None, min_length=3, max_length=63)
    content_bucket_threshold: int = Field(default=1024 * 1024, ge=4096)
    content_bucket_endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+")
    max_deleted_share: float = Field(default=0.5, ge=0, le=1)
    change_feed: bool = True
    change_retention_days: int | None = Field(default=30, ge=1)
    frontier_ttl_days: int | None = Field(default=None, ge=1)
    frontier_max_attempts: int = Field(default=5, ge=1, le=1000)
    frontier_retry_delay: float = Field(default=2.0, ge=0, le=86_400)
    frontier_max_retry_delay: float = Field(default=3600.0, ge=0, le=2_592_000)
    frontier_max_clock_skew: float = Field(default=2.0, ge=0, le=3600)
    frontier_seen_cache: int = Field(default=100_000, ge=0)
    tags: dict[str, str] = Field(default_factory=dict)
    point_in_time_recovery: bool = False
    deletion_protection: bool = False

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together: give both or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("profile and static keys exclude each other: give one of them")
        if self.endpoint_url is None and self.region.count("-") < 2:
            raise ValueError("region must be one of AWS's, such as us-east-1, where no endpoint_url is given")
        return self

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Settings from the environment: RAGCRAWL_DYNAMO_REGION sets `region`, and so on for every field.

        Args:
            environ: Where to look; the process's environment by default.
            **overrides: Fields that win over the environment.

        Raises:
            pydantic.ValidationError: A value is not allowed, or a variable with the prefix names no field.
        """
        source = os.environ if environ is None else environ
        found: dict[str, Any] = {
            name.removeprefix(ENV_PREFIX).lower(): value
            for name, value in source.items()
            if name.startswith(ENV_PREFIX)
        }
        if isinstance(tags := found.get("tags"), str):
            # What is no JSON is left as text, so that pydantic names the field and what it takes.
            with suppress(orjson.JSONDecodeError):
                found["tags"] = orjson.loads(tags)
        return cls(**{**found, **overrides})


class StorageConfig(BaseModel):
    """Which storage to use; DynamoDB is the one there is."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    backend: DynamoDBConfig = Field(default_factory=DynamoDBConfig)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Settings from the environment; see `DynamoDBConfig.from_env`."""
        return cls(backend=DynamoDBConfig.from_env(environ, **overrides))
