"""Content on fake tables."""

from collections.abc import AsyncIterator

import pytest

from tests.support.fake_content import Content, open_content


@pytest.fixture
async def content() -> AsyncIterator[Content]:
    async with open_content() as content:
        yield content
