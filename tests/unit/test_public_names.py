"""The names that users import. `make lint` (import-linter) checks which room may import which."""

import importlib
import inspect
from pathlib import Path

import pytest

import ragcrawl_dynamo
from ragcrawl_dynamo import errors

PACKAGE = Path(ragcrawl_dynamo.__file__).parent


def test_public_names_are_these() -> None:
    assert set(ragcrawl_dynamo.__all__) == {
        *errors.__all__,
        *("DynamoDBBackend", "StorageBackend", "create_storage_backend", "DynamoDBConfig", "StorageConfig"),
        "TableOptions",
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
            "LinkFields",
            "StatsDeltas",
        ),
        *("Store", "connect", "Crawl", "Task", "Skip", "DoNotRetry", "WorkSummary"),
        *("normalize_url", "page_id", "registrable_domain"),
        *("CommitOutcome", "CommitResult", "ResponseKind"),
        *("ChangeKind", "ChangeSlice", "PageChange"),
        *(
            *("MigrationProgress", "TableInfo"),
            *("ClientOptions", "Destination"),
            "Slice",
            "OperationMetrics",
            "RequestEvent",
            "ContentUsage",
            "PruneReport",
            "GarbageReport",
        ),
    }
    assert all(hasattr(ragcrawl_dynamo, name) for name in ragcrawl_dynamo.__all__)


def test_public_names_include_every_error_and_the_tree_shows_it() -> None:
    classes = [
        name for name, member in inspect.getmembers(errors, inspect.isclass) if issubclass(member, Exception)
    ]
    assert sorted(classes) == sorted(errors.__all__)
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in classes)


def modules() -> list[str]:
    files = PACKAGE.rglob("*.py")
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in files]
    return sorted(names)


# Each is in an environment of its own, with the tests that import it.
CRAWLERS = ("adapters.ragcrawl.", "adapters.crawlee.", "adapters.scrapy.")
FRAMEWORKS = ("integrations.langchain", "integrations.llama_index", "integrations.haystack")


@pytest.mark.parametrize("name", [name for name in modules() if not name.startswith(CRAWLERS + FRAMEWORKS)])
def test_every_module_can_be_imported_alone(name: str) -> None:
    importlib.import_module(f"ragcrawl_dynamo.{name.removesuffix('.__init__')}".removesuffix(".__init__"))


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_are_named_by_the_path_from_which_users_import_them(name: str) -> None:
    assert getattr(errors, name).__module__ == "ragcrawl_dynamo.errors"
    assert getattr(ragcrawl_dynamo, name) is getattr(errors, name)
