from __future__ import annotations

from datetime import timedelta

from ragcrawl_dynamo._frontier.local_view import LocalView
from ragcrawl_dynamo._frontier.work import Work
from tests.support.factories import START
from tests.support.hosts import at, listed


def test_local_view_clear_forgets_everything() -> None:
    fresh, view = LocalView(10, "me"), LocalView(10, "me")
    view.bench.see("a.example", listed(), 3, 1.0, is_own=True)
    view.bench.see("b.example", listed(ready_at=at(60)), 3, 1.0, is_own=True)
    view.bench.choose(1, START, 1.0)
    view.seen_links.add("item")
    view.unannounced.note("a.example", Work("place"))
    view.unwritten_counts.by_host["a.example"]["pending"] += 1
    view.unwritten_counts.total["pending"] += 1
    view.unwritten_counts.since = 1.0
    view.open_items = ["item"]
    view.clear()
    remembered = vars(view).keys() - {"changed", "bench", "seen_links", "unwritten_counts", "_latest"}
    assert {name: vars(view)[name] for name in remembered} == {name: vars(fresh)[name] for name in remembered}
    assert vars(view.bench) == vars(fresh.bench)
    assert vars(view.unwritten_counts) == vars(fresh.unwritten_counts)
    assert "item" not in view.seen_links
    # A waiting claim tries again.
    assert view.changed.is_set()


def test_local_view_next_moment_never_repeats() -> None:
    view = LocalView(10, "me")
    moments = [view.next_moment(START) for _ in range(3)] + [view.next_moment(START - timedelta(hours=1))]
    assert moments == sorted(set(moments))
    assert view.next_moment(START + timedelta(hours=1)) == START + timedelta(hours=1)
