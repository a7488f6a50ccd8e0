"""Large bodies in an S3 bucket (moto's), their heads on either engine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from ragcrawl_dynamo import (
    BucketNotFoundError,
    CorruptContentError,
    DynamoDBBackend,
    DynamoDBConfig,
    EndpointUnreachableError,
)
from ragcrawl_dynamo._dynamodb.client import open_object_client
from ragcrawl_dynamo.testing import local_config
from tests.support.factories import START, dense_text, hours, make_page, make_version
from tests.support.fakes import intercepting

LARGE = dense_text(2000)


class Bucket:
    """A bucket of its own, and a plain client for it."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    async def keys(self) -> list[str]:
        answer = await self.client.list_objects_v2(Bucket=self.name)
        return [entry["Key"] for entry in answer.get("Contents", [])]


@pytest_asyncio.fixture
async def bucket(moto_endpoint: str) -> AsyncIterator[Bucket]:
    config = local_config("http://unused", content_bucket_endpoint_url=moto_endpoint)
    async with open_object_client(config) as client:
        bucket = Bucket(client, f"bodies-{uuid4().hex[:12]}")
        await client.create_bucket(Bucket=bucket.name)
        yield bucket


@pytest.fixture
def spilling(dynamodb_config: DynamoDBConfig, bucket: Bucket, moto_endpoint: str) -> DynamoDBConfig:
    changes = {
        "content_bucket": bucket.name,
        "content_bucket_threshold": 500_000,
        "content_bucket_endpoint_url": moto_endpoint,
    }
    return dynamodb_config.model_copy(update=changes)


@pytest_asyncio.fixture
async def backend(spilling: DynamoDBConfig) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(spilling) as backend:
        yield backend


async def test_content_bucket_holds_only_bodies_above_the_threshold(
    backend: DynamoDBBackend, bucket: Bucket
) -> None:
    small, large = make_version("small", markdown=dense_text(400)), make_version("large", markdown=LARGE)
    await backend.save_version(small)
    assert await bucket.keys() == []
    await backend.save_version(large)
    assert len(await bucket.keys()) == 1
    await backend.save_page(make_page(current_version_id="large"))
    assert await backend.get_version("site", "page", "small") == small
    assert await backend.get_version("site", "page", "large") == large
    assert await backend.get_current_version("site", "page") == large
    assert [version async for version in backend.iter_versions("site")] == [large]
    usage = await backend.get_content_usage("site")
    assert (usage.versions, usage.write_units < 450) == (2, True)


async def test_content_bucket_object_goes_with_its_last_version(
    backend: DynamoDBBackend, bucket: Bucket
) -> None:
    for i in range(3):
        await backend.save_version(make_version(f"v{i}", markdown=LARGE, crawled_at=START + hours(i)))
    assert len(await bucket.keys()) == 1
    await backend.prune_versions("site", keep_last=1, allow_mass_deletion=True)
    assert [version.markdown == LARGE for version in await backend.list_versions("site", "page")] == [True]
    await backend.save_version(make_version("v2", markdown="small now"))
    await backend.collect_garbage("site", grace_hours=0, allow_mass_deletion=True)
    assert await bucket.keys() == []


async def test_content_bucket_is_empty_after_delete_site(backend: DynamoDBBackend, bucket: Bucket) -> None:
    await backend.save_version(make_version(markdown=LARGE))
    await backend.save_version(make_version(site_id="other", markdown=LARGE))
    await backend.delete_site("site")
    assert len(await bucket.keys()) == 1
    assert await backend.get_version("other", "page", "v1") is not None


async def test_content_bucket_object_without_a_head_is_collected(
    backend: DynamoDBBackend, bucket: Bucket, spilling: DynamoDBConfig
) -> None:
    async def dies(operation: str, request: Any, call: Any) -> Any:
        if operation == "put_item" and "version_id" in request["Item"]:
            raise asyncio.CancelledError
        return await call(**request)

    async with DynamoDBBackend(spilling, client_factory=intercepting(dies)) as dying:
        with pytest.raises(asyncio.CancelledError):
            await dying.save_version(make_version(markdown=LARGE))
    assert len(await bucket.keys()) == 1
    report = await backend.collect_garbage("site", grace_hours=0, allow_mass_deletion=True)
    assert report.bodies_removed == 1
    assert await bucket.keys() == []


@pytest.mark.parametrize("data", [None, b"", b"damaged", b"x" * 5_000_000])
async def test_content_bucket_object_missing_or_damaged_raises_and_names_the_version(
    backend: DynamoDBBackend, bucket: Bucket, data: bytes | None
) -> None:
    await backend.save_version(make_version(markdown=LARGE))
    (key,) = await bucket.keys()
    if data is None:
        await bucket.client.delete_object(Bucket=bucket.name, Key=key)
    else:
        await bucket.client.put_object(Bucket=bucket.name, Key=key, Body=data)
    with pytest.raises(CorruptContentError, match="version 'v1' of page 'page' of site 'site'"):
        await backend.get_version("site", "page", "v1")


async def test_content_bucket_missing_in_the_config_is_named(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_version(make_version(markdown=LARGE))
    async with DynamoDBBackend(dynamodb_config) as reader:
        with pytest.raises(CorruptContentError, match="content_bucket is not set"):
            await reader.get_version("site", "page", "v1")
        assert len(await reader.list_versions("site", "page", include_content=False)) == 1


async def test_content_bucket_that_does_not_exist_is_named(spilling: DynamoDBConfig) -> None:
    backend = DynamoDBBackend(spilling.model_copy(update={"content_bucket": "no-such-bucket"}))
    with pytest.raises(BucketNotFoundError, match=r"no bucket 'no-such-bucket' at endpoint .*create it"):
        await backend.initialize()


async def test_content_bucket_missing_fails_health_check(backend: DynamoDBBackend, bucket: Bucket) -> None:
    assert await backend.health_check() is True
    await bucket.client.delete_bucket(Bucket=bucket.name)
    assert await backend.health_check() is False


async def test_content_bucket_that_cannot_be_reached_is_named(spilling: DynamoDBConfig) -> None:
    changes = {"content_bucket_endpoint_url": "http://127.0.0.1:1", "retry_attempts": 2}
    backend = DynamoDBBackend(spilling.model_copy(update=changes))
    with pytest.raises(EndpointUnreachableError, match="HeadBucket on bodies-"):
        await backend.initialize()
