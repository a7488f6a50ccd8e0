from __future__ import annotations

from datetime import timedelta

from ragcrawl_dynamo._frontier.candidates import HostCandidates
from ragcrawl_dynamo._frontier.item_store import ready_candidate
from ragcrawl_dynamo._frontier.local_view import LocalView
from ragcrawl_dynamo._frontier.work import Work
from tests.support.factories import START, make_item


def test_local_view_clear_forgets_everything() -> None:
    fresh, view = LocalView(10), LocalView(10)
    host = "a.example"
    view.candidates[host] = HostCandidates(START, [ready_candidate(make_item())], True, False, START)
    view.avoid("b.example", START + timedelta(seconds=5))
    view.due_list_read_at = START
    view.seen_links.add("item")
    view.note_link_added(host)
    view.note_shards({host: 4})
    view.unannounced.note(host, Work(START))
    view.unwritten_counts.by_host[host]["pending"] += 1
    view.unwritten_counts.total["pending"] += 1
    view.unwritten_counts.since = 1.0
    view.open_items = ["item"]
    view.open_host = host
    view.clear()
    remembered = vars(view).keys() - {"changed", "seen_links", "unwritten_counts", "_latest"}
    assert {name: vars(view)[name] for name in remembered} == {name: vars(fresh)[name] for name in remembered}
    assert vars(view.unwritten_counts) == vars(fresh.unwritten_counts)
    assert "item" not in view.seen_links
    # A waiting claim tries again.
    assert view.changed.is_set()


def test_local_view_next_moment_never_repeats() -> None:
    view = LocalView(10)
    moments = [view.next_moment(START) for _ in range(3)] + [view.next_moment(START - timedelta(hours=1))]
    assert moments == sorted(set(moments))
    assert view.next_moment(START + timedelta(hours=1)) == START + timedelta(hours=1)
