"""Connects to the S3 bucket for large bodies, if one is configured."""

from __future__ import annotations

from ragcrawl_dynamo._dynamodb.client import Access
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.metrics import Metrics
from ragcrawl_dynamo.config import DynamoDBConfig


class ContentBucket:
    """The connection to the content bucket; it does nothing where `content_bucket` is not set.

    Attributes:
        gateway: Sends its requests; None where there is no bucket.
    """

    def __init__(self, config: DynamoDBConfig, access: Access, metrics: Metrics) -> None:
        self._name = config.content_bucket
        self.gateway: Gateway | None = None
        if self._name is not None:
            self.gateway = Gateway(config, service="S3", access=access, metrics=metrics)

    async def open(self) -> None:
        """Opens the connection.

        Raises:
            BucketNotFoundError: The bucket does not exist.
        """
        if self.gateway is not None:
            await self.gateway.open()
            await self.check()

    async def check(self) -> None:
        """Proves that the bucket can be reached.

        Raises:
            BucketNotFoundError: It does not exist.
            ServiceError: It cannot be reached.
        """
        if self.gateway is not None:
            await self.gateway.call("HeadBucket", {"Bucket": self._name})

    async def close(self) -> None:
        """Closes the connection."""
        if self.gateway is not None:
            await self.gateway.close()
