"""The protection against the deletion of most of a site by mistake."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import MassDeletionError
from ragcrawl_dynamo._utils.mass_deletion import check_deleted_share


@pytest.mark.parametrize(("deleted", "total", "max_share"), [(0, 0, 0.5), (5, 10, 0.5), (10, 10, 1.0)])
def test_check_deleted_share_allows_up_to_the_share(deleted: int, total: int, max_share: float) -> None:
    check_deleted_share("pages", deleted, total, max_share)


@pytest.mark.parametrize(("deleted", "total", "max_share"), [(1, 0, 1.0), (6, 10, 0.5), (1, 10, 0.0)])
def test_check_deleted_share_refuses_more_and_says_how_many(
    deleted: int, total: int, max_share: float
) -> None:
    with pytest.raises(MassDeletionError, match=f"{deleted} of {total} pages") as caught:
        check_deleted_share("pages", deleted, total, max_share)
    assert (caught.value.deleted, caught.value.total) == (deleted, total)
