"""Names the IAM actions and resources that a request needs (AWS: "Service Authorization Reference")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from ragcrawl_dynamo._dynamodb.gateway import Gateway

if TYPE_CHECKING:
    import pytest

# An action, and the name of a table, of a table's index, of a bucket or its objects, or of something else.
Need: TypeAlias = tuple[str, str]

_ELEMENTS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
_STATEMENTS = {"INSERT": "PartiQLInsert", "UPDATE": "PartiQLUpdate", "SELECT": "PartiQLSelect"}


def needs(operation: str, request: dict[str, Any]) -> Iterator[Need]:
    """Yields the permissions that a role needs for a request."""
    match operation:
        case "TransactWriteItems":
            for element in request["TransactItems"]:
                ((kind, inner),) = element.items()
                yield f"dynamodb:{_ELEMENTS[kind]}", inner["TableName"]
        case "BatchExecuteStatement":
            for statement in request["Statements"]:
                target = re.match(r'(INSERT INTO|UPDATE) "([^"]+)"', statement["Statement"])
                assert target is not None, statement
                yield f"dynamodb:{_STATEMENTS[target[1].split()[0]]}", target[2]
        case "BatchGetItem" | "BatchWriteItem":
            for table in request["RequestItems"]:
                yield f"dynamodb:{operation}", table
        case "HeadBucket":
            yield "s3:ListBucket", request["Bucket"]
        case "GetObject" | "PutObject" | "DeleteObject":
            yield f"s3:{operation}", f"{request['Bucket']}/*"
        case "DescribeScalableTargets" | "DescribeScalingPolicies":
            yield f"application-autoscaling:{operation}", "*"
        case "RegisterScalableTarget" | "PutScalingPolicy":
            yield f"application-autoscaling:{operation}", "scalable-target/*"
            yield from _of_scaling(request["ResourceId"].split("/")[1])
        case _:
            index = f"/index/{request['IndexName']}" if "IndexName" in request else ""
            yield f"dynamodb:{operation}", request["TableName"] + index
            if operation == "CreateTable" and "Tags" in request:
                yield "dynamodb:TagResource", request["TableName"]


def _of_scaling(table: str) -> Iterator[Need]:
    """Yields the permissions that Application Auto Scaling needs from a caller that registers a capacity."""
    yield "dynamodb:UpdateTable", table
    prefix = table.rpartition("_")[0]
    for action in ("DeleteAlarms", "DescribeAlarms", "PutMetricAlarm"):
        yield f"cloudwatch:{action}", f"alarm:TargetTracking-table/{prefix}_*"
    service = "dynamodb.application-autoscaling.amazonaws.com"
    role = "AWSServiceRoleForApplicationAutoScaling_DynamoDBTable"
    yield "iam:CreateServiceLinkedRole", f"role/aws-service-role/{service}/{role}"


def allowed(policy: dict[str, Any]) -> set[Need]:
    """Returns the permissions that a policy grants, regardless of its conditions."""
    return {
        # After the service, the region and the account.
        (action, resource.split(":", 5)[-1].removeprefix("table/"))
        for statement in policy["Statement"]
        for action in statement["Action"]
        for resource in statement["Resource"]
    }


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Need]]:
    """Records all permissions that requests need while the context lasts."""
    needed: set[Need] = set()
    send = Gateway._await_client

    async def recording(self: Gateway, client: Any, operation: str, request: Any) -> Any:
        needed.update(needs(operation, request))
        return await send(self, client, operation, request)

    with monkeypatch.context() as patch:
        patch.setattr(Gateway, "_await_client", recording)
        yield needed
