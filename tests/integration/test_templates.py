"""Templates against what initialize() makes: deployed by moto's CloudFormation, or read as Terraform does."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import aioboto3
import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, SchemaVersionError
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.templates import cloudformation, terraform
from ragcrawl_dynamo.testing import drop_tables, local_config

PLAIN: dict[str, Any] = {}
FULL: dict[str, Any] = {
    "billing_mode": "PROVISIONED",
    "read_capacity": 7,
    "write_capacity": 9,
    "tags": {"team": "crawl"},
    "point_in_time_recovery": True,
    "deletion_protection": True,
    "frontier_ttl_days": 3,
}


async def made(client: Any, config: DynamoDBConfig) -> dict[str, Any]:
    """What there is of each table, but for what depends on the moment and the name."""
    found = {}
    for table in Tables.of(config.table_prefix).all():
        description = (await client.describe_table(TableName=table.name))["Table"]
        ttl = await client.describe_time_to_live(TableName=table.name)
        backups = await client.describe_continuous_backups(TableName=table.name)
        tags = await client.list_tags_of_resource(ResourceArn=description["TableArn"])

        def keyed(each: dict[str, Any]) -> Any:
            return (
                each.get("IndexName"),
                each["KeySchema"],
                each.get("Projection"),
                *(
                    each.get("ProvisionedThroughput", {}).get(f"{kind}CapacityUnits")
                    for kind in ("Read", "Write")
                ),
            )

        found[table.name.removeprefix(config.table_prefix)] = {
            "table": keyed(description),
            "attributes": sorted(
                (each["AttributeName"], each["AttributeType"]) for each in description["AttributeDefinitions"]
            ),
            "indexes": sorted(map(str, map(keyed, description.get("GlobalSecondaryIndexes", [])))),
            "local": sorted(map(str, map(keyed, description.get("LocalSecondaryIndexes", [])))),
            "billing": description.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
            "protected": description.get("DeletionProtectionEnabled", False),
            "ttl": ttl["TimeToLiveDescription"],
            "backups": backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"][
                "PointInTimeRecoveryStatus"
            ],
            "tags": [each for each in tags["Tags"] if not each["Key"].startswith("aws:")],
        }
    return found


async def unprotect(client: Any, config: DynamoDBConfig) -> None:
    for table in Tables.of(config.table_prefix).all():
        await client.update_table(TableName=table.name, DeletionProtectionEnabled=False)
    await drop_tables(config)


@pytest.mark.parametrize("settings", [PLAIN, FULL])
async def test_templates_cloudformation_creates_what_initialize_creates(
    moto_endpoint: str, settings: dict[str, Any]
) -> None:
    by_hand = local_config(moto_endpoint, **settings)
    by_stack = local_config(moto_endpoint, **settings)
    async with open_client(by_hand) as client:
        async with DynamoDBBackend(by_hand):
            expected = await made(client, by_hand)
        keys: dict[str, Any] = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        session = aioboto3.Session(region_name=by_stack.region, **keys)
        async with session.client("cloudformation", endpoint_url=moto_endpoint) as stacks:
            template = cloudformation(by_stack)
            await stacks.create_stack(StackName=f"tables-{uuid4().hex}", TemplateBody=json.dumps(template))
        found = await made(client, by_stack)
        # moto's CloudFormation leaves these two out.
        for name, table in expected.items():
            resource = template["Resources"][f"{name.title()}Table"]["Properties"]
            ttl = resource.get("TimeToLiveSpecification", {"Enabled": False})
            found[name]["ttl"] = {
                "TimeToLiveStatus": "ENABLED" if ttl["Enabled"] else "DISABLED",
                **{key: ttl[key] for key in ("AttributeName",) if key in ttl},
            }
            recovery = resource["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
            found[name]["backups"] = "ENABLED" if recovery else "DISABLED"
            assert found[name] == table
        # It is what a backend takes for its own, too, once it has a version.
        with pytest.raises(SchemaVersionError, match=r"upgrade the tables with migrate\(\)"):
            await DynamoDBBackend(by_stack).initialize()
        assert await DynamoDBBackend(by_stack).migrate() == 0
        async with DynamoDBBackend(by_stack) as backend:
            assert await backend.health_check()
        await unprotect(client, by_hand)
        await unprotect(client, by_stack)


def as_request(resource: dict[str, Any]) -> dict[str, Any]:
    """The CreateTable request that Terraform's provider makes of a resource."""

    def schema(each: dict[str, Any], hash_key: str | None = None) -> list[dict[str, str]]:
        names = (("HASH", hash_key or each["hash_key"]), ("RANGE", each.get("range_key")))
        return [{"AttributeName": name, "KeyType": kind} for kind, name in names if name]

    def throughput(each: dict[str, Any]) -> dict[str, Any]:
        if "read_capacity" not in each:
            return {}
        return {
            "ProvisionedThroughput": {
                "ReadCapacityUnits": each["read_capacity"],
                "WriteCapacityUnits": each["write_capacity"],
            }
        }

    def index(each: dict[str, Any], hash_key: str | None = None) -> dict[str, Any]:
        return {
            "IndexName": each["name"],
            "KeySchema": schema(each, hash_key),
            "Projection": {"ProjectionType": each["projection_type"]},
            **throughput(each),
        }

    request = {
        "TableName": resource["name"],
        "KeySchema": schema(resource),
        "AttributeDefinitions": [
            {"AttributeName": each["name"], "AttributeType": each["type"]} for each in resource["attribute"]
        ],
        "BillingMode": resource["billing_mode"],
        "DeletionProtectionEnabled": resource["deletion_protection_enabled"],
        "Tags": [{"Key": key, "Value": value} for key, value in resource.get("tags", {}).items()],
        **throughput(resource),
    }
    if indexes := resource.get("global_secondary_index"):
        request["GlobalSecondaryIndexes"] = list(map(index, indexes))
    if indexes := resource.get("local_secondary_index"):
        request["LocalSecondaryIndexes"] = [index(each, resource["hash_key"]) for each in indexes]
    return request


@pytest.mark.parametrize("settings", [PLAIN, FULL])
async def test_templates_terraform_creates_what_initialize_creates(
    moto_endpoint: str, settings: dict[str, Any]
) -> None:
    by_hand = local_config(moto_endpoint, **settings)
    by_terraform = local_config(moto_endpoint, **settings)
    # Through text, as Terraform reads it.
    resources = json.loads(json.dumps(terraform(by_terraform)))["resource"]["aws_dynamodb_table"]
    async with open_client(by_hand) as client:
        async with DynamoDBBackend(by_hand):
            expected = await made(client, by_hand)
        for resource in resources.values():
            request: Any = as_request(resource)
            await client.create_table(**request)
            for each in resource.get("ttl", []):
                await client.update_time_to_live(
                    TableName=resource["name"],
                    TimeToLiveSpecification={
                        "Enabled": each["enabled"],
                        "AttributeName": each["attribute_name"],
                    },
                )
            if resource["point_in_time_recovery"][0]["enabled"]:
                await client.update_continuous_backups(
                    TableName=resource["name"],
                    PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
                )
        assert await made(client, by_terraform) == expected
        await unprotect(client, by_hand)
        await unprotect(client, by_terraform)
