"""The syncs of the frameworks have the options of sync_index, and pass them on."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any
from unittest.mock import MagicMock

import pytest

from ragcrawl_dynamo.integrations import sync_index

OPTIONS = {
    parameter.name: parameter.default
    for parameter in signature(sync_index).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
}


@pytest.mark.parametrize(
    ("module", "name", "others"),
    [
        ("langchain", "sync_vectorstore", 2),
        ("llama_index", "sync_vector_store", 3),
        ("haystack", "sync_document_store", 2),
    ],
)
async def test_syncs_of_frameworks_pass_the_options_of_sync_index_on(
    module: str, name: str, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework = import_module(f"ragcrawl_dynamo.integrations.{module}")
    passed: list[dict[str, Any]] = []

    async def note(*args: object, **options: object) -> None:
        passed.append(options)

    monkeypatch.setattr(framework, "sync_index", note)
    sync = getattr(framework, name)
    parameters = signature(sync).parameters
    assert {option: parameters[option].default for option in OPTIONS} == OPTIONS
    chosen = {option: MagicMock() for option in OPTIONS}
    await sync(MagicMock(), "site", "search", *(MagicMock() for _ in range(others)), **chosen)
    assert passed == [chosen]
