"""The connection to the content bucket."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import BucketNotFoundError
from tests.support.fake_content import Content, open_content
from tests.support.fakes import client_error


async def test_bucket_is_opened_and_closed_with_a_look_whether_it_exists() -> None:
    content = Content(None, content_bucket="bucket")
    await content.bucket.open()
    assert content.bucket.gateway is not None
    assert content.bucket.gateway.is_open
    (sent,) = content.stored.sent
    assert (sent.operation, sent.request) == ("head_bucket", {"Bucket": "bucket"})
    await content.bucket.close()
    assert not content.bucket.gateway.is_open
    assert content.stored.client.closed == 1


async def test_bucket_that_does_not_exist_is_named() -> None:
    async with open_content(content_bucket="bucket") as content:

        def refuse(operation: str, request: object) -> None:
            raise client_error("404", 404)

        content.stored.on_request = refuse
        with pytest.raises(BucketNotFoundError, match="bucket"):
            await content.bucket.check()


async def test_bucket_that_is_not_set_needs_no_connection() -> None:
    content = Content(None)
    await content.bucket.open()
    await content.bucket.check()
    await content.bucket.close()
    assert content.bucket.gateway is None
    assert content.stored.client.opened == 0


async def test_requests_to_the_bucket_are_counted_with_those_to_the_tables() -> None:
    async with open_content(content_bucket="bucket") as content:
        before = content.metrics.snapshot()
        await content.bucket.check()
        assert content.metrics.snapshot() != before
