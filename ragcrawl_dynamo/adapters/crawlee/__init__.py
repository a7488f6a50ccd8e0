"""Crawlee for Python on this storage."""

from ragcrawl_dynamo.adapters.crawlee.client import DynamoDBStorageClient

__all__ = ["DynamoDBStorageClient"]
