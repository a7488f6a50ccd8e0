"""What tests on a simulated AWS share: each of them has a simulation of its own before DynamoDB Local."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test-aws` runs what is marked so."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.aws)


@pytest.fixture(scope="session")
def engine(dynamodb_local_endpoint: str) -> str:
    """The endpoint of the engine behind the simulation."""
    return dynamodb_local_endpoint
