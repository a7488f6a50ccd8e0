"""Logs and errors contain no secrets."""

from __future__ import annotations

import logging

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, RagcrawlDynamoError
from ragcrawl_dynamo.cli.app import run
from tests.support.engines import on_moto
from tests.support.factories import make_page, make_version

SECRETS = {
    "access_key_id": "AKIDUNMISTAKABLE",
    "secret_access_key": "KEYUNMISTAKABLE",
    "session_token": "TOKENUNMISTAKABLE",
}
BODY = "BODYUNMISTAKABLE"


@on_moto
async def test_logs_hold_no_credentials_or_content(
    dynamodb_config: DynamoDBConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG too, where botocore would log every request and answer whole."""
    config = DynamoDBConfig(**{**dynamodb_config.model_dump(), **SECRETS})
    with caplog.at_level(logging.DEBUG):
        async with DynamoDBBackend(config) as backend:
            await backend.commit_page(
                make_page(last_error=BODY, status_code=200), make_version(markdown=BODY)
            )
            await backend.get_current_version("site", "page")
            for limit in (1, 5):
                await backend.list_pages("site", limit=limit)
    assert "PutItem" in caplog.text or "TransactWriteItems" in caplog.text
    assert "UNMISTAKABLE" not in caplog.text


@on_moto
async def test_errors_hold_no_credentials_or_content(dynamodb_config: DynamoDBConfig) -> None:
    settings = {**dynamodb_config.model_dump(), **SECRETS, "table_prefix": "absent_"}
    backend = DynamoDBBackend(DynamoDBConfig(**settings))
    await backend._rooms.gateway.open()
    try:
        with pytest.raises(RagcrawlDynamoError) as caught:
            await backend.save_page(make_page(last_error=BODY))
    finally:
        await backend.close()
    told = f"{caught.value!r} {caught.value} {vars(caught.value)} {backend.config!r}"
    assert "UNMISTAKABLE" not in told


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("https://dynamodb.example.com", False),
        ("http://dynamodb.example.com", True),
        ("http://127.0.0.1.example.com", True),
        ("http://10.0.0.7:8000", True),
    ],
)
async def test_endpoint_url_without_encryption_is_warned_of(
    url: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = DynamoDBConfig.from_env({}, endpoint_url=url, **SECRETS)
    backend = DynamoDBBackend(config)
    await backend._rooms.gateway.open()
    await backend.close()
    assert ("are not encrypted and leave this machine" in caplog.text) is warns


def test_command_names_the_error_in_settings_and_shows_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAGCRAWL_DYNAMO_SECRET_ACCESS_KEY", SECRETS["secret_access_key"])
    with pytest.raises(SystemExit):
        run(["sites"])
    told = capsys.readouterr()
    assert "access_key_id and secret_access_key go together" in told.err
    assert "UNMISTAKABLE" not in told.out + told.err
