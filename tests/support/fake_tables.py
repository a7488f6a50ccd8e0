"""Fakes the five tables as DynamoDB describes them, for statuses and options that no local engine has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._schema.migrations import SCHEMA_VERSION
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.fakes import FakeClient, client_error


class FakeTables:
    """Answers the requests that a backend sends while it opens. A test changes the descriptions.

    Attributes:
        descriptions: The descriptions of the tables that exist, by their names without the prefix.
        on_request: Called before each answer, with the operation and the request; may raise, or change the
            descriptions.
        client: Records the requests.
    """

    def __init__(self, config: DynamoDBConfig) -> None:
        self._prefix = config.table_prefix
        self.descriptions: dict[str, Any] = {
            table.name.removeprefix(self._prefix): described(requests.create_table_request(table, config))
            for table in Tables.of(self._prefix).all()
        }
        self.time_to_live: dict[str, Any] = {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
        self.recovery = "DISABLED"
        self.on_request: Callable[[str, Any], None] = lambda operation, request: None
        self.client = FakeClient(self._answer)

    def sent(self, operation: str) -> list[Any]:
        """Returns the requests of one operation."""
        return [request for name, request in self.client.requests if name == operation]

    def _answer(self, operation: str, request: Any) -> Any:
        self.on_request(operation, request)
        name = request["TableName"].removeprefix(self._prefix)
        match operation:
            case "describe_table":
                if name not in self.descriptions:
                    raise client_error("ResourceNotFoundException")
                return {"Table": self.descriptions[name]}
            case "create_table":
                self.descriptions[name] = described(request)
            case "get_item":
                return {"Item": {"version": {"N": str(SCHEMA_VERSION)}, **request["Key"]}}
            case "describe_time_to_live":
                return {"TimeToLiveDescription": self.time_to_live}
            case "describe_continuous_backups":
                description = {"PointInTimeRecoveryStatus": self.recovery}
                return {"ContinuousBackupsDescription": {"PointInTimeRecoveryDescription": description}}
            case "update_table" | "update_time_to_live" | "update_continuous_backups":
                pass
            case _:
                raise AssertionError(operation)
        return {}


def described(request: Any) -> Any:
    """Returns how DynamoDB describes an active table after a request (AWS: TableDescription)."""
    description: Any = {
        "TableName": request["TableName"],
        "TableStatus": "ACTIVE",
        "KeySchema": request["KeySchema"],
        "AttributeDefinitions": request["AttributeDefinitions"],
        "DeletionProtectionEnabled": request["DeletionProtectionEnabled"],
        "LocalSecondaryIndexes": request.get("LocalSecondaryIndexes", []),
        "GlobalSecondaryIndexes": [
            {**index, "IndexStatus": "ACTIVE"} for index in request.get("GlobalSecondaryIndexes", [])
        ],
    }
    for same in ("ProvisionedThroughput", "OnDemandThroughput", "WarmThroughput", "StreamSpecification"):
        if same in request:
            description[same] = request[same]
    if request["BillingMode"] == "PAY_PER_REQUEST":
        description["BillingModeSummary"] = {"BillingMode": "PAY_PER_REQUEST"}
    if (table_class := request.get("TableClass")) is not None:
        description["TableClassSummary"] = {"TableClass": table_class}
    if (encryption := request.get("SSESpecification")) is not None:
        key = encryption.get("KMSMasterKeyId", "aws-managed")
        arn = key if key.startswith("arn:") else f"arn:aws:kms:us-east-1:123456789012:key/{key}"
        description["SSEDescription"] = {"Status": "ENABLED", "SSEType": "KMS", "KMSMasterKeyArn": arn}
    return description
