"""Each crawler's tests run where that crawler is installed: in its own environment, by make test-adapters."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.adapters.site import Site, serve

CRAWLERS = ("ragcrawl", "crawlee", "scrapy")

_absent = [name for name in CRAWLERS if find_spec(name) is None]
collect_ignore = [*_absent]
if len(_absent) == len(CRAWLERS):
    collect_ignore.append("test_docs.py")


@pytest.fixture
def site() -> Iterator[Site]:
    """A site on this machine, with 63 pages."""
    with serve() as site:
        yield site
