"""Which versions a retention rule keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import InvalidArgumentError, MassDeletionError, PruneReport
from ragcrawl_dynamo._content.heads import VersionHead
from ragcrawl_dynamo._content.retention import RetentionRule
from ragcrawl_dynamo._dynamodb.values import encode_value
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.factories import START, make_page, make_version
from tests.support.fake_content import Content, open_content


def heads(ages: list[int]) -> list[VersionHead]:
    """Versions by their age in days, newest first."""
    return [
        VersionHead(
            version_key("page", f"v{i}", "site"),
            encode_value(START - timedelta(days=age), model="PageVersion", field="crawled_at")["S"],
        )
        for i, age in enumerate(sorted(ages))
    ]


limits = st.none() | st.integers(0, 8)


@given(st.lists(st.integers(0, 20), max_size=8), limits, limits, st.none() | st.integers(0, 9))
def test_retention_rule_keeps_the_newest_the_young_and_the_current(
    ages: list[int], keep_last: int | None, max_age_days: int | None, current: int | None
) -> None:
    if keep_last is None and max_age_days is None:
        keep_last = 0
    rule = RetentionRule.of(keep_last, max_age_days, START)
    removable = rule.removable(heads(ages), None if current is None else f"v{current}")
    expected = [
        f"v{i}"
        for i, age in enumerate(sorted(ages))
        if i >= (keep_last or 0) and (max_age_days is None or age > max_age_days) and i != current
    ]
    assert [head.version_id for head in removable] == expected
    assert not rule.keeps_all_of(len(ages)) or not removable


def test_retention_rule_keeps_all_versions_if_none_is_old_enough() -> None:
    rule = RetentionRule.of(None, 1e12, START)
    assert rule.removable(heads([0, 400, 4000]), None) == []
    ancient = RetentionRule.of(None, 366 * 2100, datetime(2026, 1, 1, tzinfo=UTC))
    assert ancient.removable(heads([0, 400, 4000]), None) == []
    assert RetentionRule.of(2, 1e12, START).keep_last == 2


@pytest.mark.parametrize(
    ("keep_last", "max_age_days", "name"),
    [(-1, None, "keep_last"), (None, -0.5, "max_age_days"), (3, -1.0, "max_age_days")],
)
def test_retention_rule_refuses_limits_that_make_no_sense(
    keep_last: int | None, max_age_days: float | None, name: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{name}: "):
        RetentionRule.of(keep_last, max_age_days, START)


def test_retention_rule_keeps_a_version_of_exactly_the_age() -> None:
    rule = RetentionRule.of(None, 3, START)
    assert [head.version_id for head in rule.removable(heads([2, 3, 4]), None)] == ["v2"]


@pytest.mark.parametrize(
    ("keep_last", "max_age_days", "count", "expected"),
    [(3, None, 3, True), (3, None, 4, False), (3, 1, 3, False), (None, 1, 0, False)],
)
def test_retention_rule_by_number_alone_needs_no_ages_of_few_versions(
    keep_last: int | None, max_age_days: float | None, count: int, expected: bool
) -> None:
    assert RetentionRule.of(keep_last, max_age_days, START).keeps_all_of(count) is expected


def test_retention_rule_without_limits_says_which_ones_there_are() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"^keep_last: is missing, and so is max_age_days: "
    ) as caught:
        RetentionRule.of(None, None, START)
    assert caught.value.field == "keep_last"


async def store(content: Content, page_id: str, ages: list[int], current: str | None) -> None:
    """Stores versions of a page by their age in days, newest first, and the page."""
    for i, age in enumerate(ages):
        crawled_at = START - timedelta(days=age)
        await content.store(make_version(f"v{i}", page_id=page_id, crawled_at=crawled_at))
    if current is not None:
        content.store_page(make_page(page_id, current_version_id=current))


def will_list(content: Content, *pages: str, looks: int = 1, unread: tuple[str, ...] = ()) -> None:
    """Sets what the index and the partitions of pages answer, as often as retention looks."""
    for _ in range(looks):
        versions = content.stored.of("versions")
        content.stored.will_list_site([])
        keys = [
            {name: item[name] for name in ("page_id", "version_key")}
            for item in versions
            if item["page_id"]["S"] in pages
        ]
        content.stored.will_list_site(keys)
        content.stored.will_list_site([])
        for page_id in pages:
            if page_id not in unread:
                content.stored.will_list([item for item in versions if item["page_id"]["S"] == page_id])


async def prune(content: Content, **options: Any) -> PruneReport:
    arguments = {
        "keep_last": None,
        "max_age_days": None,
        "dry_run": False,
        "allow_mass_deletion": False,
        **options,
    }
    return await content.retention.prune("site", **arguments)


def names(content: Content) -> list[str]:
    return [f"{item['page_id']['S']} {item['version_id']['S']}" for item in content.stored.of("versions")]


async def test_prune_removes_old_versions_of_all_pages(content: Content) -> None:
    await store(content, "a", [0, 1, 2, 3], current="v3")
    await store(content, "b", [0, 1, 2, 3], current="v0")
    will_list(content, "a", "b", looks=2)
    assert await prune(content, keep_last=2) == PruneReport(8, 3, dry_run=False)
    assert names(content) == ["a v0", "a v1", "a v3", "b v0", "b v1"]


async def test_prune_by_age_goes_by_the_clock(content: Content) -> None:
    await store(content, "a", [0, 1, 2, 3], current="v0")
    content.manual_clock.advance(24 * 3600)
    will_list(content, "a", looks=2)
    assert await prune(content, max_age_days=2) == PruneReport(4, 2, dry_run=False)
    assert names(content) == ["a v0", "a v1"]


async def test_prune_that_is_dry_removes_nothing(content: Content) -> None:
    await store(content, "a", [0, 1, 2, 3], current="v0")
    await store(content, "b", [0, 1], current="v0")
    will_list(content, "a", "b")
    assert await prune(content, keep_last=0, dry_run=True) == PruneReport(6, 4, dry_run=True)
    assert len(names(content)) == 6
    # It looked once.
    assert content.stored.operations.count("query") == 5


async def test_prune_with_nothing_to_remove_looks_once(content: Content) -> None:
    await store(content, "a", [0, 1], current="v0")
    will_list(content, "a")
    assert await prune(content, max_age_days=5) == PruneReport(2, 0, dry_run=False)
    assert content.stored.operations.count("query") == 4


async def test_prune_does_not_read_pages_with_few_versions(content: Content) -> None:
    await store(content, "a", [0, 1], current="v0")
    await store(content, "b", [0, 1, 2, 3, 4], current="v0")
    will_list(content, "a", "b", looks=2, unread=("a",))
    assert await prune(content, keep_last=2) == PruneReport(7, 3, dry_run=False)
    partitions = [sent.text("KeyCondition") for sent in content.stored.sent]
    assert partitions.count("(page_id = 'b')") == 2
    assert "(page_id = 'a')" not in partitions


@pytest.mark.parametrize(
    ("share", "allowed", "is_refused"), [(0.5, False, True), (0.5, True, False), (0.75, False, False)]
)
async def test_prune_of_most_versions_of_a_site_needs_permission(
    share: float, allowed: bool, is_refused: bool
) -> None:
    async with open_content(max_deleted_share=share) as content:
        # A page that is not stored has no current version.
        await store(content, "a", [0, 1, 2, 3], current=None)
        will_list(content, "a", looks=2)
        if not is_refused:
            report = await prune(content, keep_last=1, allow_mass_deletion=allowed)
            assert report == PruneReport(4, 3, dry_run=False)
            return
        with pytest.raises(MassDeletionError, match=r"3 of 4 versions") as caught:
            await prune(content, keep_last=1)
        assert (caught.value.deleted, caught.value.total) == (3, 4)
        assert len(names(content)) == 4


async def test_prune_does_not_count_versions_that_others_removed(content: Content) -> None:
    await store(content, "a", [0, 1, 2, 3], current="v0")
    will_list(content, "a", looks=2)
    del content.stored.items["versions", "a", "v3#site#"]
    assert await prune(content, keep_last=2) == PruneReport(4, 1, dry_run=False)
