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

from ragcrawl_dynamo.testing import local_config, run_dynamodb_local

# Those in which a scheduler, a duplicate filter, a pipeline, a middleware or an engine matters.
MODULES = (
    "test_addons",
    "test_closespider",
    "test_contracts",
    "test_core_scraper",
    "test_crawl",
    "test_crawler",
    "test_crawler_runners",
    "test_downloadermiddleware",
    "test_downloadermiddleware_retry",
    "test_downloadermiddleware_redirect",
    "test_downloadermiddleware_redirect_metarefresh",
    "test_downloadermiddleware_robotstxt",
    "test_downloadermiddleware_stats",
    "test_downloaderslotssettings",
    "test_dupefilters",
    "test_engine",
    "test_engine_close_spider",
    "test_engine_download",
    "test_engine_loop",
    "test_engine_stop_download_bytes",
    "test_engine_stop_download_headers",
    "test_extension_periodic_log",
    "test_extension_telnet",
    "test_extension_throttle",
    "test_logstats",
    "test_pipeline_crawl",
    "test_pipeline_files",
    "test_pipeline_images",
    "test_pipeline_media",
    "test_pipelines",
    "test_request_attribute_binding",
    "test_request_cb_kwargs",
    "test_request_left",
    "test_scheduler",
    "test_scheduler_base",
    "test_signals",
    "test_spider",
    "test_spider_crawl",
    "test_spider_sitemap",
    "test_spider_start",
    "test_spidermiddleware",
    "test_spidermiddleware_base",
    "test_spidermiddleware_depth",
    "test_spidermiddleware_httperror",
    "test_spidermiddleware_output_chain",
    "test_spidermiddleware_process_start",
    "test_spidermiddleware_referer",
    "test_spidermiddleware_start",
    "test_spiderstate",
    "test_stats",
    "test_utils_request",
)

_START = "start requests are filtered, so that not every process crawls them; Scrapy does not filter them"
_ORDER = "of one priority, the oldest request comes first, and start requests have no queue of their own"
_FILTER = "tests the filter of the default settings, which is the adapter's here: the frontier filters"
_SECONDS = "compares seconds, which a busy machine spoils; the adapter's own tests measure delays"

# Each test that does not hold for the adapter, with the reason.
SKIPPED = {
    "tests/test_crawl.py::TestCrawl::test_fixed_delay": _SECONDS,
    "tests/test_crawl.py::TestCrawl::test_randomized_delay": _SECONDS,
    "tests/test_crawl.py::TestCrawl::test_start_dupes": _START,
    "tests/test_downloaderslotssettings.py::test_delay": "the frontier spaces hosts; slots of other names "
    "are spaced by the downloader alone, in addition",
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_dupefilter_path": _FILTER,
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_filter": _FILTER,
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_fingerprints_deprecation": _FILTER,
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_request_fingerprint": _FILTER,
    "tests/test_dupefilters.py::TestRFPDupeFilter::test_seenreq_truncated": _FILTER,
    "tests/test_engine.py::TestEngine::test_crawler": _START,
    "tests/test_engine_close_spider.py::test_exception_scheduler": "deletes an attribute that "
    "Scrapy's own scheduler has",
    "tests/test_engine_loop.py::TestRequestSendOrder::test_default": _ORDER,
    "tests/test_engine_loop.py::TestRequestSendOrder::test_lazy": _ORDER,
    "tests/test_engine_loop.py::TestRequestSendOrder::test_lifo_start": _ORDER,
    "tests/test_engine_loop.py::TestRequestSendOrder::test_shared_queues": _ORDER,
    "tests/test_engine_stop_download_bytes.py::TestBytesReceivedEngine::test_crawler": _START,
    "tests/test_engine_stop_download_headers.py::TestHeadersReceivedEngine::test_crawler": _START,
    "tests/test_pipelines.py::TestCustomPipelineManager::test_integration_no_async_not_subclass": "calls "
    "the classes of pipelines without from_crawler",
    "tests/test_scheduler.py::TestIntegrationWithDownloaderAwareInMemory::"
    "test_integration_downloader_aware_priority_queue": _START,
}

# How many must pass. It may only rise.
FLOOR = 1056

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
    default_settings.ADDONS = {"scrapy_suite.OwnRun": 1, "ragcrawl_dynamo.adapters.scrapy.Addon": 500}
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
        reporter.write_line(f"Fewer than {FLOOR} have passed (FLOOR in scrapy_suite.py)")
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
