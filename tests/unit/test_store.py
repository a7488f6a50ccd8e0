"""Tests the settings that `connect` takes."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import DynamoDBConfig, InvalidArgumentError, connect


@pytest.mark.parametrize("config", [None, DynamoDBConfig()], ids=["environment", "config"])
@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"tableprefix": "docs_"}, "tableprefix"),
        ({"call_timeout": -1}, "call_timeout"),
        ({"access_key_id": "key", "secret_access_key": "secret", "profile": "p"}, "settings"),
    ],
)
def test_connect_names_a_setting_that_is_not_allowed_without_its_value(
    config: DynamoDBConfig | None, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        connect(config, **settings)
    assert raised.value.field == field
    assert "secret'" not in str(raised.value)
    assert "docs_" not in str(raised.value)


def test_connect_names_a_variable_that_is_mistyped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCRAWL_DYNAMO_TABLEPREFIX", "docs_")
    with pytest.raises(InvalidArgumentError, match=r"^tableprefix: "):
        connect()
