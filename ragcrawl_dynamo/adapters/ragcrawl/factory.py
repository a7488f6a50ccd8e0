"""Makes ragcrawl's factory of storage backends use this package for DynamoDB."""

from __future__ import annotations

import sys
from types import ModuleType

from ragcrawl_dynamo.adapters.ragcrawl.backend import RagcrawlBackend

# The factory imports the class DynamoDBBackend from this module of ragcrawl.
_BACKEND_MODULE = "ragcrawl.storage.dynamodb.backend"


def install() -> None:
    """Makes ragcrawl use this package wherever its configuration says DynamoDB. It is safe to repeat."""
    module = ModuleType(_BACKEND_MODULE, f"Replaced by {__name__}.")
    module.DynamoDBBackend = RagcrawlBackend  # type: ignore[attr-defined] # the name that ragcrawl imports
    sys.modules[_BACKEND_MODULE] = module
