"""What users import, and which module may import which."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import ragcrawl_dynamo
from ragcrawl_dynamo import errors

PACKAGE = Path(ragcrawl_dynamo.__file__).parent

# From the bottom up: a module imports from lines above its own only.
LAYERS = [
    ["errors", "models", "config", "_ranges", "_pressure", "_expressions", "_clock", "_seen", "_tasks"],
    ["_hosts", "_schema", "_arguments", "_cursors"],
    ["_keys", "_retry", "_content"],
    ["_metrics", "_translation", "_transport"],
    ["_tuning"],
    ["_client"],
    ["_tables"],
    ["_codec", "iam"],
    ["_changes"],
    ["_requests", "_gateway", "_partiql"],
    ["templates"],
    ["_batching"],
    ["_paging", "_provision", "_conditional", "_coalescing"],
    ["stores.lanes", "stores.schema"],
    ["stores.sites", "stores.runs", "stores.pages", "stores.bodies", "stores.frontier"],
    ["stores.counters", "stores.queue"],
    ["stores.hosts", "stores.members", "_claims"],
    ["_claiming", "_keeping", "telemetry"],
    ["_rounds", "_waking", "_worker"],
    ["_adding", "_completion", "_finishing"],
    ["_commits"],
    ["_folding"],
    ["frontier"],
    ["stores.versions"],
    ["stores.maintenance", "stores.changes", "_live"],
    ["_committing"],
    ["backend"],
    ["__init__"],
    ["cli.output", "cli.transfer"],
    ["cli.session"],
    ["cli.tables", "cli.runs", "cli.content"],
    ["cli.app"],
    ["cli.__init__"],
    ["__main__"],
    ["adapters.__init__", "adapters._portal", "adapters._runs", "adapters._slices"],
    ["adapters.crawlee", "adapters.ragcrawl", "adapters.scrapy"],
    ["testing.clock", "testing.engines", "testing.settings"],
    ["testing.__init__"],
    ["testing.plugin", "testing.conformance"],
]


def test_the_public_names() -> None:
    assert set(ragcrawl_dynamo.__all__) == {
        *errors.__all__,
        *("DynamoDBBackend", "StorageBackend", "create_storage_backend", "DynamoDBConfig", "StorageConfig"),
        *(
            "Site",
            "CrawlRun",
            "CrawlStats",
            "RunStatus",
            "Page",
            "PageVersion",
            "FrontierItem",
            "FrontierStatus",
        ),
        *(
            "Frontier",
            "Claim",
            "AddResult",
            "FrontierStats",
            "HostStatus",
            "RunState",
            "Worker",
            "LeaseKeeper",
        ),
        *("CommitOutcome", "CommitResult"),
        *("ChangeKind", "ChangeSlice", "PageChange"),
        *(
            *("MigrationProgress", "TableInfo"),
            "Slice",
            "OperationMetrics",
            "RequestEvent",
            "ContentUsage",
            "PruneReport",
            "GarbageReport",
        ),
    }
    assert all(hasattr(ragcrawl_dynamo, name) for name in ragcrawl_dynamo.__all__)


def test_every_error_is_public_and_drawn_in_the_tree() -> None:
    classes = [
        name for name, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)
    ]
    assert sorted(classes) == sorted(errors.__all__)
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in classes)


def modules() -> list[str]:
    files = PACKAGE.rglob("*.py")
    names = [".".join(each.relative_to(PACKAGE).with_suffix("").parts) for each in files]
    return sorted(name for name in names if name != "stores.__init__")


def test_every_module_has_its_layer() -> None:
    assert sorted(name for layer in LAYERS for name in layer) == modules()


@pytest.mark.parametrize("name", modules())
def test_imports_point_downwards_only(name: str) -> None:
    own = next(i for i, layer in enumerate(LAYERS) if name in layer)
    below = {each for layer in LAYERS[:own] for each in layer}
    source = (PACKAGE / Path(*name.split("."))).with_suffix(".py").read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ragcrawl_dynamo"):
            module = (node.module or "").removeprefix("ragcrawl_dynamo").lstrip(".")
            for alias in node.names:
                candidates = {
                    f"{module}.{alias.name}".lstrip("."),
                    module or "__init__",
                    f"{module}.__init__",
                }
                assert candidates & below, f"{name} imports {node.module}.{alias.name}"


def test_only_one_file_imports_an_aws_client() -> None:
    users = {
        name
        for name in modules()
        if "aioboto3" in (PACKAGE / Path(*name.split("."))).with_suffix(".py").read_text()
    }
    assert users == {"_client"}


# Each is in an environment of its own, with the tests that import it.
CRAWLERS = {"adapters.ragcrawl", "adapters.crawlee", "adapters.scrapy"}


@pytest.mark.parametrize("name", [each for each in modules() if each not in CRAWLERS])
def test_every_module_can_be_imported_alone(name: str) -> None:
    importlib.import_module(f"ragcrawl_dynamo.{name.removesuffix('.__init__')}".removesuffix(".__init__"))
