"""Defines the types of the gateway's `call`: the request and the answer of each operation of AWS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from ragcrawl_dynamo._dynamodb.retry import Budget

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import type_defs as t


class Call(Protocol):
    """Sends one request, retries it where that can help, and returns the answer.

    Args:
        operation: The operation's name in AWS's reference.
        request: The arguments of the operation.
        table: The full name of the table, if the request does not name it.
        budget: The budget of the operation, whose permit the caller holds; by default the request is an
            operation of its own.

    Raises:
        BackendStateError: The gateway is not open, or open in another event loop.
        ServiceError: No attempt succeeded; its subclass says why.
    """

    @overload
    async def __call__(
        self,
        operation: Literal["GetItem"],
        request: t.GetItemInputTypeDef,
        *,
        budget: Budget | None = None,
    ) -> t.GetItemOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["PutItem"],
        request: t.PutItemInputTypeDef,
        *,
        budget: Budget | None = None,
    ) -> t.PutItemOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["UpdateItem"],
        request: t.UpdateItemInputTypeDef,
        *,
        budget: Budget | None = None,
    ) -> t.UpdateItemOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["DeleteItem"], request: t.DeleteItemInputTypeDef
    ) -> t.DeleteItemOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["Query"],
        request: t.QueryInputTypeDef,
        *,
        budget: Budget | None = None,
    ) -> t.QueryOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["Scan"], request: t.ScanInputTypeDef
    ) -> t.ScanOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["BatchGetItem"],
        request: t.BatchGetItemInputTypeDef,
        *,
        budget: Budget | None = None,
    ) -> t.BatchGetItemOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["BatchWriteItem"],
        request: t.BatchWriteItemInputTypeDef,
        *,
        budget: Budget | None = None,
    ) -> t.BatchWriteItemOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["CreateTable"], request: t.CreateTableInputTypeDef
    ) -> t.CreateTableOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["DescribeTable"], request: t.DescribeTableInputTypeDef
    ) -> t.DescribeTableOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["UpdateTable"], request: t.UpdateTableInputTypeDef
    ) -> t.UpdateTableOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["DeleteTable"], request: t.DeleteTableInputTypeDef
    ) -> t.DeleteTableOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["DescribeTimeToLive"], request: t.DescribeTimeToLiveInputTypeDef
    ) -> t.DescribeTimeToLiveOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["UpdateTimeToLive"], request: t.UpdateTimeToLiveInputTypeDef
    ) -> t.UpdateTimeToLiveOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["DescribeContinuousBackups"],
        request: t.DescribeContinuousBackupsInputTypeDef,
    ) -> t.DescribeContinuousBackupsOutputTypeDef: ...
    @overload
    async def __call__(
        self, operation: Literal["UpdateContinuousBackups"], request: t.UpdateContinuousBackupsInputTypeDef
    ) -> t.UpdateContinuousBackupsOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["BatchExecuteStatement"],
        request: t.BatchExecuteStatementInputTypeDef,
        *,
        table: str,
        budget: Budget | None = None,
    ) -> t.BatchExecuteStatementOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["TransactWriteItems"],
        request: t.TransactWriteItemsInputTypeDef,
        *,
        budget: Budget | None = None,
    ) -> t.TransactWriteItemsOutputTypeDef: ...
    @overload
    async def __call__(
        self,
        operation: Literal["HeadBucket", "PutObject", "GetObject", "DeleteObject"],
        request: Mapping[str, Any],
    ) -> Any: ...
    @overload
    async def __call__(
        self,
        operation: Literal[
            "RegisterScalableTarget",
            "PutScalingPolicy",
            "DescribeScalableTargets",
            "DescribeScalingPolicies",
        ],
        request: Mapping[str, Any],
        *,
        table: str,
    ) -> Any: ...
