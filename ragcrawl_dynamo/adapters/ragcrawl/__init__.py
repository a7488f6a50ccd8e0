"""ragcrawl on this storage."""

from ragcrawl_dynamo.adapters.ragcrawl.backend import RagcrawlBackend, install

__all__ = ["RagcrawlBackend", "install"]
