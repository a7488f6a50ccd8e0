"""Pages whose documents and chunks the tests of all frameworks compare."""

from __future__ import annotations

from typing import Any

from ragcrawl_dynamo import DynamoDBBackend
from tests.support.factories import START, make_page, make_version

# A page with a heading that links to itself, and one that does not.
JSON = """# json[¶](#module-json "Link to this heading")

Encodes and decodes.

## Basic Usage

    json.dumps()
"""

# A page with a comment in code that looks like a heading.
GUIDE = """# Guide

Read this first.

## Setup

Install it. Then call `setup()`.

```python
# This is no heading.
setup()
```

## Usage

Call `run()`. It runs.
"""


async def commit(backend: DynamoDBBackend, page_id: str, **fields: Any) -> None:
    """Commits version v1 of a page."""
    version = make_version("v1", page_id, crawled_at=START, **fields)
    await backend.commit_page(make_page(page_id, status_code=200), version)


async def commit_guide(backend: DynamoDBBackend) -> None:
    """Commits the page `guide`, with an outline that knows two of its three anchors."""
    outline: list[Any] = [
        {"level": 1, "text": "Guide", "anchor": "guide"},
        {"level": 2, "text": "Setup", "anchor": "setup"},
        {"level": 2, "text": "Usage", "anchor": None},
    ]
    version = make_version("v1", "guide", markdown=GUIDE, title="The guide", headings_outline=outline)
    await backend.commit_page(make_page("guide", status_code=200), version)
