"""The output and the exit codes of the command, as its users call it, on DynamoDB Local."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, PageVersion
from ragcrawl_dynamo._schema import migrations as schema
from ragcrawl_dynamo.cli.app import run
from ragcrawl_dynamo.cli.transfer import Exporter
from ragcrawl_dynamo.testing import drop_tables, local_config
from tests.conftest import DYNAMODB_LOCAL
from tests.support.factories import dense_text, hours, make_page, make_run, make_site, make_version

if TYPE_CHECKING:
    from pathlib import Path

PAGES = 130
SITE = "docs"


class Result:
    """The result of a command: exit code, output and errors."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Call = Callable[..., Result]


@pytest.fixture
def config(dynamodb_local_endpoint: str) -> Iterator[DynamoDBConfig]:
    settings = local_config(
        dynamodb_local_endpoint, table_prefix=f"cli_{uuid4().hex[:8]}_", frontier_max_attempts=1
    )
    yield settings
    asyncio.run(drop_tables(settings))


@pytest.fixture
def call(config: DynamoDBConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("RAGCRAWL_DYNAMO_ENDPOINT_URL", str(config.endpoint_url))
    monkeypatch.setenv("RAGCRAWL_DYNAMO_TABLE_PREFIX", config.table_prefix)

    def called(*args: str) -> Result:
        with pytest.raises(SystemExit) as ended:
            run(list(args))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(
            ended.value.code if isinstance(ended.value.code, int) else 1, captured.out, captured.err
        )

    return called


def using(config: DynamoDBConfig, work: Callable[[DynamoDBBackend], Any]) -> Any:
    async def use() -> Any:
        async with DynamoDBBackend(config) as backend:
            return await work(backend)

    return asyncio.run(use())


def url(number: int) -> str:
    return f"https://docs.example/{number}"


async def fill(backend: DynamoDBBackend, pages: int = PAGES) -> None:
    """A site with two runs, pages, of which some have two versions, and a frontier with dead letters."""
    await backend.save_site(make_site(SITE, name="Docs", seeds=[url(0)]))
    await backend.save_run(make_run("r1", SITE))
    await backend.save_run(make_run("r2", SITE))
    versions = []
    for i in range(pages):
        for n in range(2 if i % 10 == 0 else 1):
            version = make_version(
                f"v{n}",
                f"p{i}",
                SITE,
                url=url(i),
                content_hash=f"{i} {n}",
                title=f"Page {i}",
                markdown=f"# Page {i}\n\nsame\n\n{'new' if n else 'old'} text\n" + dense_text(i % 7),
            )
            versions.append(version.model_copy(update={"crawled_at": version.crawled_at + hours(n)}))
    await backend.save_versions_bulk(versions, keep_unchanged=True)
    await backend.save_pages_bulk(
        make_page(f"p{i}", SITE, url=url(i), current_version_id=f"v{int(i % 10 == 0)}", status_code=200)
        for i in range(pages)
    )
    frontier = backend.frontier(SITE, "r1")
    await frontier.add([url(i) for i in range(5)])
    claims = await frontier.claim(2)
    await frontier.fail(claims[0], "gone for good")
    await frontier.complete(claims[1])


async def content(backend: DynamoDBBackend) -> dict[str, Any]:
    """All that an export has."""
    pages = [page async for page in backend.iter_pages(SITE, include_tombstones=True)]
    versions: list[PageVersion] = []
    for page in pages:
        versions += await backend.list_versions(SITE, page.page_id)
    return {
        "site": await backend.get_site(SITE),
        "runs": [run async for run in backend.iter_runs(SITE)],
        "pages": pages,
        "versions": versions,
    }


def test_cli_status_shows_the_endpoint_and_the_region_and_which_settings_chose_them(
    call: Call, config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAGCRAWL_DYNAMO_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", str(config.endpoint_url))
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    call("init")
    told = call("status").out
    assert (
        f"endpoint {config.endpoint_url} (AWS_ENDPOINT_URL_DYNAMODB), region 'eu-central-1' (AWS_REGION)"
        in told
    )
    (status,) = call("--region", "eu-west-1", "status", "--json").records
    assert (status["region"], status["region_source"]) == ("eu-west-1", "setting region")
    assert status["endpoint_url"] == config.endpoint_url
    assert status["endpoint_source"] == "AWS_ENDPOINT_URL_DYNAMODB"


@pytest.mark.parametrize(
    "engine", [(), ("--dynamodb-local", str(DYNAMODB_LOCAL))], ids=["moto", "dynamodb-local"]
)
def test_cli_local_runs_an_engine_until_it_is_ended(engine: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "ragcrawl_dynamo", "local", "--port", "0", *engine]
    variables = {}
    # Without a terminal, in which Ctrl-C would reach DynamoDB Local too.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            for _ in range(2):
                for variable in process.stdout.readline().split()[1:]:
                    name, _, value = variable.partition("=")
                    variables[name] = value
            used = subprocess.run(
                [sys.executable, "-m", "ragcrawl_dynamo", "init", "--json"],
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
        finally:
            process.terminate()
        assert process.wait(timeout=20) == 0
    assert len(json.loads(used.stdout)["created"]) == 5
    address = ("127.0.0.1", urlsplit(variables["RAGCRAWL_DYNAMO_ENDPOINT_URL"]).port)
    with socket.socket() as probe:
        assert probe.connect_ex(address) != 0


def test_cli_local_refuses_a_port_that_is_in_use(call: Call) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = call("local", "--port", port)
    assert (result.code, result.out) == (1, "")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert result.err.startswith(f"error: port {port} is in use: ")


def test_cli_init_alone_creates_tables(call: Call) -> None:
    missing = call("sites")
    assert missing.code == 1
    assert "5 of 5 tables are missing" in missing.err
    status = call("status", "--json")
    assert (status.code, status.records[0]["healthy"]) == (1, False)
    assert len(call("init", "--json").records[0]["created"]) == 5
    assert call("init").err == "all tables exist already\n"
    (status,) = call("status", "--json").records
    assert (status["healthy"], status["schema_version"], len(status["tables"])) == (True, 2, 5)
    assert "healthy" in call("status").out
    assert "there are no sites" in call("sites").err


def test_cli_status_shows_where_tables_differ_from_the_settings(
    call: Call, config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("init")
    assert "the settings say" not in call("status").out
    monkeypatch.setenv("RAGCRAWL_DYNAMO_TABLES_STREAM_VIEW", "NEW_IMAGE")
    pages = f"{config.table_prefix}pages: tables.stream_view is not set, the settings say NEW_IMAGE"
    shown = call("status")
    assert shown.code == 0
    assert pages in shown.out.splitlines()
    (status,) = call("status", "--json").records
    assert [pages] in [table["differences"] for table in status["tables"]]


def test_cli_shows_stored_records(call: Call, config: DynamoDBConfig) -> None:
    using(config, fill)
    assert [site["site_id"] for site in call("sites", "--json").records] == [SITE]
    assert {run["run_id"] for run in call("runs", SITE, "--json").records} == {"r1", "r2"}
    assert len(call("pages", SITE, "--json", "--limit", "7").records) == 7
    assert "https://docs.example" in call("pages", SITE, "--limit", "3").out
    (page,) = call("page", "show", SITE, url(10) + "#fragment", "--json").records
    assert page["page_id"] == "p10"
    assert call("page", "show", SITE, url(10), "--content").out.startswith("# Page 10\n")
    versions = call("versions", SITE, url(10), "--json").records
    assert [version["version_id"] for version in versions] == ["v1", "v0"]
    changes = [line for line in call("diff", SITE, url(10)).out.splitlines() if line[0] in "+-"]
    assert changes[2:] == ["-old text", "+new text"]
    back = call("diff", SITE, url(10), "--from", "v1", "--to", "v0", "--json").records[0]
    assert "+old text" in back["diff"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("page", "show", SITE, "https://docs.example/none"), "there is no page https://docs.example/none"),
        (("run", "show", SITE, "none"), "there is no run 'none' of site 'docs'"),
        (("diff", SITE, "https://docs.example/1"), "error: https://docs.example/1 has one version"),
        (("diff", SITE, "https://docs.example/10", "--from", "v9"), "there is no version 'v9'"),
        (("prune", SITE, "--yes"), "keep_last"),
        (("export", "none", "out.jsonl"), "there is no site 'none'"),
        (("export", SITE, "none/out.jsonl"), "file: the folder none does not exist: create it"),
        (("export", SITE, "none/out.parquet"), "file: the folder none does not exist: create it"),
        (("import", "."), ".: Is a directory"),
        (("import", "none.jsonl"), "none.jsonl does not exist"),
        (("--region", "nowhere/", "sites"), "region"),
    ],
)
def test_cli_errors_are_one_sentence(
    call: Call,
    config: DynamoDBConfig,
    args: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    using(config, lambda backend: fill(backend, 11))
    result = call(*args)
    assert result.code == 1
    assert result.err.strip().startswith("error:")
    assert said in result.err.replace("\n", " ")
    assert result.out == ""


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"plain_text"}, "plain text"), ({"html"}, "HTML"), ({"html", "plain_text"}, "plain text")],
)
def test_cli_shows_and_compares_content_without_markdown(
    call: Call, config: DynamoDBConfig, fields: set[str], said: str
) -> None:
    async def save(backend: DynamoDBBackend) -> None:
        await backend.save_site(make_site(SITE))
        for number in range(2):
            page = make_page("page", SITE, url=url(0), status_code=200)
            texts: dict[str, Any] = {name: f"{name}\ntext {number}" for name in fields}
            await backend.commit_page(page, PageVersion.of(page, f"r{number}", **texts))

    using(config, save)
    shown = call("page", "show", SITE, url(0), "--content")
    field = "plain_text" if "plain_text" in fields else "html"
    assert shown.out == f"{field}\ntext 1\n"
    assert shown.err == f"the version has no Markdown; this is its {said}\n"
    compared = call("diff", SITE, url(0))
    assert compared.err == f"the versions have no Markdown; this compares their {said}\n"
    assert compared.out.splitlines()[-2:] == ["-text 0", "+text 1"]
    assert call("diff", SITE, url(0), "--json").records[0]["field"] == field
    newest = call("versions", SITE, url(0), "--json").records[0]["version_id"]
    same = call("diff", SITE, url(0), "--from", newest, "--to", newest)
    assert f"both versions have the same {said}" in same.err


@pytest.mark.parametrize(
    "args",
    [
        ("pages", "nosite"),
        ("runs", "nosite"),
        ("run", "show", "nosite"),
        ("frontier", "stats", "nosite"),
        ("prune", "nosite", "--keep-last", "1", "--yes"),
        ("gc", "nosite", "--yes"),
        ("delete-site", "nosite", "--yes"),
        ("delete-site", "nosite", "--dry-run"),
    ],
    ids=" ".join,
)
def test_cli_refuses_a_site_that_is_not_stored(
    call: Call, config: DynamoDBConfig, args: tuple[str, ...]
) -> None:
    using(config, lambda backend: backend.save_site(make_site(SITE)))
    result = call(*args)
    assert (result.code, result.out) == (1, "")
    assert result.err == "error: there is no site 'nosite'; the sites are: docs\n"


def test_cli_takes_a_site_without_records(call: Call, config: DynamoDBConfig) -> None:
    using(config, lambda backend: backend.save_site(make_site(SITE)))
    assert call("pages", SITE).err == "site 'docs' has no pages\n"
    assert call("runs", SITE).err == "site 'docs' has no runs\n"
    assert call("run", "show", SITE).err == "error: there is no run of site 'docs'\n"
    assert call("gc", SITE, "--yes", "--json").records[0]["bodies_total"] == 0
    assert call("delete-site", SITE, "--yes", "--json").records[0]["existed"] is True


@pytest.mark.parametrize("status", ["completed", "partial", "failed", "cancelled"])
@pytest.mark.parametrize("args", [("pause",), ("resume",), ("cancel", "--yes"), ("cancel", "--dry-run")])
def test_cli_refuses_to_change_a_run_that_has_ended(
    call: Call, config: DynamoDBConfig, args: tuple[str, ...], status: str
) -> None:
    async def save(backend: DynamoDBBackend) -> None:
        await backend.save_site(make_site(SITE))
        await backend.save_run(make_run("r1", SITE, status=status))

    using(config, save)
    command, *options = args
    result = call("run", command, SITE, "r1", *options)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"error: run 'r1' of site 'docs' is {status}: only a run that has not ended")
    assert call("run", "show", SITE, "r1", "--json").records[0]["state"] == "running"


def test_cli_takes_the_latest_run_by_default(call: Call, config: DynamoDBConfig) -> None:
    async def save(backend: DynamoDBBackend) -> None:
        await backend.save_site(make_site(SITE))
        for number in range(2):
            run = make_run(f"r{number}", SITE, status="running")
            await backend.save_run(run.model_copy(update={"created_at": run.created_at + hours(number)}))
        await backend.frontier(SITE, "r1").add([url(0), url(1)])

    using(config, save)
    assert call("run", "show", SITE, "--json").records[0]["run_id"] == "r1"
    shown = call("frontier", "stats", SITE, "--json")
    assert shown.records[0]["pending"] == 2
    assert shown.err == "run r1\n"
    assert call("frontier", "failed", SITE).err.splitlines() == ["run r1", "there are no dead letters"]


def test_cli_shows_the_present_size_of_the_frontier_of_an_open_run(
    call: Call, config: DynamoDBConfig
) -> None:
    using(config, lambda backend: fill(backend, 5))
    using(config, lambda backend: backend.complete_run(SITE, "r2"))
    sizes = {run["run_id"]: run["frontier_size"] for run in call("runs", SITE, "--json").records}
    assert sizes == {"r1": 5, "r2": 0}
    assert call("run", "show", SITE, "r1", "--json").records[0]["frontier_size"] == 5
    assert "were counted when a run of the site was last completed" in call("sites").err


def test_cli_status_says_how_to_create_missing_tables(call: Call) -> None:
    hint = "`init` creates the tables that are missing"
    assert hint in call("status").err
    call("init")
    assert hint not in call("status").err


def test_cli_names_the_variable_that_chose_the_endpoint(call: Call, config: DynamoDBConfig) -> None:
    assert f"endpoint {config.endpoint_url} (RAGCRAWL_DYNAMO_ENDPOINT_URL)" in call("status").out


def test_cli_shows_markup_as_it_is(call: Call, config: DynamoDBConfig) -> None:
    async def odd(backend: DynamoDBBackend) -> None:
        await backend.save_site(make_site("[/b]", name="[red]x"))
        await backend.save_run(make_run("[/i]", "[/b]"))
        await backend.frontier("[/b]", "[/i]").add(["http://[::1]:8000/"])

    using(config, odd)
    assert "[/b]" in call("sites").out
    assert "[red]x" in call("sites").out
    assert "[::1]:8000" in call("frontier", "stats", "[/b]", "[/i]", "--hosts").out
    assert "site '[/b]' has no pages" in call("pages", "[/b]").err
    assert "there is no page [/]" in call("page", "show", "[/b]", "[/]").err


def test_cli_pauses_ends_and_repairs_a_run(call: Call, config: DynamoDBConfig) -> None:
    using(config, lambda backend: fill(backend, 5))
    (counts,) = call("frontier", "stats", SITE, "r1", "--json").records
    assert (counts["pending"], counts["completed"], counts["failed"]) == (3, 1, 1)
    assert call("frontier", "stats", SITE, "r1", "--hosts", "--json").records[0]["host"] == "docs.example"
    assert "docs.example" in call("frontier", "stats", SITE, "r1", "--hosts").out
    assert [item["last_error"] for item in call("frontier", "failed", SITE, "r1", "--json").records] == [
        "gone for good"
    ]
    assert "would put 1" in call("frontier", "requeue", SITE, "r1", "--dry-run").err
    assert "put 1 back" in call("frontier", "requeue", SITE, "r1").err
    assert call("recount", SITE, "r1", "--json").records[0]["pending"] == 4
    assert call("run", "pause", SITE, "r1", "--json").records == [{"state": "paused"}]
    assert call("run", "show", SITE, "r1", "--json").records[0]["state"] == "paused"
    assert "running" in call("run", "resume", SITE, "r1").err
    assert call("run", "show", SITE, "r1", "--json").records[0]["state"] == "running"
    assert "would leave 4 links" in call("run", "cancel", SITE, "r1", "--dry-run").err
    assert call("run", "show", SITE, "r1", "--json").records[0]["state"] == "running"
    call("run", "cancel", SITE, "r1", "--yes")
    assert "state" in call("run", "show", SITE, "r1").out
    # The last frame of a run that has ended.
    (frame,) = call("run", "show", SITE, "r1", "--watch", "0.2", "--json").records
    assert (frame["state"], frame["pending"]) == ("cancelled", 4)
    assert "cancelled" in call("run", "show", SITE, "r1", "--watch", "0.2").out


def test_cli_asks_before_it_deletes(
    call: Call, config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    using(config, fill)
    before = using(config, content)
    for args in (
        ("prune", SITE, "--keep-last", "1"),
        ("gc", SITE, "--grace-hours", "0"),
        ("delete-site", SITE),
        ("run", "cancel", SITE, "r1"),
    ):
        assert call(*args, "--dry-run").code == 0
        # There is no terminal to ask on.
        with open(os.devnull) as nobody:
            monkeypatch.setattr(sys, "stdin", nobody)
            assert call(*args).code == 1
    assert using(config, content) == before
    planned = call("prune", SITE, "--keep-last", "1", "--dry-run", "--json").records[0]
    assert planned["versions_removed"] == PAGES // 10
    done = call("prune", SITE, "--keep-last", "1", "--yes", "--json").records[0]
    assert done == {**planned, "dry_run": False}
    assert call("gc", SITE, "--yes", "--json").code == 0
    assert call("delete-site", SITE, "--yes", "--json").records[0]["pages"] == PAGES
    assert call("sites", "--json").records == []


@pytest.mark.parametrize("name", ["site.jsonl", "site.parquet"])
def test_cli_export_can_be_imported(call: Call, config: DynamoDBConfig, tmp_path: Path, name: str) -> None:
    using(config, fill)
    before = using(config, content)
    file = str(tmp_path / name)
    total = 1 + 2 + PAGES + PAGES + PAGES // 10
    assert f"{total} records are in" in call("export", SITE, file).err.replace("\n", " ")
    # An existing file is not overwritten by accident.
    assert "exists already: choose another file, or pass --overwrite" in call(
        "export", SITE, file
    ).err.replace("\n", " ")
    assert call("export", SITE, file, "--overwrite").code == 0
    call("delete-site", SITE, "--yes")
    assert call("import", file, "--json").records == [{"records": total}]
    assert using(config, content) == before
    assert not [path for path in tmp_path.iterdir() if path.name != name]


class EndedError(Exception):
    """In the middle of a transfer."""


@pytest.mark.parametrize("name", ["site.jsonl", "site.parquet"])
def test_cli_export_resumes(call: Call, config: DynamoDBConfig, tmp_path: Path, name: str) -> None:
    using(config, fill)
    expected = tmp_path / "whole" / name
    expected.parent.mkdir()
    call("export", SITE, str(expected))
    file = tmp_path / name
    seen = 0
    shares: list[float] = []

    def end(_: str, share: float) -> None:
        nonlocal seen
        shares.append(share)
        seen += 1
        # In the second step of pages, when some were written already.
        if seen == 90:
            raise EndedError

    with pytest.raises(EndedError):
        using(config, lambda backend: Exporter(backend, SITE, file, end).run())
    assert shares == sorted(shares)
    assert 0 < shares[-1] < 1
    assert call("export", "other", str(file)).code == 1
    assert call("export", SITE, str(file)).code == 0
    if file.is_dir():
        assert sorted(part.name for part in file.iterdir()) == sorted(
            part.name for part in expected.iterdir()
        )
        assert all(part.read_bytes() == (expected / part.name).read_bytes() for part in file.iterdir())
    else:
        assert file.read_bytes() == expected.read_bytes()


def test_cli_import_resumes_after_a_kill(call: Call, config: DynamoDBConfig, tmp_path: Path) -> None:
    using(config, fill)
    before = using(config, content)
    file = tmp_path / "site.jsonl"
    call("export", SITE, str(file))
    call("delete-site", SITE, "--yes")
    position = tmp_path / "site.jsonl.import"
    process = subprocess.Popen([sys.executable, "-m", "ragcrawl_dynamo", "import", str(file)])
    try:
        deadline = time.monotonic() + 60
        while not position.exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = call("import", str(file))
    assert left.code == 0
    if process.returncode == -signal.SIGKILL:
        # Only a part of the records is imported again.
        assert int(left.err.split()[0]) < 1 + 2 + PAGES + PAGES + PAGES // 10
    assert using(config, content) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "the line at byte 0 is not a record"),
        (
            '{"kind": "thing", "record": {}}',
            "has a record of kind 'thing'; allowed are site, run, page, version",
        ),
        (
            '{"kind": "page", "record": {"site_id": "s"}}',
            "has an invalid page: page_id: Field required",
        ),
    ],
)
def test_cli_import_refuses_other_files(call: Call, tmp_path: Path, line: str, said: str) -> None:
    call("init")
    file = tmp_path / "site.jsonl"
    file.write_text(line + "\n")
    result = call("import", str(file))
    assert (result.code, result.out) == (1, "")
    assert said in result.err.replace("\n", " ")


def test_cli_migrate_migrates_tables(
    call: Call, config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    using(config, lambda backend: fill(backend, 3))
    assert "nothing to do" in call("migrate").err
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        [schema.Migration(3, "sites", lambda item: {**item, "config": {"M": {"new": {"BOOL": True}}}})],
    )
    assert "upgrade the tables with migrate()" in call("sites").err.replace("\n", " ")
    assert "from schema version 2 to 3" in call("migrate", "--dry-run").err.replace("\n", " ")
    assert call("migrate", "--yes", "--json").records == [{"rewritten": 1, "schema_version": 3}]
    assert call("sites", "--json").records[0]["config"] == {"new": True}


def test_cli_prints_policies_and_templates(call: Call, config: DynamoDBConfig) -> None:
    policy = json.loads(call("iam-policy", "worker", "--account", "123456789012").out)
    assert f"table/{config.table_prefix}pages" in json.dumps(policy)
    assert len(json.loads(call("template", "cloudformation").out)["Resources"]) == 5
    assert len(json.loads(call("template", "terraform").out)["resource"]["aws_dynamodb_table"]) == 5
    assert call("template", "pulumi").code == 2
    assert call("prune").code == 2


def test_cli_without_its_extra_names_the_extra(tmp_path: Path) -> None:
    """With a typer that cannot be imported, as if it were not installed."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')")
    process = subprocess.run(
        [sys.executable, "-m", "ragcrawl_dynamo", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr == (
        "ragcrawl-dynamo: the command needs an extra: pip install 'ragcrawl-dynamo[cli]'\n"
    )


def test_cli_ragcrawl_without_its_crawler_names_the_extras(call: Call) -> None:
    for args in ((), ("crawl", "https://example.com/"), ("--help",), ("-m", "5")):
        result = call("ragcrawl", *args)
        assert result.code == 1
        assert "ragcrawl is not installed: pip install 'ragcrawl-dynamo[cli,ragcrawl]'" in result.err


@pytest.mark.parametrize("attempts", [None, 3])
def test_cli_gives_up_after_some_attempts(
    call: Call, monkeypatch: pytest.MonkeyPatch, attempts: int | None
) -> None:
    asked: Counter[str] = Counter()

    class Failing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked[body["TableName"]] += 1
            self.send_error(500)

        def log_message(self, *args: Any) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    # The command closes connections on which other requests are still answered.
    monkeypatch.setattr(server, "handle_error", lambda request, client_address: None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("RAGCRAWL_DYNAMO_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RAGCRAWL_DYNAMO_RETRY_MAX_DELAY", "0.001")
    if attempts is not None:
        monkeypatch.setenv("RAGCRAWL_DYNAMO_RETRY_ATTEMPTS", str(attempts))
    try:
        result = call("sites")
    finally:
        server.shutdown()
        server.server_close()
    assert result.code == 1
    assert max(asked.values()) == (attempts or 8)
