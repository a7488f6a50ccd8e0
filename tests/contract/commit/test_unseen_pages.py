"""Pages that a run did not see."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import DynamoDBBackend, InvalidArgumentError, NotFoundError
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_page, make_run, make_version


async def test_get_unseen_pages_lists_pages_that_a_completed_run_did_not_see(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    for i in range(6):
        await backend.commit_page(make_page(f"p{i}", status_code=200), make_version("v1", f"p{i}"))
    await backend.tombstone_pages("site", ["p5"])
    clock.advance(60)
    run = make_run(status="running", started_at=clock.now())
    await backend.save_run(run)
    clock.advance(60)
    await backend.commit_page(make_page("p0", status_code=200), make_version("v1", "p0"))
    links = ["https://example.com/p1#top", "https://EXAMPLE.com/p2", "https://example.com/absent"]
    assert await backend.mark_seen("site", links) == 2
    with pytest.raises(InvalidArgumentError, match="run_id: run 'run' has status running: end it"):
        await backend.get_unseen_pages("site", "run")
    await backend.complete_run("site", "run")
    unseen = await backend.get_unseen_pages("site", "run")
    assert [page.page_id for page in unseen] == ["p3", "p4"]
    assert [page.page_id for page in await backend.get_unseen_pages("site", "run", limit=1)] == ["p3"]
    assert await backend.tombstone_pages("site", [page.page_id for page in unseen]) == 2
    assert await backend.get_unseen_pages("site", "run") == []


async def test_mark_seen_never_moves_last_seen_back(backend: DynamoDBBackend, clock: ManualClock) -> None:
    await backend.commit_page(make_page(status_code=200), make_version())
    seen_at = clock.now()
    clock.advance(-100)
    assert await backend.mark_seen("site", ["https://example.com/page"]) == 1
    stored = await backend.get_page("site", "page")
    assert stored is not None
    assert stored.last_seen == seen_at
    with pytest.raises(InvalidArgumentError, match="put a single value into a list"):
        await backend.mark_seen("site", "https://example.com/page")
    with pytest.raises(NotFoundError):
        await backend.get_unseen_pages("site", "absent")
