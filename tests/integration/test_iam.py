"""The policies of ragcrawl_dynamo.iam against the requests of each role."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from ragcrawl_dynamo import (
    CorruptContentError,
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    InvalidArgumentError,
    StorageBackend,
    TableOptions,
)
from ragcrawl_dynamo._content.body_items import StoredBody
from ragcrawl_dynamo._content.packing import Manifest
from ragcrawl_dynamo._dynamodb.client import open_object_client
from ragcrawl_dynamo._dynamodb.requests import get_request
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._schema import migrations as schema
from ragcrawl_dynamo._schema.keys import version_key
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.iam import Role, policy
from ragcrawl_dynamo.models import utc_now
from ragcrawl_dynamo.testing import ManualClock, drop_tables, local_config
from tests.support.actions import allowed, recorded
from tests.support.engines import on_dynamodb_local, on_moto
from tests.support.factories import dense_text, make_item, make_page, make_run, make_site, make_version
from tests.support.fakes import intercepting

ROLES: tuple[Role, ...] = ("admin", "migrator", "worker", "reader")

KEY = "arn:aws:kms:eu-central-1:123456789012:key/0f9e8d7c-1234-5678-9abc-def012345678"

SCALED = TableOptions(kms_key="alias/crawl", autoscaling_max_read=50, autoscaling_max_write=20)

EVERYTHING = DynamoDBConfig(
    content_bucket="bucket",
    tags={"a": "b"},
    point_in_time_recovery=True,
    frontier_ttl_days=3,
    billing_mode="PROVISIONED",
    # Of an alias, the linter does not know the condition: it looks at those of actions, not of resources.
    tables=SCALED.model_copy(update={"kms_key": KEY}),
)

# Methods that make tables or send no request.
LIFECYCLE = {"initialize", "close", "config", "metrics"}


def methods(of: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(of) if not name.startswith("_")}


class Calls:
    """Calls methods by name, and remembers which."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.names: set[str] = set()

    async def __call__(self, name: str, *args: Any, **options: Any) -> Any:
        self.names.add(name)
        result = getattr(self.target, name)(*args, **options)
        if hasattr(result, "__aiter__"):
            return [element async for element in result]
        return await result if inspect.isawaitable(result) else result


async def write_everything(backend: DynamoDBBackend, clock: ManualClock) -> set[str]:
    """Every method that writes, in ways that reach all of its requests; returns their names."""
    call = Calls(backend)
    await call("save_site", make_site())
    await call("ensure_site", make_site())
    await call("start_run", make_run())
    # A run that has seen no page.
    later = clock.now() + timedelta(days=1)
    await call("save_run", make_run("later", status="partial", started_at=later, created_at=later))
    await call("add_run_stats", "site", "run", pages_crawled=1)
    await call("save_page", make_page())
    await call("save_pages_bulk", [make_page("bulk")])
    await call("save_version", make_version(markdown=dense_text(20)))
    # An equal body, shared, and then pruned.
    await call("save_version", make_version("v2", markdown=dense_text(20)), keep_unchanged=True)
    await call("save_versions_bulk", [make_version("v3"), make_version("v4")], keep_unchanged=True)
    # One that is in the content bucket.
    await call("save_version", make_version("large", "large", markdown=dense_text(20)))
    # One whose body is damaged, so that a reader looks again.
    await call("save_version", make_version("damaged", "damaged", markdown=dense_text(20)))
    head = version_key("damaged", "damaged", "site")
    response = await backend._rooms.gateway.call("GetItem", get_request(backend._rooms.tables.versions, head))
    manifest = Manifest.from_attribute(response["Item"]["body"])
    await backend._rooms.versions.bodies.delete(StoredBody.of_head(head, manifest))
    await call("mark_seen", "site", ["https://example.com/page"])
    await call("prune_versions", "site", keep_last=1, allow_mass_deletion=True)
    clock.advance(2 * 86_400)
    await call("collect_garbage", "site", grace_hours=0, allow_mass_deletion=True)
    await call("save_frontier_item", make_item(run_id="records"))
    await call("update_frontier_status", "records", "item", "completed")
    await call("clear_frontier", "records")
    frontier = backend.frontier("site", "run")
    call.names.add("frontier")
    names = await use_queue(frontier, clock)
    # It would be the end of the run that is used.
    other = Calls(backend.frontier("site", "cancelled"))
    await other("cancel")
    assert names | other.names == methods(Frontier) - NO_REQUEST
    await frontier.add(["https://a.example/x"])
    (claim,) = await frontier.claim(1)
    page = make_page(claim.item.item_id, status_code=200)
    version = make_version("v1", claim.item.item_id, markdown=dense_text(20))
    await call("commit_page", page, version, claim=claim, discovered=["https://a.example/y"])
    await call("tombstone_pages", "site", [page.page_id], allow_mass_deletion=True)
    await call("complete_run", "site", "run")
    return call.names


async def use_queue(frontier: Frontier, clock: ManualClock) -> set[str]:
    """Every verb of the queue; returns their names."""
    call = Calls(frontier)
    await call("add", [f"https://a.example/{i}" for i in range(8)])
    await call("set_host_delay", "b.example", 1.0)
    await call("set_host_max_in_flight", "c.example", 2)
    await call("block_host", "d.example", clock.now())
    claims = await call("claim", 8, lease_seconds=60)
    await call("renew", claims, 90)
    await call("complete", claims[:2])
    await call("fail", claims[2], "error", retry_in=None)
    await call("skip", claims[3], "reason")
    await call("release", claims[4:7])
    await call("put_back", claims[7], payload="changed", to_end=True)
    await call("stats", "a.example")
    await call("get", "https://a.example/0")
    for name in ("pause", "resume", "state", "stats", "iter_hosts", "is_finished", "recount"):
        await call(name)
    await call("requeue_failed")
    async with frontier.worker():
        call.names.add("worker")
    async with frontier.keeper(lambda *_: None):
        call.names.add("keeper")
    return call.names


# Methods that send no request.
NO_REQUEST = {"link", "run_id", "site_id"}


async def read_everything(backend: DynamoDBBackend) -> set[str]:
    """Every method that only reads; returns their names."""
    call = Calls(backend)
    await call("health_check")
    await call("get_site", "site")
    await call("list_sites")
    await call("iter_sites")
    await call("get_run", "site", "run")
    await call("find_run", "run")
    await call("list_runs", "site")
    await call("iter_runs", "site")
    await call("get_latest_run", "site")
    await call("get_page", "site", "page")
    await call("get_pages_bulk", "site", ["page", "bulk"])
    await call("get_page_by_url", "site", "https://example.com/page")
    await call("list_pages", "site")
    await call("iter_pages", "site")
    await call("count_pages", "site")
    await call("get_pages_needing_recrawl", "site")
    assert await call("get_unseen_pages", "site", "later") != []
    await call("iter_aliases", "site")
    await call("get_version", "site", "page", "v4")
    await call("find_version", "site", "v4")
    assert (await call("get_version", "site", "large", "large")).markdown == dense_text(20)
    with pytest.raises(CorruptContentError):
        await call("get_version", "site", "damaged", "damaged")
    await call("get_current_version", "site", "page")
    await call("list_versions", "site", "page")
    await call("iter_versions", "site")
    await call("get_content_usage", "site")
    await call("get_frontier_items", "run")
    frontier = Calls(backend.frontier("site", "run"))
    for name in ("state", "stats", "iter_hosts"):
        await frontier(name)
    await frontier("stats", "a.example")
    part = await call("list_changes", "site")
    await call("iter_changes", "site", "reader", include_content=True)
    await call("save_change_cursor", "site", "reader", part.cursor)
    await call("get_change_cursor", "site", "reader")
    await call("get_change_cursor", "site")
    return call.names


@pytest_asyncio.fixture
async def bucket(moto_endpoint: str) -> dict[str, Any]:
    """Settings of a content bucket that exists."""
    name = f"bucket-{uuid4().hex}"
    settings = {"content_bucket": name, "content_bucket_endpoint_url": moto_endpoint}
    async with open_object_client(local_config("http://unused", **settings)) as client:
        await client.create_bucket(Bucket=name)
    return {**settings, "content_bucket_threshold": 4096}


@on_dynamodb_local
@pytest.mark.parametrize("way", ["partiql", "item"])
async def test_iam_worker_policy_allows_what_a_worker_does_and_no_more(
    dynamodb_config: DynamoDBConfig, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    config = dynamodb_config.model_copy(update={"conditional_batches": way, **bucket})
    async with DynamoDBBackend(config):
        pass
    clock = ManualClock(utc_now())
    with recorded(monkeypatch) as needed:
        async with DynamoDBBackend(config, clock=clock) as backend:
            names = await write_everything(backend, clock)
            names |= await read_everything(backend)
            assert await backend.delete_site("site")
    # A worker also takes over and repairs records of other workers.
    assert names | {"delete_site"} == methods(StorageBackend) - LIFECYCLE
    assert needed == allowed(policy(config, "worker"))


@on_dynamodb_local
async def test_iam_reader_policy_allows_what_a_reader_does_and_no_more(
    dynamodb_config: DynamoDBConfig, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dynamodb_config.model_copy(update=bucket)
    clock = ManualClock(utc_now())
    async with DynamoDBBackend(config, clock=clock) as backend:
        await write_everything(backend, clock)
    with recorded(monkeypatch) as needed:
        async with DynamoDBBackend(config, clock=clock) as backend:
            await read_everything(backend)
    assert needed == allowed(policy(config, "reader"))


@on_moto
@pytest.mark.parametrize("role", ["admin", "migrator"])
async def test_iam_admin_and_migrator_policies_allow_what_they_do_and_no_more(
    dynamodb_endpoint: str, monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    """On moto, since DynamoDB Local knows neither tags nor backups."""
    settings: dict[str, Any] = {
        "tags": {"a": "b"},
        "point_in_time_recovery": True,
        "frontier_ttl_days": 3,
        "billing_mode": "PROVISIONED",
        "tables": TableOptions(autoscaling_max_read=50, autoscaling_max_write=20),
    }
    config = local_config(dynamodb_endpoint, **settings)

    async def without_indexes(operation: str, request: dict[str, Any], call: Any) -> Any:
        """As an older version might have made them."""
        if operation == "create_table" and request.pop("GlobalSecondaryIndexes", None):
            schemas = [
                request["KeySchema"],
                *(i["KeySchema"] for i in request.get("LocalSecondaryIndexes", [])),
            ]
            used = {element["AttributeName"] for schema in schemas for element in schema}
            request["AttributeDefinitions"] = [
                attribute
                for attribute in request["AttributeDefinitions"]
                if attribute["AttributeName"] in used
            ]
        return await call(**request)

    def mark(item: Item) -> Item:
        return {**item, "mark": {"BOOL": True}}

    with recorded(monkeypatch) as needed:
        old = DynamoDBBackend(config, client_factory=intercepting(without_indexes))
        if role == "admin":
            # The second time, it finds capacities that are scaled.
            for _ in range(2):
                await old.initialize(create_missing_indexes=True)
                await old.close()
        else:
            tables = [table.name.removeprefix(config.table_prefix) for table in old._rooms.tables.all()]
            monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
            monkeypatch.setattr(schema, "MIGRATIONS", [schema.Migration(3, name, mark) for name in tables])
            for _ in range(2):
                await old.migrate()
    if role == "migrator":
        # Permissions to rewrite and move items and to find open runs. These tables are empty.
        needed |= {("dynamodb:UpdateItem", config.table_prefix + name) for name in tables}
        of_runs = ("GetItem", "Query", "PutItem", "DeleteItem")
        needed |= {(f"dynamodb:{action}", f"{config.table_prefix}frontier") for action in of_runs}
    await drop_tables(config)
    assert needed == allowed(policy(config, role))


def matrix() -> list[str]:
    """The table of docs/security.md, with everything switched on that can be."""
    config = DynamoDBConfig(
        table_prefix="",
        content_bucket="bucket",
        tags={"a": "b"},
        point_in_time_recovery=True,
        frontier_ttl_days=1,
        billing_mode="PROVISIONED",
        tables=SCALED,
    )
    by_role = {role: allowed(policy(config, role)) for role in ROLES}
    needs = set().union(*by_role.values())
    rows = []
    tables = tuple(table.name for table in Tables.of("").all())
    for action, resource in sorted(
        needs, key=lambda need: (not need[1].startswith(tables), need[1], need[0])
    ):
        cells = ["yes" if (action, resource) in by_role[role] else "" for role in ROLES]
        if (action, resource) == ("dynamodb:PutItem", "pages"):
            cells[-1] = "keys with `#`"
        rows.append(
            f"| {resource} | {action} | {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")
        )
    return rows


def test_iam_matrix_in_the_docs_matches_the_policies() -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    shown = [line for line in text.splitlines() if ":" in line and line.startswith("| ")]
    assert shown == matrix()


def test_iam_policy_names_its_resources_and_is_valid_json() -> None:
    config = DynamoDBConfig(table_prefix="crawl_", region="eu-central-1", content_bucket="bodies")
    document = policy(config, "reader", account="123456789012", partition="aws-cn")
    assert json.loads(json.dumps(document)) == document
    resources = {resource for statement in document["Statement"] for resource in statement["Resource"]}
    assert "arn:aws-cn:dynamodb:eu-central-1:123456789012:table/crawl_pages/index/by_url" in resources
    assert "arn:aws-cn:s3:::bodies/*" in resources
    assert len({statement["Sid"] for statement in document["Statement"]}) == len(document["Statement"])
    assert all(statement["Sid"].isalnum() for statement in document["Statement"])
    # A reader writes nothing but the log of changes.
    (log,) = [statement for statement in document["Statement"] if "dynamodb:PutItem" in statement["Action"]]
    assert log["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["#*"]}}
    with pytest.raises(InvalidArgumentError, match="role: must be one of admin, migrator, worker, reader"):
        policy(config, "root")  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize(
    ("key", "resource", "aliases"),
    [
        (KEY, KEY, None),
        (KEY.rpartition("/")[2], KEY, None),
        ("alias/crawl", "arn:aws:kms:eu-central-1:123456789012:key/*", ["alias/crawl"]),
        (
            "arn:aws:kms:eu-central-1:999999999999:alias/crawl",
            "arn:aws:kms:eu-central-1:999999999999:key/*",
            ["alias/crawl"],
        ),
    ],
)
def test_iam_policy_allows_a_key_by_way_of_dynamodb_only(
    key: str, resource: str, aliases: list[str] | None
) -> None:
    config = DynamoDBConfig(region="eu-central-1", tables=TableOptions(kms_key=key))
    for role in ROLES:
        statements = policy(config, role, account="123456789012")["Statement"]
        (key_statement,) = [statement for statement in statements if statement["Sid"] == "Key"]
        assert key_statement["Resource"] == [resource]
        condition = key_statement["Condition"]
        assert condition["StringLike"] == {"kms:ViaService": "dynamodb.eu-central-1.amazonaws.com*"}
        assert condition.get("ForAnyValue:StringEquals", {}).get("kms:ResourceAliases") == aliases
        assert "kms:Decrypt" in key_statement["Action"]
        # DynamoDB asks for a grant when a table is created.
        assert ("kms:CreateGrant" in key_statement["Action"]) == (role in ("admin", "migrator"))


@pytest.mark.parametrize("key", [None, "alias/aws/dynamodb"])
def test_iam_policy_has_no_statement_on_keys_of_aws(key: str | None) -> None:
    document = policy(DynamoDBConfig(tables=TableOptions(kms_key=key)), "admin")
    assert not [statement for statement in document["Statement"] if statement["Sid"] == "Key"]


@pytest.mark.parametrize("role", ROLES)
async def test_iam_policy_passes_a_linter(role: Role) -> None:
    """In a process of its own: the linter leaves a file open, which is an error here."""
    text = json.dumps(policy(EVERYTHING, role, account="123456789012"))
    # Managed policies may take 6,144 characters (AWS: "IAM and AWS STS quotas").
    assert len(text) < 6144
    lint = "import sys, parliament; print(*parliament.analyze_policy_string(sys.argv[1]).findings, sep='\\n')"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", lint, text), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.decode().strip()) == (0, "")
