"""Templates create the tables of initialize(): deployed by moto's CloudFormation, or read like Terraform."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import aioboto3
import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, SchemaVersionError, TableOptions
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._dynamodb.requests import create_table_request
from ragcrawl_dynamo._schema.autoscaling import policy_request, scaled_capacities, target_request
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
OPTIONS: dict[str, Any] = {
    "tables": TableOptions(
        kms_key="arn:aws:kms:us-east-1:123456789012:key/0f9e8d7c-1234-5678-9abc-def012345678",
        table_class="STANDARD_INFREQUENT_ACCESS",
        stream_view="NEW_IMAGE",
        on_demand_max_read=300,
        on_demand_max_write=200,
        warm_read=15_000,
        warm_write=5_000,
    )
}
SCALED: dict[str, Any] = {
    "billing_mode": "PROVISIONED",
    "tables": TableOptions(autoscaling_max_read=50, autoscaling_max_write=20, autoscaling_target=60),
}


async def made(client: Any, config: DynamoDBConfig) -> dict[str, Any]:
    """Describes each table, without values that depend on the moment or on the name."""
    tables = {}
    for table in Tables.of(config.table_prefix).all():
        description = (await client.describe_table(TableName=table.name))["Table"]
        ttl = await client.describe_time_to_live(TableName=table.name)
        backups = await client.describe_continuous_backups(TableName=table.name)
        tags = await client.list_tags_of_resource(ResourceArn=description["TableArn"])

        def keyed(table_or_index: dict[str, Any]) -> Any:
            return (
                table_or_index.get("IndexName"),
                table_or_index["KeySchema"],
                table_or_index.get("Projection"),
                *(
                    table_or_index.get("ProvisionedThroughput", {}).get(f"{kind}CapacityUnits")
                    for kind in ("Read", "Write")
                ),
                table_or_index.get("WarmThroughput"),
            )

        tables[table.name.removeprefix(config.table_prefix)] = {
            "table": keyed(description),
            "attributes": sorted(
                (attribute["AttributeName"], attribute["AttributeType"])
                for attribute in description["AttributeDefinitions"]
            ),
            "indexes": sorted(map(str, map(keyed, description.get("GlobalSecondaryIndexes", [])))),
            "local": sorted(map(str, map(keyed, description.get("LocalSecondaryIndexes", [])))),
            "billing": description.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
            "stream": description.get("StreamSpecification"),
            "encryption": description.get("SSEDescription"),
            "protected": description.get("DeletionProtectionEnabled", False),
            "ttl": ttl["TimeToLiveDescription"],
            "backups": backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"][
                "PointInTimeRecoveryStatus"
            ],
            "tags": [tag for tag in tags["Tags"] if not tag["Key"].startswith("aws:")],
        }
    return tables


async def unprotect(client: Any, config: DynamoDBConfig) -> None:
    for table in Tables.of(config.table_prefix).all():
        await client.update_table(TableName=table.name, DeletionProtectionEnabled=False)
    await drop_tables(config)


@pytest.mark.parametrize("settings", [PLAIN, FULL, OPTIONS])
async def test_templates_cloudformation_creates_the_tables_of_initialize(
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
        created = await made(client, by_stack)
        # moto's CloudFormation leaves these three out.
        for name, table in expected.items():
            resource = template["Resources"][f"{name.title()}Table"]["Properties"]
            ttl = resource.get("TimeToLiveSpecification", {"Enabled": False})
            created[name]["ttl"] = {
                "TimeToLiveStatus": "ENABLED" if ttl["Enabled"] else "DISABLED",
                **{key: ttl[key] for key in ("AttributeName",) if key in ttl},
            }
            recovery = resource["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
            created[name]["backups"] = "ENABLED" if recovery else "DISABLED"
            if (encryption := resource.get("SSESpecification")) is not None:
                created[name]["encryption"] = {
                    "Status": "ENABLED" if encryption["SSEEnabled"] else "DISABLED",
                    "SSEType": encryption["SSEType"],
                    "KMSMasterKeyArn": encryption["KMSMasterKeyId"],
                }
            assert created[name] == table
        # A backend accepts these tables, once they have a version.
        with pytest.raises(SchemaVersionError, match=r"upgrade the tables with migrate\(\)"):
            await DynamoDBBackend(by_stack).initialize()
        assert await DynamoDBBackend(by_stack).migrate() == 0
        async with DynamoDBBackend(by_stack) as backend:
            assert await backend.health_check()
        await unprotect(client, by_hand)
        await unprotect(client, by_stack)


def as_request(resource: dict[str, Any]) -> dict[str, Any]:
    """The CreateTable request that Terraform's provider makes of a resource."""

    def schema(block: dict[str, Any], hash_key: str | None = None) -> list[dict[str, str]]:
        names = (("HASH", hash_key or block["hash_key"]), ("RANGE", block.get("range_key")))
        return [{"AttributeName": name, "KeyType": kind} for kind, name in names if name]

    def throughput(block: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if "read_capacity" in block:
            options["ProvisionedThroughput"] = {
                "ReadCapacityUnits": block["read_capacity"],
                "WriteCapacityUnits": block["write_capacity"],
            }
        for limits in block.get("on_demand_throughput", []):
            options["OnDemandThroughput"] = {
                "MaxReadRequestUnits": limits["max_read_request_units"],
                "MaxWriteRequestUnits": limits["max_write_request_units"],
            }
        for limits in block.get("warm_throughput", []):
            options["WarmThroughput"] = {
                "ReadUnitsPerSecond": limits["read_units_per_second"],
                "WriteUnitsPerSecond": limits["write_units_per_second"],
            }
        return options

    def index(block: dict[str, Any], hash_key: str | None = None) -> dict[str, Any]:
        return {
            "IndexName": block["name"],
            "KeySchema": schema(block, hash_key),
            "Projection": {"ProjectionType": block["projection_type"]},
            **throughput(block),
        }

    request = {
        "TableName": resource["name"],
        "KeySchema": schema(resource),
        "AttributeDefinitions": [
            {"AttributeName": attribute["name"], "AttributeType": attribute["type"]}
            for attribute in resource["attribute"]
        ],
        "BillingMode": resource["billing_mode"],
        "DeletionProtectionEnabled": resource["deletion_protection_enabled"],
        "Tags": [{"Key": key, "Value": value} for key, value in resource.get("tags", {}).items()],
        **throughput(resource),
    }
    for encryption in resource.get("server_side_encryption", []):
        request["SSESpecification"] = {
            "Enabled": encryption["enabled"],
            "SSEType": "KMS",
            "KMSMasterKeyId": encryption["kms_key_arn"],
        }
    if resource.get("stream_enabled"):
        view = resource["stream_view_type"]
        request["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": view}
    if "table_class" in resource:
        request["TableClass"] = resource["table_class"]
    if indexes := resource.get("global_secondary_index"):
        request["GlobalSecondaryIndexes"] = list(map(index, indexes))
    if indexes := resource.get("local_secondary_index"):
        request["LocalSecondaryIndexes"] = [index(block, resource["hash_key"]) for block in indexes]
    return request


@pytest.mark.parametrize("settings", [PLAIN, FULL, OPTIONS])
async def test_templates_terraform_creates_the_tables_of_initialize(
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
            for ttl in resource.get("ttl", []):
                await client.update_time_to_live(
                    TableName=resource["name"],
                    TimeToLiveSpecification={
                        "Enabled": ttl["enabled"],
                        "AttributeName": ttl["attribute_name"],
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


@pytest.mark.parametrize("settings", [PLAIN, FULL, OPTIONS, SCALED])
def test_templates_terraform_has_the_tables_that_initialize_requests(settings: dict[str, Any]) -> None:
    """The requests, with the options that moto does not know."""
    config = DynamoDBConfig(**settings)
    resources = terraform(config)["resource"]["aws_dynamodb_table"]
    for table in Tables.of(config.table_prefix).all():
        request: Any = {"Tags": [], **create_table_request(table, config)}
        assert as_request(resources[table.name.removeprefix(config.table_prefix)]) == request


def test_templates_cloudformation_names_options_as_cloudformation_does() -> None:
    """moto takes DynamoDB's names too. These are from CloudFormation's reference of AWS::DynamoDB::Table."""
    config = DynamoDBConfig(**OPTIONS)
    pages = cloudformation(config)["Resources"]["PagesTable"]["Properties"]
    key = config.tables.kms_key
    assert pages["SSESpecification"] == {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key}
    assert pages["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert pages["TableClass"] == "STANDARD_INFREQUENT_ACCESS"
    for keyed in (pages, pages["GlobalSecondaryIndexes"][0]):
        assert keyed["OnDemandThroughput"] == {"MaxReadRequestUnits": 300, "MaxWriteRequestUnits": 200}
        assert keyed["WarmThroughput"] == {"ReadUnitsPerSecond": 15_000, "WriteUnitsPerSecond": 5_000}


def test_templates_scale_the_capacities_that_initialize_scales() -> None:
    config = DynamoDBConfig(**SCALED)
    tables = Tables.of(config.table_prefix).all()
    wanted = [capacity for table in tables for capacity in scaled_capacities(table, config)]
    resources = cloudformation(config)["Resources"]
    targets = [resource for resource in resources.values() if resource["Type"].endswith("::ScalableTarget")]
    policies = [resource for resource in resources.values() if resource["Type"].endswith("::ScalingPolicy")]
    assert [target["Properties"] for target in targets] == list(map(target_request, wanted))
    for target, policy, capacity in zip(targets, policies, wanted, strict=True):
        assert resources[target["DependsOn"]]["Properties"]["TableName"] in capacity.resource
        properties = policy["Properties"]
        assert resources[properties.pop("ScalingTargetId")["Ref"]] is target
        # The target has the names of the capacity.
        named = {key: target["Properties"][key] for key in _NAMES}
        assert {**properties, **named} == policy_request(capacity)

    blocks = terraform(config)["resource"]
    assert len(blocks["aws_appautoscaling_target"]) == len(blocks["aws_appautoscaling_policy"]) == len(wanted)
    by_url = "pages_by_url_write"
    assert blocks["aws_appautoscaling_target"][by_url] == {
        "service_namespace": "dynamodb",
        "resource_id": "table/ragcrawl_pages/index/by_url",
        "scalable_dimension": "dynamodb:index:WriteCapacityUnits",
        "min_capacity": 5,
        "max_capacity": 20,
        "depends_on": ["aws_dynamodb_table.pages"],
    }
    assert blocks["aws_appautoscaling_policy"][by_url] == {
        "name": "ragcrawl-dynamo",
        "policy_type": "TargetTrackingScaling",
        "service_namespace": f"${{aws_appautoscaling_target.{by_url}.service_namespace}}",
        "resource_id": f"${{aws_appautoscaling_target.{by_url}.resource_id}}",
        "scalable_dimension": f"${{aws_appautoscaling_target.{by_url}.scalable_dimension}}",
        "target_tracking_scaling_policy_configuration": [
            {
                "target_value": 60.0,
                "predefined_metric_specification": [
                    {"predefined_metric_type": "DynamoDBWriteCapacityUtilization"}
                ],
            }
        ],
    }
    # Terraform does not change scaled capacities.
    ignored = blocks["aws_dynamodb_table"]["pages"]["lifecycle"]["ignore_changes"]
    assert ignored == ["read_capacity", "write_capacity", "global_secondary_index"]


_NAMES = ("ServiceNamespace", "ResourceId", "ScalableDimension")


@pytest.mark.parametrize(
    ("key", "encryption", "looked_up"),
    [
        ("alias/aws/dynamodb", {"enabled": True}, None),
        (
            "alias/crawl",
            {"enabled": True, "kms_key_arn": "${data.aws_kms_key.tables.arn}"},
            {"aws_kms_key": {"tables": {"key_id": "alias/crawl"}}},
        ),
    ],
)
def test_templates_terraform_looks_up_the_arn_of_a_key(
    key: str, encryption: dict[str, Any], looked_up: dict[str, Any] | None
) -> None:
    document = terraform(DynamoDBConfig(tables=TableOptions(kms_key=key)))
    table = document["resource"]["aws_dynamodb_table"]["sites"]
    assert table["server_side_encryption"] == [encryption]
    assert document.get("data") == looked_up


def test_templates_terraform_needs_a_provider_that_knows_the_options() -> None:
    def version(**options: Any) -> str:
        document = terraform(DynamoDBConfig(tables=TableOptions(**options)))
        return str(document["terraform"]["required_providers"]["aws"]["version"])

    assert version() == version(stream_view="NEW_IMAGE") == ">= 5.0"
    assert version(warm_read=20_000) == version(on_demand_max_write=5) == ">= 6.13"
