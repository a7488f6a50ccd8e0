"""Which links a process remembers."""

from __future__ import annotations

from ragcrawl_dynamo._frontier.seen_links import SeenLinks


def test_links_that_were_not_seen_for_the_longest_time_are_forgotten() -> None:
    links = SeenLinks(2)
    for item_id in ("a", "b"):
        links.add(item_id)
    # It is seen again.
    assert "a" in links
    links.add("c")
    assert ["a" in links, "b" in links, "c" in links] == [True, False, True]


def test_link_that_is_added_again_is_remembered_longer() -> None:
    links = SeenLinks(2)
    for item_id in ("a", "b", "a", "c"):
        links.add(item_id)
    assert ["a" in links, "b" in links, "c" in links] == [True, False, True]


def test_no_link_is_remembered_if_there_is_no_room() -> None:
    links = SeenLinks(0)
    links.add("a")
    assert "a" not in links


def test_clear_forgets_all_links() -> None:
    links = SeenLinks(2)
    links.add("a")
    links.clear()
    assert "a" not in links
