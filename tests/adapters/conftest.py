"""The tests of an adapter run where its crawler is installed. `make test-adapters` makes the environments."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.adapters.site import Site, serve

CRAWLERS = ("ragcrawl", "crawlee", "scrapy")

_missing = [name for name in CRAWLERS if find_spec(name) is None]
collect_ignore = [*_missing]
if len(_missing) == len(CRAWLERS):
    collect_ignore.append("test_docs.py")


@pytest.fixture
def site() -> Iterator[Site]:
    """A site with 63 pages, served by this machine."""
    with serve() as site:
        yield site
