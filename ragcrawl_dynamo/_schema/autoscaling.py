"""Lets Application Auto Scaling set the capacity of provisioned tables and their global indexes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from ragcrawl_dynamo._dynamodb.client import Access
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.metrics import Metrics
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._schema.waiting import until_free
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import AccessDeniedError, DeadlineExceededError, ServiceError

logger = logging.getLogger(__name__)

# The name of a policy has to be unique for one resource and dimension only.
POLICY_NAME = "ragcrawl-dynamo"

_NAMESPACE = {"ServiceNamespace": "dynamodb"}

# Another process changes the same target; or the target is so new that a policy does not find it yet (AWS:
# RegisterScalableTarget).
_BUSY = ("ConcurrentUpdateException", "ObjectNotFoundException")

# The error codes of endpoints that serve only DynamoDB; the second is that of DynamoDB Local.
_NO_SUCH_SERVICE = frozenset({"UnknownOperationException", "InvalidAction"})


@dataclass(frozen=True, slots=True)
class ScaledCapacity:
    """The read or write capacity of a table or an index, and how it is scaled.

    Attributes:
        resource: The resource id, such as "table/ragcrawl_pages/index/by_url".
        dimension: The scalable dimension, such as "dynamodb:index:ReadCapacityUnits".
        smallest: The smallest capacity.
        largest: The largest capacity.
        target: How much of it should be in use, in percent; None if no policy says so.
    """

    resource: str
    dimension: str
    smallest: int
    largest: int
    target: float | None

    @property
    def key(self) -> tuple[str, str]:
        """The resource and the dimension, which identify the capacity."""
        return self.resource, self.dimension

    @property
    def metric(self) -> str:
        """The predefined metric of how much of the capacity is in use."""
        return "DynamoDB" + self.dimension.rpartition(":")[2].replace("Units", "Utilization")


Scaling: TypeAlias = Mapping[tuple[str, str], ScaledCapacity]


def scaled_capacities(table: Table[Any], config: DynamoDBConfig) -> Iterator[ScaledCapacity]:
    """Yields the capacities of a table and its global indexes that the settings let scale."""
    options = config.tables
    limits = {
        "Read": (config.read_capacity, options.autoscaling_max_read),
        "Write": (config.write_capacity, options.autoscaling_max_write),
    }
    indexes = [f"table/{table.name}/index/{index.name}" for index in table.indexes if index.is_global]
    for resource in (f"table/{table.name}", *indexes):
        kind = "index" if resource in indexes else "table"
        for way, (smallest, largest) in limits.items():
            if largest is not None:
                dimension = f"dynamodb:{kind}:{way}CapacityUnits"
                yield ScaledCapacity(resource, dimension, smallest, largest, options.autoscaling_target)


class Autoscaling:
    """The connection to Application Auto Scaling. It is opened only if the settings scale a capacity."""

    def __init__(self, config: DynamoDBConfig, access: Access, metrics: Metrics) -> None:
        self._config = config
        self._access = access
        self._metrics = metrics

    async def ensure(self, tables: Tables) -> None:
        """Registers the capacities that are not scaled yet. It changes none that is.

        Raises:
            DeadlineExceededError: Application Auto Scaling was busy for all of `table_timeout`.
            ServiceError: Application Auto Scaling refused a request.
        """
        if not self._config.tables.is_autoscaled:
            return
        timeout = self._config.table_timeout
        try:
            async with asyncio.timeout(timeout), self._open() as gateway:
                await gather(self._ensure(gateway, table) for table in tables.all())
        except TimeoutError:
            raise DeadlineExceededError(
                f"no capacity limits were set within table_timeout = {timeout} s: call initialize() again",
                code="ScalingNotRegistered",
                operation="RegisterScalableTarget",
                table=None,
            ) from None

    async def read(self, tables: Tables) -> Scaling | None:
        """Returns the capacities that are scaled now; None if they are not known, or not to be scaled."""
        if not self._config.tables.is_autoscaled:
            return None
        async with self._open() as gateway:
            try:
                by_table = await gather(_read(gateway, table) for table in tables.all())
            except AccessDeniedError:
                return None
            except ServiceError as error:
                if error.code not in _NO_SUCH_SERVICE:
                    raise
                return None
        return {key: capacity for scaling in by_table for key, capacity in scaling.items()}

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Gateway]:
        gateway = Gateway(
            self._config, service="Application Auto Scaling", access=self._access, metrics=self._metrics
        )
        await gateway.open()
        try:
            yield gateway
        finally:
            await gateway.close()

    async def _ensure(self, gateway: Gateway, table: Table[Any]) -> None:
        try:
            scaling = await _read(gateway, table)
        except AccessDeniedError as error:
            # The process that created the tables has registered them. A worker needs no right to read it.
            logger.warning(
                "%s: its auto scaling could not be read, and is left as it is: %s", table.name, error
            )
            return
        except ServiceError as error:
            # DynamoDB Local has no auto scaling. A configuration for AWS must work with it all the same.
            if error.code not in _NO_SUCH_SERVICE:
                raise
            logger.warning(
                "%s: its capacity is not scaled, because this endpoint has no auto scaling", table.name
            )
            return
        for capacity in scaled_capacities(table, self._config):
            known = scaling.get(capacity.key)
            if known is None:
                register = partial(gateway.call, "RegisterScalableTarget", target_request(capacity))
                await until_free(partial(register, table=table.name), *_BUSY)
                logger.info("switched on auto scaling of %s of %s", capacity.dimension, capacity.resource)
            if known is None or known.target is None:
                put = partial(gateway.call, "PutScalingPolicy", policy_request(capacity))
                await until_free(partial(put, table=table.name), *_BUSY)


def target_request(capacity: ScaledCapacity) -> dict[str, Any]:
    """Builds the request that lets a capacity be scaled between its limits."""
    return {
        **_NAMESPACE,
        "ResourceId": capacity.resource,
        "ScalableDimension": capacity.dimension,
        "MinCapacity": capacity.smallest,
        "MaxCapacity": capacity.largest,
    }


def policy_request(capacity: ScaledCapacity) -> dict[str, Any]:
    """Builds the request that sets how much of a capacity should be in use."""
    return {
        **_NAMESPACE,
        "PolicyName": POLICY_NAME,
        "PolicyType": "TargetTrackingScaling",
        "ResourceId": capacity.resource,
        "ScalableDimension": capacity.dimension,
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": capacity.target,
            "PredefinedMetricSpecification": {"PredefinedMetricType": capacity.metric},
        },
    }


async def _read(gateway: Gateway, table: Table[Any]) -> Scaling:
    """Returns the capacities of a table and its indexes that are scaled, even if others registered them."""
    resources = {capacity.resource for capacity in scaled_capacities(table, gateway.config)}
    request = {**_NAMESPACE, "ResourceIds": sorted(resources)}
    targets = await _list(gateway, "DescribeScalableTargets", request, table)
    policies = await gather(
        _list(gateway, "DescribeScalingPolicies", {**_NAMESPACE, "ResourceId": resource}, table)
        for resource in sorted({target["ResourceId"] for target in targets})
    )
    in_use = {
        (policy["ResourceId"], policy["ScalableDimension"]): float(tracking["TargetValue"])
        for of_resource in policies
        for policy in of_resource
        if (tracking := policy.get("TargetTrackingScalingPolicyConfiguration")) is not None
    }
    return {
        key: ScaledCapacity(*key, target["MinCapacity"], target["MaxCapacity"], in_use.get(key))
        for target in targets
        for key in [(target["ResourceId"], target["ScalableDimension"])]
    }


async def _list(gateway: Gateway, operation: Any, request: dict[str, Any], table: Table[Any]) -> list[Any]:
    """Returns all entries of a listing of Application Auto Scaling."""
    entries = []
    while True:
        response = await gateway.call(operation, request, table=table.name)
        entries += response[operation.removeprefix("Describe")]
        if (token := response.get("NextToken")) is None:
            return entries
        request = {**request, "NextToken": token}
