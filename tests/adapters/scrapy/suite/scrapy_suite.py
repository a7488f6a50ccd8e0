"""Runs Scrapy's own tests on the adapter, in the folder of its source archive: `make test-scrapy-suite`.

The default settings of Scrapy get the add-on, so that each crawler of these tests keeps its requests in
DynamoDB Local, in a run of its own. It is an error if a test fails without a reason in `SKIPPED`, or if fewer
tests pass than `FLOOR` says. The module is a plugin of pytest; as a program, it calls pytest with itself.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from uuid import uuid4

import pytest
from scrapy.settings import BaseSettings, default_settings
from scrapy_suite_tests import FLOOR, MODULES, SKIPPED

from ragcrawl_dynamo.testing import local_config, run_dynamodb_local

# As in the package's own tests: the engine lives too short for its best optimizations to pay.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

# By this variable, the workers of xdist know the engine.
_ENDPOINT = "SCRAPY_SUITE_ENDPOINT"


class OwnRun:
    """An add-on that gives each crawler a run of its own."""

    def update_settings(self, settings: BaseSettings) -> None:
        settings.set("RAGCRAWL_DYNAMO_RUN_ID", uuid4().hex, "addon")


def pytest_configure(config: pytest.Config) -> None:
    if _ENDPOINT not in os.environ:
        running = ExitStack()
        config.add_cleanup(running.close)
        os.environ[_ENDPOINT] = running.enter_context(run_dynamodb_local(os.environ["DYNAMODB_LOCAL"]))
    default_settings.ADDONS = {OwnRun: 1, "ragcrawl_dynamo.adapters.scrapy.Addon": 500}
    # All crawlers share the tables, which the first one creates.
    default_settings.RAGCRAWL_DYNAMO_CONFIG = local_config(os.environ[_ENDPOINT], table_prefix="suite_")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items_by_id = {item.nodeid: item for item in items}
    for item_id, reason in SKIPPED.items():
        if item_id in items_by_id:
            items_by_id[item_id].add_marker(pytest.mark.skip(reason=reason))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Prints the counts, and fails if they have fallen. Only the process that was called has the reporter."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(session.config, "workerinput") or reporter is None or not _is_whole(session.config):
        return
    # Of a skipped test, pytest reports the reason as (file, line, text).
    skipped = {report.nodeid for report in reporter.stats.get("skipped", ())}
    passed = len(reporter.stats.get("passed", ()))
    failed = len(reporter.stats.get("failed", ())) + len(reporter.stats.get("error", ()))
    counts = f"{passed} passed, {len(skipped)} skipped of {passed + len(skipped) + failed}"
    reporter.write_line("")
    reporter.write_line(f"Scrapy's own suite: {counts}")
    if unknown := SKIPPED.keys() - skipped:
        reporter.write_line(f"These are skipped, but do not exist: {', '.join(sorted(unknown))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if passed < FLOOR:
        reporter.write_line(f"Fewer than {FLOOR} have passed (FLOOR in scrapy_suite_tests.py)")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_whole(config: pytest.Config) -> bool:
    """Returns whether all tests run, and not a selection."""
    return not (config.option.keyword or config.option.markexpr)


if __name__ == "__main__":
    # Scrapy's tests have a plugin of their own for coroutines.
    plugins = ("-p", "no:asyncio", "-p", "no:cacheprovider", "-p", "scrapy_suite")
    modules = (f"tests/{name}.py" for name in MODULES)
    # A new process: pytest must be the first to import what it rewrites.
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *plugins, *modules, *sys.argv[1:]])  # noqa: S606
