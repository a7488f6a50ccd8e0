"""Every request of these tests is one that a policy of ragcrawl_dynamo.iam allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo.iam import policy
from tests.support.actions import Need, allowed, needs


@pytest.fixture(autouse=True)
def only_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    denied: set[Need] = set()
    permitted: dict[Gateway, set[Need]] = {}
    send = Gateway._await_client

    async def checking(self: Gateway, client: Any, operation: str, request: Any) -> Any:
        # Tests delete their tables; no role does.
        if operation != "DeleteTable":
            if self not in permitted:
                permitted[self] = set().union(
                    *(allowed(policy(self.config, role)) for role in ("migrator", "worker"))
                )
            denied.update(set(needs(operation, request)) - permitted[self])
        return await send(self, client, operation, request)

    monkeypatch.setattr(Gateway, "_await_client", checking)
    yield
    assert denied == set()
