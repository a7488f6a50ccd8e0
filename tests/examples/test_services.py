"""The examples for services, and the sample project, as their users run them."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from examples import lambda_handler, service
from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import drop_tables, local_config
from tests.support.factories import make_page, make_version
from tests.support.processes import run_command

SAMPLE = Path(__file__).parents[2] / "examples" / "sample_project"


@pytest.fixture
def config(dynamodb_local_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DynamoDBConfig]:
    """Settings of tables that are there; a process finds them in its environment."""
    settings = local_config(dynamodb_local_endpoint)
    monkeypatch.setenv("RAGCRAWL_DYNAMO_ENDPOINT_URL", dynamodb_local_endpoint)
    monkeypatch.setenv("RAGCRAWL_DYNAMO_TABLE_PREFIX", settings.table_prefix)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")

    async def make() -> None:
        async with DynamoDBBackend(settings) as backend:
            for i in range(5):
                page, version = make_page(f"p{i}"), make_version("v1", f"p{i}", markdown=f"# {i}")
                await backend.commit_page(page, version)

    asyncio.run(make())
    yield settings
    asyncio.run(drop_tables(settings))


def test_example_service_describes_the_fields_of_a_page_in_its_openapi() -> None:
    page = service.app.openapi()["components"]["schemas"]["Page"]
    assert "normalized forms" in page["properties"]["url"]["description"]


def test_example_service_answers_from_the_stored_pages(config: DynamoDBConfig) -> None:
    with TestClient(service.app) as client:
        assert client.get("/health").json() == {"healthy": True}
        assert service.app.state.backend.config.call_timeout == 3.0
        urls: list[str] = []
        cursor = None
        slices = 0
        while slices == 0 or cursor is not None:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            answer = client.get("/sites/site/pages", params=params).json()
            urls += [page["url"] for page in answer["pages"]]
            cursor = answer["cursor"]
            slices += 1
        assert (len(urls), slices) == (5, 3)
        assert client.get("/sites/site/page", params={"url": urls[1]}).json()["page_id"] == "p1"
        assert client.get("/sites/site/text", params={"url": urls[1]}).text == "# 1"
        changes = client.get("/sites/site/changes").json()
        assert len(changes["changes"]) == 5
        assert client.get("/sites/site/changes", params={"cursor": changes["cursor"]}).json()["changes"] == []
        assert client.get("/sites/site/page", params={"url": "https://example.com/none"}).status_code == 404
        damaged = client.get("/sites/site/pages", params={"cursor": "damaged"})
        assert damaged.status_code == 400
        assert "cursor" in damaged.json()["error"]
        asyncio.run(drop_tables(config))
        assert client.get("/health").status_code == 503
        assert client.get("/sites/site/pages").status_code == 503


def test_example_lambda_handler_stores_and_returns_messages_to_retry(
    config: DynamoDBConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    def event(*bodies: str) -> dict[str, object]:
        return {"Records": [{"messageId": f"m{i}", "body": body} for i, body in enumerate(bodies)]}

    good = make_page("new").model_dump_json()
    try:
        for _ in range(2):
            assert lambda_handler.handler(event(good, "no JSON", '{"page_id": "x"}'), None) == {
                "batchItemFailures": []
            }
        assert capsys.readouterr().out.count("dropped:") == 4
        # A warm invocation has the backend of the one before.
        assert lambda_handler.store.cache_info().misses == 1
        asyncio.run(drop_tables(config))
        assert lambda_handler.handler(event(good), None) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
        assert "again later:" in capsys.readouterr().out
    finally:
        lambda_handler.loop().run_until_complete(lambda_handler.store().close())
        lambda_handler.loop().close()
        lambda_handler.store.cache_clear()
        lambda_handler.loop.cache_clear()


@pytest.mark.long
@pytest.mark.parametrize("engine", ["moto", "dynamodb-local"])
async def test_example_sample_project_passes_on_both_engines(
    engine: str, dynamodb_local_endpoint: str
) -> None:
    options = () if engine == "moto" else ("--dynamodb-endpoint", dynamodb_local_endpoint)
    code, output, errors = await run_command(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options), cwd=SAMPLE
    )
    assert code == 0, output + errors
    assert "5 passed" in output
