"""Makes ragcrawl's factory of storage backends use this package for DynamoDB."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ragcrawl_dynamo.adapters.ragcrawl.backend import RagcrawlBackend

# The factory imports the class DynamoDBBackend from this module of ragcrawl.
_BACKEND_MODULE = "ragcrawl.storage.dynamodb.backend"


def install() -> None:
    """Makes ragcrawl use this package wherever its configuration says DynamoDB. It is safe to repeat.

    If DynamoDB cannot be used, ragcrawl's factory falls back to a local DuckDB file, unless
    `StorageConfig.fail_if_unavailable` is set. The reason is logged as an error.
    """
    replace_backend(RagcrawlBackend)


def replace_backend(create: Callable[[Any], RagcrawlBackend]) -> None:
    """Makes ragcrawl's factory call `create`, with ragcrawl's settings, for a backend on DynamoDB."""
    module = ModuleType(_BACKEND_MODULE, f"Replaced by {__name__}.")
    module.DynamoDBBackend = create  # type: ignore[attr-defined] # the name that ragcrawl imports
    sys.modules[_BACKEND_MODULE] = module
