"""Makes the backend that a configuration describes."""

from __future__ import annotations

from types import NoneType
from typing import Unpack

from ragcrawl_dynamo._dynamodb.client import ClientOptions
from ragcrawl_dynamo._dynamodb.metrics import Observer
from ragcrawl_dynamo._frontier.claim import LeaseObserver
from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.config import DynamoDBConfig, StorageConfig
from ragcrawl_dynamo.storage import StorageBackend

__all__ = ["create_storage_backend"]


def create_storage_backend(
    config: StorageConfig | DynamoDBConfig | None = None,
    *,
    on_request: Observer | None = None,
    on_lease_lost: LeaseObserver | None = None,
    **clients: Unpack[ClientOptions],
) -> StorageBackend:
    """Makes the backend that a configuration describes, not yet open; with the defaults if none is given.

    Args:
        config: The settings, of the backend alone or with the choice of it.
        on_request: Called after every request; see DynamoDBBackend.
        on_lease_lost: Called with each claim whose lease was lost; see DynamoDBBackend.
        **clients: See ClientOptions.

    Raises:
        InvalidArgumentError: `config` is something else, or one of `clients` contradicts it.
    """
    check_kind("config", config, StorageConfig, DynamoDBConfig, NoneType)
    if not isinstance(config, DynamoDBConfig):
        config = (config or StorageConfig()).backend
    return DynamoDBBackend(config, on_request=on_request, on_lease_lost=on_lease_lost, **clients)
