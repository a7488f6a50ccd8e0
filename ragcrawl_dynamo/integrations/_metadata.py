"""Builds the metadata of pages and chunks, with the same names in all frameworks."""

from __future__ import annotations

from typing import Any

from ragcrawl_dynamo.integrations.chunks import Chunk, headings_of
from ragcrawl_dynamo.models import PageVersion


def page_metadata(version: PageVersion) -> dict[str, Any]:
    """Returns the metadata of a document that is a whole page, without values that are not known."""
    headings = "\n".join(f"{'#' * heading.level} {heading.text}" for heading in headings_of(version))
    return _known(
        {
            "source": version.url,
            "url": version.url,
            "title": version.title,
            "site": version.site_id,
            "page_id": version.page_id,
            "version_id": version.version_id,
            "crawled_at": version.crawled_at.isoformat(),
            "language": version.language,
            "headings": headings or None,
        }
    )


def chunk_metadata(chunk: Chunk) -> dict[str, Any]:
    """Returns the metadata of a chunk and those of its splitter, without values that are not known."""
    return _known(
        {
            # The splitter can add metadata, such as the texts of headers.
            **chunk.metadata,
            "source": chunk.anchor_url,
            "url": chunk.url,
            "title": chunk.title,
            "site": chunk.site_id,
            "page_id": chunk.page_id,
            "version_id": chunk.version_id,
            "crawled_at": chunk.crawled_at.isoformat(),
            "language": chunk.language,
            "headings": None,
            "section": " > ".join(chunk.section) or None,
            "position": chunk.position,
        }
    )


def _known(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns metadata without None, which some stores refuse."""
    return {name: value for name, value in metadata.items() if value is not None}
