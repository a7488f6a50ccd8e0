"""Which versions are pruned, and which stay."""

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import DynamoDBBackend, InvalidArgumentError, MassDeletionError, PruneReport
from ragcrawl_dynamo.models import utc_now
from tests.support.factories import START, dense_text, hours, make_page, make_version


async def save_history(backend: DynamoDBBackend, pages: int = 3, count: int = 6) -> None:
    """Pages whose versions are 0, 1, 2 … days old; of each the oldest is current."""
    now = utc_now()
    for p in range(pages):
        await backend.save_versions_bulk(
            make_version(
                f"v{age}",
                f"p{p}",
                crawled_at=now - timedelta(days=age, minutes=1),
                markdown=dense_text(10 * (age % 2), f"{p}-{age}") + "x",
            )
            for age in range(count)
        )
        await backend.save_page(make_page(f"p{p}", current_version_id=f"v{count - 1}"))


async def ages(backend: DynamoDBBackend, page_id: str) -> list[int]:
    return [
        int(version.version_id[1:])
        for version in await backend.list_versions("site", page_id, include_content=False)
    ]


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"keep_last": 2}, [0, 1, 5]),
        ({"max_age_days": 3}, [0, 1, 2, 5]),
        ({"keep_last": 1, "max_age_days": 2}, [0, 1, 5]),
        ({"keep_last": 4, "max_age_days": 2}, [0, 1, 2, 3, 5]),
        ({"keep_last": 0}, [5]),
        ({"keep_last": 9}, [0, 1, 2, 3, 4, 5]),
    ],
)
async def test_retention_keeps_the_newest_the_young_and_the_current_versions(
    backend: DynamoDBBackend, limits: dict[str, Any], left: list[int]
) -> None:
    await save_history(backend)
    await backend.save_version(make_version("v9", "p0", "other-site"))
    planned = await backend.prune_versions("site", dry_run=True, **limits)
    assert planned == PruneReport(18, 3 * (6 - len(left)), dry_run=True)
    assert await ages(backend, "p1") == [0, 1, 2, 3, 4, 5]
    done = await backend.prune_versions("site", allow_mass_deletion=True, **limits)
    assert done == PruneReport(18, planned.versions_removed, dry_run=False)
    for page_id in ("p1", "p2"):
        assert await ages(backend, page_id) == left
    versions = await backend.list_versions("site", "p0")
    assert [int(version.version_id[1:]) for version in versions] == left
    assert all(version.markdown for version in versions)
    assert (await backend.collect_garbage("site", grace_hours=0)).bodies_removed == 0
    assert await backend.get_version("other-site", "p0", "v9") is not None


async def test_retention_includes_versions_without_a_page(backend: DynamoDBBackend) -> None:
    for i in range(4):
        await backend.save_version(make_version(f"v{i}", "#odd ~page", crawled_at=START + hours(i)))
    report = await backend.prune_versions("site", keep_last=3)
    assert report.versions_removed == 1
    assert [version.version_id for version in await backend.list_versions("site", "#odd ~page")] == [
        "v3",
        "v2",
        "v1",
    ]


async def test_retention_refuses_a_mass_deletion_by_default(backend: DynamoDBBackend) -> None:
    await save_history(backend)
    with pytest.raises(MassDeletionError, match="12 of 18 versions") as caught:
        await backend.prune_versions("site", keep_last=1)
    assert (caught.value.deleted, caught.value.total) == (12, 18)
    assert await ages(backend, "p0") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("limits", "field"),
    [({}, "keep_last"), ({"keep_last": -1}, "keep_last"), ({"max_age_days": -0.1}, "max_age_days")],
)
async def test_retention_refuses_invalid_limits(
    backend: DynamoDBBackend, limits: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        await backend.prune_versions("site", **limits)
    with pytest.raises(InvalidArgumentError, match="grace_hours"):
        await backend.collect_garbage("site", grace_hours=-1)
