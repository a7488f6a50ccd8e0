"""Protects a site against the deletion of most of its records by mistake."""

from __future__ import annotations

from ragcrawl_dynamo.errors import MassDeletionError


def check_deleted_share(kind: str, deleted: int, total: int, max_share: float) -> None:
    """Refuses a deletion of more than a share of the records.

    Args:
        kind: The kind of the records, for the error: in the plural, such as "pages".
        deleted: How many records would be deleted.
        total: How many records there are.
        max_share: The allowed share, from 0 to 1 (`max_deleted_share`).

    Raises:
        MassDeletionError: The deletion exceeds the share.
    """
    if deleted > max_share * total:
        raise MassDeletionError(kind, deleted, total, max_share)
