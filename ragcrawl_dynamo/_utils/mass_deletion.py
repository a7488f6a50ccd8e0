"""Guards against deleting most of a site by mistake."""

from __future__ import annotations

from ragcrawl_dynamo.errors import MassDeletionError


def check_deleted_share(what: str, deleted: int, total: int, max_share: float) -> None:
    """Refuses to delete more than a share of what there is.

    Args:
        what: The deleted things in the plural, for the error.
        deleted: How many would be deleted.
        total: Of how many.
        max_share: `max_deleted_share`, from 0 to 1.

    Raises:
        MassDeletionError: It is more than that share.
    """
    if deleted > max_share * total:
        raise MassDeletionError(what, deleted, total, max_share)
