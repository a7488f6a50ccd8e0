"""Recognizes moto's `mock_aws`, which answers in the process of the test, but no client of asyncio."""

from __future__ import annotations

import sys
from typing import Any

from ragcrawl_dynamo.errors import RequestRejectedError


def is_active() -> bool:
    """Returns whether `mock_aws` is active in this process."""
    stubber = getattr(sys.modules.get("moto.core.models"), "botocore_stubber", None)
    return bool(getattr(stubber, "enabled", False))


def refuse(request: Any, event_name: str, **_: Any) -> None:
    """Refuses a request that `mock_aws` is about to answer; a handler of the event before-send.

    Raises:
        RequestRejectedError: It is a request to AWS, and `mock_aws` is active.
    """
    if is_active() and ".amazonaws." in request.url:
        raise RequestRejectedError(
            "moto's mock_aws is active, and it cannot answer a client of asyncio. Leave it out, and run moto "
            "as a server: use the pytest fixture dynamodb_backend, or local_dynamodb() and local_config() of "
            "ragcrawl_dynamo.testing",
            code="MockAws",
            operation=event_name.rpartition(".")[2],
            table=None,
        )


def advice() -> str:
    """Returns what to add to the error of a missing table; nothing unless `mock_aws` is active."""
    if not is_active():
        return ""
    return (
        ". moto's mock_aws is active: when it begins or ends, it deletes the tables of a moto server in the "
        "same process, which dynamodb_backend and local_dynamodb() run. Leave it out, or begin it before the "
        "backend is opened"
    )
