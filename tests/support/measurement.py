"""Measures coverage at half the usual cost; the figure is a lower bound.

Where Python has no cheap events for branches (before 3.14), tracing doubles the time of all Python code, that
of libraries included. So the import of the package and the tests are traced, but not the import of tests and
their libraries, nor their fixtures, nor a test on moto that runs on DynamoDB Local too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ragcrawl_dynamo

if TYPE_CHECKING:
    import pytest

PACKAGE = Path(ragcrawl_dynamo.__file__).parent
# They need their crawlers and frameworks; and what runs when it is imported.
NOT_IMPORTED = {
    *("adapters.ragcrawl", "adapters.crawlee", "adapters.scrapy"),
    *("integrations.langchain", "integrations.llama_index", "integrations.haystack"),
    "__main__",
}


def module_names() -> list[str]:
    """Returns the names of all modules of the package, without the package's own name."""
    files = PACKAGE.rglob("*.py")
    return sorted(".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files)


class Measurement:
    """Measures the coverage in this process, if it is asked for."""

    def __init__(self) -> None:
        coverage = sys.modules.get("coverage")
        self._coverage: Any = coverage and coverage.Coverage.current()
        self._twins: set[str] = set()
        if self._coverage is not None:
            for name in module_names():
                if not any(f"{name}.".startswith(f"{prefix}.") for prefix in NOT_IMPORTED):
                    import_module(f"ragcrawl_dynamo.{name}".removesuffix(".__init__"))
            self._coverage.stop()

    def plan(self, items: list[pytest.Item]) -> None:
        """Finds the tests that run on both engines."""
        self._twins = {_function(item) for item in items if _engine(item) == "dynamodb-local"}

    def save(self) -> None:
        """Writes the measured data: xdist kills a worker that takes more than ten seconds to exit."""
        if self._coverage is not None:
            self._coverage.save()

    @contextmanager
    def of(self, item: pytest.Item) -> Iterator[None]:
        """Measures the code that runs within, unless it also runs on DynamoDB Local."""
        if self._coverage is None or (_engine(item) == "moto" and _function(item) in self._twins):
            yield
            return
        self._coverage.start()
        try:
            yield
        finally:
            self._coverage.stop()


def _engine(item: pytest.Item) -> str | None:
    engine: str | None = getattr(item, "callspec", None) and item.callspec.params.get("dynamodb_endpoint")  # type: ignore[attr-defined]
    return engine


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]
