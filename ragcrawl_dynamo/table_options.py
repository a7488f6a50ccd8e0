"""Settings of the tables themselves: encryption, class, streams, and limits of their throughput."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = ["TableOptions"]

# The units with which a new on-demand table begins. Warm throughput cannot be lower (AWS: "Understanding
# DynamoDB warm throughput").
ON_DEMAND_WARM_READ = 12_000
ON_DEMAND_WARM_WRITE = 4_000

# The key that AWS manages for DynamoDB in each account.
AWS_MANAGED_KEY = "alias/aws/dynamodb"

# An id, a multi-Region id, an alias, or the ARN of a key or an alias (AWS KMS: "Key identifiers").
_KEY = (
    r"^((arn:[a-z0-9-]+:kms:[a-z0-9-]+:\d{12}:key/)?(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"|(arn:[a-z0-9-]+:kms:[a-z0-9-]+:\d{12}:)?alias/[A-Za-z0-9/_-]+)$"
)


def matching(pattern: str, allowed: str) -> BeforeValidator:
    """Returns a check of text by a pattern, whose error says in words what is allowed.

    pydantic's error would show the pattern. Neither shows the value: a setting may be a secret.
    """

    def check(value: Any) -> Any:
        if isinstance(value, str) and re.search(pattern, value) is None:
            raise PydanticCustomError("not_allowed", "must be {allowed}", {"allowed": allowed})
        return value

    return BeforeValidator(check)


_KmsKey = Annotated[
    str, Field(pattern=_KEY), matching(_KEY, "the id, the ARN or the alias of a KMS key, such as alias/crawl")
]


class TableOptions(BaseModel):
    """The options of all five tables, set when the tables are created. `status` shows where a table differs.

    Units are those of one second. A limit of reads or writes holds for each table and each global index.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    kms_key: _KmsKey | None = Field(default=None, max_length=2048)
    """The KMS key that encrypts the tables: the id, the ARN or the alias of a key of yours, or
    "alias/aws/dynamodb" for the one that AWS manages in the account. None for a key that DynamoDB owns, which
    costs nothing.
    """
    table_class: Literal["STANDARD", "STANDARD_INFREQUENT_ACCESS"] = "STANDARD"
    """The table class. With infrequent access, storage costs less and requests cost more."""
    stream_view: Literal["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"] | None = None
    """Which part of a changed item DynamoDB Streams shows. None for no stream. This package reads none."""
    on_demand_max_read: int | None = Field(default=None, ge=1)
    """The largest number of read units of an on-demand table. DynamoDB throttles more. None for the quota of
    the account.
    """
    on_demand_max_write: int | None = Field(default=None, ge=1)
    """Likewise, the largest number of write units."""
    warm_read: int | None = Field(default=None, ge=1)
    """The read units that a table serves at once, without growing to them. AWS charges for it once, and it
    cannot be lowered. At least 12,000 on demand, at least `read_capacity` if provisioned.
    """
    warm_write: int | None = Field(default=None, ge=1)
    """Likewise, the write units. At least 4,000 on demand, at least `write_capacity` if provisioned."""
    autoscaling_max_read: int | None = Field(default=None, ge=1)
    """Lets Application Auto Scaling set the read capacity of provisioned tables, between `read_capacity` and
    this number. None for a fixed capacity.
    """
    autoscaling_max_write: int | None = Field(default=None, ge=1)
    """Likewise the write capacity, between `write_capacity` and this number."""
    # AWS: "Managing throughput capacity automatically with DynamoDB auto scaling".
    autoscaling_target: float = Field(default=70.0, ge=20, le=90)
    """How much of the capacity should be in use, in percent. Auto scaling raises the capacity above it."""

    @property
    def is_autoscaled(self) -> bool:
        """Whether Application Auto Scaling sets a capacity."""
        return self.autoscaling_max_read is not None or self.autoscaling_max_write is not None

    def problems(self, billing_mode: str, read_capacity: int, write_capacity: int) -> Iterator[str]:
        """Yields the options that contradict the billing of the tables, one sentence for each."""
        if billing_mode == "PROVISIONED":
            yield from self._problems_if_provisioned("read", read_capacity)
            yield from self._problems_if_provisioned("write", write_capacity)
        else:
            yield from self._problems_on_demand("read", ON_DEMAND_WARM_READ)
            yield from self._problems_on_demand("write", ON_DEMAND_WARM_WRITE)

    def _problems_if_provisioned(self, kind: str, capacity: int) -> Iterator[str]:
        if getattr(self, f"on_demand_max_{kind}") is not None:
            yield (
                f"tables.on_demand_max_{kind} needs billing_mode PAY_PER_REQUEST: "
                f"{kind}_capacity limits provisioned tables"
            )
        for name in (f"warm_{kind}", f"autoscaling_max_{kind}"):
            units: int | None = getattr(self, name)
            if units is not None and units < capacity:
                yield (
                    f"tables.{name} is {units:,}, and {kind}_capacity is {capacity:,}: "
                    f"raise the first at least to the second, or leave it out"
                )

    def _problems_on_demand(self, kind: str, least_warm: int) -> Iterator[str]:
        if getattr(self, f"autoscaling_max_{kind}") is not None:
            yield (
                f"tables.autoscaling_max_{kind} needs billing_mode PROVISIONED: "
                f"on-demand tables scale by themselves"
            )
        warm: int | None = getattr(self, f"warm_{kind}")
        if warm is not None and warm < least_warm:
            yield (
                f"tables.warm_{kind} is {warm:,}, and an on-demand table begins with {least_warm:,}: "
                f"raise it at least to that, or leave it out"
            )
