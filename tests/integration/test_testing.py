"""The helpers for users' own tests: local engines and the pytest plugin."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from moto import mock_aws

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, RequestRejectedError, TableNotFoundError
from ragcrawl_dynamo.testing import local_config, local_dynamodb, run_dynamodb_local, run_moto
from tests.conftest import DYNAMODB_LOCAL
from tests.docs.blocks import BLOCK
from tests.support.factories import make_site

ROOT = Path(__file__).parents[2]

USERS_TEST = """
import pytest
from ragcrawl_dynamo import Site

@pytest.mark.parametrize("turn", [1, 2])
async def test_tables_are_fresh(dynamodb_backend, dynamodb_config, turn):
    assert await dynamodb_backend.list_sites() == []
    await dynamodb_backend.save_site(Site(site_id="s", name="n", seeds=[]))
    assert dynamodb_config.table_prefix.startswith("test_")

async def test_the_endpoint(dynamodb_endpoint):
    assert dynamodb_endpoint.startswith("http://127.0.0.1:")
"""


LOOP_SCOPES = """
import asyncio
import pytest
from ragcrawl_dynamo import Site

loops = []

async def use(backend):
    loops.append(asyncio.get_running_loop())
    assert await backend.list_sites() == []
    await backend.save_site(Site(site_id="s", name="n", seeds=[]))

class TestEach:
    async def test_one(self, dynamodb_backend):
        await use(dynamodb_backend)

    async def test_two(self, dynamodb_backend):
        await use(dynamodb_backend)
        assert (loops[0] is loops[1]) is SHARED
"""

SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def run_users_tests(
    folder: Path, *options: str, tests: str = USERS_TEST, settings: str = SETTINGS
) -> subprocess.CompletedProcess[str]:
    (folder / "test_users.py").write_text(tests)
    (folder / "pytest.ini").write_text(settings)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_plugin_runs_moto_for_a_project(tmp_path: Path) -> None:
    result = run_users_tests(tmp_path)
    assert "3 passed" in result.stdout, result.stdout + result.stderr


def test_docs_recipe_for_tests_runs_as_pasted(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    (settings,) = re.findall(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "pyproject.toml").write_text(settings)
    (tmp_path / "test_crawler.py").write_text(BLOCK.findall(text)[0])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert "1 passed" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("is_default", [False, True])
@pytest.mark.parametrize("scope", ["function", "class", "module", "package", "session"])
def test_plugin_opens_the_backend_in_the_loop_of_the_test(
    scope: str, is_default: bool, tmp_path: Path, dynamodb_local_endpoint: str
) -> None:
    """The loop is of a scope by a mark, or by the option that is the default of all tests."""
    tests = f"{LOOP_SCOPES}\nSHARED = {scope != 'function'}\n"
    settings = SETTINGS
    if is_default:
        settings += f"asyncio_default_test_loop_scope = {scope}\n"
    else:
        tests += f"pytestmark = pytest.mark.asyncio(loop_scope={scope!r})\n"
    options = ("--dynamodb-endpoint", dynamodb_local_endpoint)
    result = run_users_tests(tmp_path, *options, tests=tests, settings=settings)
    assert "2 passed" in result.stdout, result.stdout + result.stderr


def test_plugin_runs_an_engine_in_each_process_of_xdist(tmp_path: Path) -> None:
    result = run_users_tests(tmp_path, "-n", "2")
    assert "3 passed" in result.stdout, result.stdout + result.stderr


def test_plugin_runs_dynamodb_local_on_request(tmp_path: Path) -> None:
    result = run_users_tests(tmp_path, "--dynamodb-local", str(DYNAMODB_LOCAL))
    assert "3 passed" in result.stdout, result.stdout + result.stderr


def test_plugin_uses_an_engine_that_runs_already(tmp_path: Path, dynamodb_local_endpoint: str) -> None:
    result = run_users_tests(tmp_path, "--dynamodb-endpoint", dynamodb_local_endpoint)
    assert "3 passed" in result.stdout, result.stdout + result.stderr


@pytest.mark.long
def test_plugin_fails_if_the_engine_does_not_answer(tmp_path: Path) -> None:
    result = run_users_tests(tmp_path, "--dynamodb-endpoint", "http://127.0.0.1:1")
    assert "2 errors" in result.stdout, result.stdout + result.stderr
    assert "check endpoint_url" in result.stdout


async def test_mock_aws_around_a_backend_is_refused_and_the_error_names_the_alternative() -> None:
    with mock_aws(), pytest.raises(RequestRejectedError, match="use the pytest fixture dynamodb_backend"):
        await DynamoDBBackend(DynamoDBConfig()).initialize()
    async with local_dynamodb() as endpoint, DynamoDBBackend(local_config(endpoint)) as backend:
        with mock_aws(), pytest.raises(TableNotFoundError, match="begin it before the backend is opened"):
            await backend.list_sites()


async def test_local_dynamodb_ends_with_its_context() -> None:
    async with local_dynamodb() as endpoint:
        async with DynamoDBBackend(local_config(endpoint)) as backend:
            await backend.save_site(make_site())
        address = (urlsplit(endpoint).hostname, urlsplit(endpoint).port)
        assert address[0] == "127.0.0.1"
    with socket.socket() as probe:
        assert probe.connect_ex(address) != 0


async def test_local_dynamodb_runs_beside_another() -> None:
    async with local_dynamodb() as one, local_dynamodb(DYNAMODB_LOCAL) as two:
        assert one != two
        async with DynamoDBBackend(local_config(one)) as a, DynamoDBBackend(local_config(two)) as b:
            await a.save_site(make_site())
            assert await b.list_sites() == []


def test_run_dynamodb_local_names_a_folder_without_the_engine(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=f"no DynamoDBLocal.jar in {tmp_path}"),
        run_dynamodb_local(tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    "run", [lambda port: run_dynamodb_local(DYNAMODB_LOCAL, port), run_moto], ids=["dynamodb-local", "moto"]
)
def test_run_of_an_engine_refuses_a_port_that_is_in_use(
    run: Callable[[int], AbstractContextManager[str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"port {port} is in use"), run(port):
            pass
    with run(port) as endpoint:
        assert endpoint == f"http://127.0.0.1:{port}"


def test_run_dynamodb_local_says_that_the_engine_ended(tmp_path: Path) -> None:
    (tmp_path / "DynamoDBLocal.jar").write_text("not a jar")
    started = time.monotonic()
    with (
        pytest.raises(RuntimeError, match="ended with exit code 1 as it started"),
        run_dynamodb_local(tmp_path),
    ):
        pass
    assert time.monotonic() - started < 20


def test_local_config_has_a_unique_table_prefix() -> None:
    prefixes = {local_config("http://127.0.0.1:1").table_prefix for _ in range(100)}
    assert len(prefixes) == 100


OPTIONAL = ("moto", "pytest", "hypothesis", "typer", "rich", "bs4", "markdownify", "flask")


async def test_import_of_the_package_needs_nothing_optional() -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ImportError(name + " is optional")
sys.meta_path.insert(0, Refuse())
import ragcrawl_dynamo, ragcrawl_dynamo.testing
try:
    with ragcrawl_dynamo.testing.run_moto():
        pass
except RuntimeError as error:
    print(error)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert errors == b""
    assert output.decode().strip() == "moto is not installed: pip install 'ragcrawl-dynamo[local]'"
