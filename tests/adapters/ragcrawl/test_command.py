"""`ragcrawl-dynamo ragcrawl`: ragcrawl's own commands, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.adapters.ragcrawl.settings import backend_config
from tests.adapters.ragcrawl.settings import ragcrawl_config
from tests.adapters.site import Site
from tests.support.engines import on_dynamodb_local

if TYPE_CHECKING:
    from ragcrawl.config.storage_config import StorageConfig

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def config(storage: StorageConfig) -> DynamoDBConfig:
    return backend_config(ragcrawl_config(storage))


@pytest.fixture
def call(site: Site, config: DynamoDBConfig, tmp_path: Path) -> Call:
    """Runs a command in an empty folder and home; its tables are chosen by an option and the environment.

    It finds the pages of the site at http://docs.test: as a command, ragcrawl crawls no host with a port.
    """
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "RAGCRAWL_DYNAMO_ENDPOINT_URL": str(config.endpoint_url),
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "HTTP_PROXY": site.url.removesuffix("/p/0"),
        "NO_PROXY": "127.0.0.1",
    }
    # The package's own folder, also if it is not the installed one.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-m", "ragcrawl_dynamo", "--table-prefix", config.table_prefix, "ragcrawl")
        return subprocess.run(
            [*command, *args], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


@on_dynamodb_local
async def test_ragcrawl_command_crawls_lists_and_syncs(
    site: Site, call: Call, config: DynamoDBConfig, tmp_path: Path
) -> None:
    site.pages = 3
    urls = {f"http://docs.test/p/{number}" for number in range(3)}
    crawled = call(
        *("crawl", "http://docs.test/p/0", "--max-depth", "2"),
        *("--output", "pages", "--export-jsonl", "pages.jsonl"),
    )
    assert crawled.returncode == 0, crawled.stdout + crawled.stderr
    assert "Pages crawled: 3" in crawled.stdout
    assert f"Storage: DynamoDB tables {config.table_prefix}* at {config.endpoint_url}" in crawled.stdout
    documents = [json.loads(line) for line in (tmp_path / "pages.jsonl").read_text().splitlines()]
    assert {document["source_url"] for document in documents} == urls
    assert len(list((tmp_path / "pages").rglob("*.md"))) >= 3
    async with DynamoDBBackend(config) as backend:
        (stored,) = await backend.list_sites()
        assert {page.url async for page in backend.iter_pages(stored.site_id)} == urls
    (run,) = [line for line in call("list").stdout.splitlines() if " completed " in line]
    assert " 3/0 " in run
    assert f"ID: {stored.site_id}" in call("sites").stdout
    runs = call("runs", stored.site_id, "--limit", "5").stdout
    assert "Pages: 3 crawled, 0 failed" in runs
    site.edition = "second"
    synced = call("sync", stored.site_id, "--max-age", "0")
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert "Pages changed: 3" in synced.stdout
    assert len(call("runs", stored.site_id).stdout.split("Run: ")) == 3
    # Nothing is in DuckDB.
    assert not [file for _, _, files in os.walk(tmp_path) for file in files if file.endswith(".duckdb")]


@on_dynamodb_local
async def test_ragcrawl_command_creates_tables_for_a_crawl_only(call: Call, config: DynamoDBConfig) -> None:
    for command in (("sites",), ("list",), ("runs", "docs"), ("sync", "docs")):
        process = call(*command)
        assert process.returncode == 1, command
        assert f"{config.table_prefix}sites" in process.stdout + process.stderr
        assert "Traceback" not in process.stderr
    tables, _ = await DynamoDBBackend(config).describe_tables()
    assert {table.status for table in tables} == {"MISSING"}


@on_dynamodb_local
def test_ragcrawl_command_passes_options_on_and_refuses_the_path_of_duckdb(call: Call) -> None:
    shown = call("crawl", "--help")
    assert "--export-jsonl" in shown.stdout
    assert "--storage" not in shown.stdout
    refused = call("sites", "--storage", "x.duckdb")
    assert refused.returncode == 2
    assert "--table-prefix" in refused.stderr


def test_ragcrawl_command_names_the_reason_if_dynamodb_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = (sys.executable, "-m", "ragcrawl_dynamo", "--endpoint-url", "http://127.0.0.1:9", "ragcrawl")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    process = subprocess.run([*command, "sites"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "error: DescribeTable" in process.stderr
    assert "http://127.0.0.1:9" in process.stderr
    assert "Traceback" not in process.stderr
