"""The examples, run as a user runs them."""

import asyncio
import os
import re
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from benchmarks.scale import dollars
from examples import demo_engine, demo_site
from examples.demo_report import Units
from ragcrawl_dynamo import OperationMetrics
from ragcrawl_dynamo.testing import local_config, local_dynamodb
from tests.support.processes import run_command

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run_example(name: str, *args: str) -> str:
    """The output of an example, a file or a module; fails where it fails or warns."""
    what = (str(EXAMPLES / name),) if name.endswith(".py") else ("-m", f"examples.{name}")
    code, output, errors = await run_command(
        *(sys.executable, "-W", "error::ResourceWarning", *what, *args),
        cwd=EXAMPLES.parent,
        env={**os.environ, "COLUMNS": "140", "NO_COLOR": "1"},
    )
    assert code == 0, errors
    assert "Warning" not in errors
    return output


def figure(output: str, name: str) -> int:
    match = re.search(rf"│ {name} +│ ([\d,]+)", output)
    assert match is not None, output
    return int(match[1].replace(",", ""))


def passes(output: str) -> list[list[str]]:
    """The cells of the demo's table of passes: name, s, pages/s, new, changed, unchanged, bodies, feed."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    return [row for row in rows if len(row) == 8]


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_example_crawl_docs_stores_a_real_site_and_keeps_it_up_to_date(
    dynamodb_local_endpoint: str,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ("--endpoint-url", dynamodb_local_endpoint, "--port", f"{port}")
    output = await run_example("crawl_docs", *where, "--passes", "1", "--edit", "")
    assert output.startswith(f"storing in DynamoDB Local at {dynamodb_local_endpoint}, as asked for; tables ")
    pages = figure(output, "pages")
    assert pages >= 190
    assert figure(output, "versions") == pages
    assert figure(output, "raw bytes") > 5 * figure(output, "stored bytes") > 1_000_000
    assert 5 < figure(output, "write units of a version") < 15
    assert figure(output, "  pages_crawled") == pages
    assert figure(output, "frontier items failed") == 0
    # Both worker processes took part.
    assert len(re.findall(r"process \d+: \d+", output)) == 2
    assert "json.html" in output
    (first,) = passes(output)
    assert first[3:] == [f"{pages}", "0", "0", f"{pages}", f"{pages} created"]
    assert float(first[2]) == pytest.approx(pages / float(first[1]), rel=0.1)
    # The units of docs/cost.md, and those of adding links.
    writes, reads, cents = costs(output, "1")
    assert 24_000 < writes < 29_000
    assert cents == pytest.approx(100 * dollars(reads, writes), abs=0.01)
    # Another call, on the same tables.
    output = await run_example("crawl_docs", *where, "--passes", "2")
    again, edited = passes(output)
    assert again[3:] == ["0", "0", f"{pages}", "0", "nothing"]
    assert edited[3:] == ["0", "1", f"{pages - 1}", "1", "1 changed /json.html"]
    assert figure(output, "versions") == pages + 1
    unchanged = f"{pages} of {pages} pages unchanged, bodies stored: 0, pages to embed again: 0\n"
    assert f"pass 1: {unchanged}" in output
    unchanged = f"{pages - 1} of {pages} pages unchanged, bodies stored: 1, pages to embed again: 1\n"
    assert f"pass 2, json.html edited: {unchanged}" in output
    assert 5_000 < costs(output, "1")[0] < 8_000


def costs(output: str, name: str) -> tuple[int, int, float]:
    """Write units, read units and cents of 1,000 pages as in a pass."""
    pattern = rf"1,000 pages as in pass {name}: ([\d,]+) write units, ([\d,]+) read units, ([\d.]+) cents"
    match = re.search(pattern, output)
    assert match is not None, output
    return int(match[1].replace(",", "")), int(match[2].replace(",", "")), float(match[3])


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_example_crawl_docs_needs_no_engine_but_moto() -> None:
    output = await run_example("crawl_docs", "--engine", "moto", "--passes", "1", "--edit", "")
    assert output.startswith("storing in moto, embedded in this process, as asked for; tables ")
    (first,) = passes(output)
    assert first[7].endswith(" created")
    assert "moto invents capacity units" in output
    assert "write units," not in output


async def test_example_demo_engine_is_moto_if_dynamodb_local_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "")
    async with demo_engine.run_engine("auto") as engine:
        assert engine.name == "dynamodb-local"
        assert (
            engine.description == "DynamoDB Local, AWS's own engine, since Java and .dynamodb-local are here"
        )
    monkeypatch.setenv("PATH", f"{tmp_path}")
    async with demo_engine.run_engine("auto") as engine:
        assert engine.description == "moto, embedded in this process, since java was not found"
    monkeypatch.setattr(demo_engine, "DYNAMODB_LOCAL", tmp_path)
    async with demo_engine.run_engine("auto") as engine:
        assert engine.name == "moto"
        assert engine.description.endswith(f", since there is no DynamoDBLocal.jar in {tmp_path}")
    with pytest.raises(RuntimeError, match=r"no DynamoDBLocal\.jar"):
        async with demo_engine.run_engine("dynamodb-local"):
            pass


def test_example_demo_report_counts_a_transaction_as_aws_does() -> None:
    metrics = {
        ("TransactWriteItems", "pages"): OperationMetrics(write_units=8.0),
        ("PutItem", "versions"): OperationMetrics(write_units=3.0),
        ("GetItem", "pages"): OperationMetrics(read_units=1.5),
    }
    assert Units.of(metrics, "dynamodb-local") == Units(reads=1.5, writes=7.0)
    assert Units.of(metrics, "aws") == Units(reads=1.5, writes=11.0)
    # The prices of docs/scale.md.
    assert Units(reads=1e6, writes=2e6).dollars == dollars(1e6, 2e6)


@pytest.mark.parametrize(
    ("url", "is_page"),
    [
        ("http://127.0.0.1:80/json.html", True),
        ("http://127.0.0.1:80/_json.html", False),
        ("http://127.0.0.1:80/json.tool.html", False),
        ("http://127.0.0.1:80/get?key=json", False),
        ("http://127.0.0.1:81/json.html", False),
        ("file:/usr/lib/json.html", False),
    ],
)
def test_example_demo_site_has_the_public_top_level_modules(url: str, is_page: bool) -> None:
    assert demo_site.is_page(url, "http://127.0.0.1:80/") == is_page


async def test_example_incremental_sync_follows_the_changes() -> None:
    output = await run_example("incremental_sync.py")
    assert "nothing new:    nothing to do" in output
    changed = {"changed https://example.com/install", "deleted https://example.com/home"}
    (line,) = [text for text in output.splitlines() if text.startswith("site changed:")]
    assert set(line.removeprefix("site changed:").strip().split(", ")) == {
        *changed,
        "created https://example.com/faq",
    }
    assert "in the index:   [['Why?'], ['uv add it.']]" in output


async def test_example_quickstart_runs() -> None:
    output = await run_example("quickstart.py")
    assert "4 completed, 0 retried, 0 failed" in output
    assert "completed: 3 new pages" in output
    assert "created https://example.com/guide" in output


@pytest.mark.long
async def test_example_crawler_in_40_lines_resumes_and_finds_changes(tmp_path: Path) -> None:
    assert len((EXAMPLES / "crawler.py").read_text().splitlines()) <= 40
    pages = {f"{number}.html": f"<title>{number}</title>" for number in range(30)}
    links = "".join(f"<a href={name}>{name}</a>" for name in pages)
    served: Counter[str] = Counter()
    enough = asyncio.Event()

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.strip("/")
        served[name] += 1
        if sum(served.values()) == 10:
            enough.set()
        html = pages.get(name) if name else links
        if html is None:
            return web.Response(status=404)
        etag = f"v{hash(html)}"
        if any(known.value == etag for known in request.if_none_match or ()):
            return web.Response(status=304)
        return web.Response(text=html, content_type="text/html", headers={"ETag": f'"{etag}"'})

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        home = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with local_dynamodb() as endpoint:
            config = local_config(endpoint)
            environ = {
                **os.environ,
                **{
                    f"RAGCRAWL_DYNAMO_{name.upper()}": f"{value}"
                    for name, value in (
                        ("endpoint_url", endpoint),
                        ("table_prefix", config.table_prefix),
                        ("conditional_batches", "item"),
                        ("access_key_id", "test"),
                        ("secret_access_key", "test"),
                        ("frontier_max_clock_skew", 0.5),
                    )
                },
            }
            command = (sys.executable, str(EXAMPLES / "crawler.py"), home)
            killed = await asyncio.create_subprocess_exec(*command, env=environ)
            await enough.wait()
            killed.terminate()
            await killed.wait()
            first = sum(served.values())
            assert first < 31
            code, output, errors = await run_command(*command, env=environ)
            assert code == 0, errors
            # A fetch that was under way when the process was killed is repeated.
            assert sum(served.values()) - 31 <= 8
            assert output.count("created") == 31
            pages["3.html"] = "<title>new</title>"
            del pages["4.html"]
            code, output, errors = await run_command(*command, env=environ)
            assert code == 0, errors
            assert sorted(output.splitlines()[1:]) == [f"changed {home}3.html", f"deleted {home}4.html"]
    finally:
        await runner.cleanup()


def test_example_files_are_all_tested() -> None:
    folder_of_tests = Path(__file__).parent
    for folder, tests in (
        (EXAMPLES, folder_of_tests),
        (EXAMPLES / "adapters", folder_of_tests.parent / "adapters"),
    ):
        source = "".join(path.read_text() for path in tests.rglob("test_*.py"))
        names = [path.stem for path in folder.glob("[!_]*") if path.name != "adapters"]
        assert [name for name in names if name not in source] == []


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAGCRAWL_DYNAMO_")]:
        monkeypatch.delenv(name)


@pytest.mark.long
async def test_example_multi_worker_continues_when_a_worker_is_killed() -> None:
    output = await run_example("multi_worker.py")
    assert "killed worker 1 of 3" in output
    assert "run completed: 60 pages crawled of 60" in output
    assert "stored 60 pages, 60 versions" in output
