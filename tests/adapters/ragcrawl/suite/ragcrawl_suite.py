"""Runs ragcrawl's own tests with this storage in the place of DuckDB (`make test-ragcrawl-suite`).

    python tests/adapters/ragcrawl/suite/ragcrawl_suite.py FOLDER_OF_THE_SOURCES FOLDER_OF_DYNAMODB_LOCAL

It is a script, not a module of `tests`: ragcrawl's tests are in a package of that name too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import ragcrawl.storage.duckdb.backend as duckdb_module

from ragcrawl_dynamo.adapters.ragcrawl import RagcrawlBackend, install
from ragcrawl_dynamo.testing import local_config, run_dynamodb_local

if TYPE_CHECKING:
    from ragcrawl.config.storage_config import DuckDBConfig

# How many tests pass, and how many of them use the tables. Neither may fall.
PASSED = 166
ON_TABLES = 10

_DOWNLOAD = "tiktoken downloads its encoding from the internet; it touches no storage"
_ABSENT = "reads a file of ragcrawl's repository that its source archive lacks"

# The tests that are skipped, and why. None of them touches storage.
SKIPPED = {
    **{
        f"tests/unit/test_chunking.py::TestTokenChunker::{name}": _DOWNLOAD
        for name in (
            *("test_chunk_short_content", "test_chunk_long_content", "test_chunk_overlap"),
            *("test_chunk_respects_max_tokens", "test_chunk_preserves_sentences", "test_chunk_metadata"),
            *("test_custom_encoding", "test_chunk_unicode_content"),
        )
    },
    **{
        f"tests/unit/test_project_metadata.py::TestCommunityFiles::{name}": _ABSENT
        for name in (
            *("test_contributing_file_exists", "test_code_of_conduct_exists", "test_support_file_exists"),
            *("test_changelog_exists", "test_issue_template_exists"),
            *("test_contributing_has_required_sections", "test_changelog_has_version_entries"),
            "test_code_of_conduct_references_contributor_covenant",
        )
    },
}


class Suite:
    """A plugin of pytest: puts the storage in, skips the listed tests, and counts.

    Attributes:
        outcomes: How many tests passed, failed and were skipped.
        on_tables: The tests that passed and used the storage.
        unknown: Entries of the list of skipped tests that are no tests.
    """

    def __init__(self, endpoint: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.on_tables: set[str] = set()
        self.unknown: set[str] = set()
        self._endpoint = endpoint
        self._files: list[str] = []
        self._test = ""
        self._uses_tables: set[str] = set()

    def put_in(self) -> None:
        """Makes ragcrawl's factory create a backend on DynamoDB where its settings say DuckDB."""
        install()
        module = ModuleType(duckdb_module.__name__)
        module.DuckDBBackend = self._create  # type: ignore[attr-defined] # the name that ragcrawl imports
        sys.modules[module.__name__] = module

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.unknown = SKIPPED.keys() - {item.nodeid for item in items}
        for item in items:
            if reason := SKIPPED.get(item.nodeid):
                item.add_marker(pytest.mark.skip(reason=reason))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._test = item.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1
            if report.outcome == "passed" and report.nodeid in self._uses_tables:
                self.on_tables.add(report.nodeid)

    def _create(self, config: DuckDBConfig) -> RagcrawlBackend:
        """Creates a backend with tables of its own for each file of DuckDB."""
        self._uses_tables.add(self._test)
        path = str(config.path)
        if path not in self._files:
            self._files.append(path)
        prefix = f"suite{self._files.index(path)}_"
        return RagcrawlBackend(local_config(self._endpoint, table_prefix=prefix))


def main(sources: Path, dynamodb_local: Path) -> int:
    """Runs the tests; returns the exit code."""
    with run_dynamodb_local(dynamodb_local) as endpoint, tempfile.TemporaryDirectory() as home:
        # ragcrawl's settings of this user are left alone.
        os.environ["HOME"] = home
        os.chdir(sources)
        suite = Suite(endpoint)
        suite.put_in()
        settings = ("-c", "pyproject.toml", "--rootdir", ".", "-o", "addopts=", "-p", "no:cacheprovider")
        code = pytest.main([*settings, "-q", "--no-header", "tests"], plugins=[suite])
    counts = ", ".join(f"{suite.outcomes[name]} {name}" for name in ("passed", "skipped", "failed"))
    print(f"ragcrawl's own suite: {counts}; {len(suite.on_tables)} of those that passed used DynamoDB")
    if suite.unknown:
        print(f"these are skipped, and are no tests: {', '.join(sorted(suite.unknown))}")
    if suite.outcomes["passed"] < PASSED or len(suite.on_tables) < ON_TABLES:
        print(f"at least {PASSED} must pass, and {ON_TABLES} of them use DynamoDB")
        return 1
    return int(code) or bool(suite.unknown)


if __name__ == "__main__":
    sys.exit(main(*(Path(argument).resolve() for argument in sys.argv[1:3])))
