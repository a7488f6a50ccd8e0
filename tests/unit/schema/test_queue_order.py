"""Sort keys of by_queue: their order as text is the order of the claims."""

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._schema.queue_order import (
    PRIORITY_LENGTH,
    RANK_LENGTH,
    HostFacts,
    due_bound,
    host_order,
    queue_order,
    rank,
    split_facts,
    split_order,
    split_place,
)
from tests.support.factories import moments, storable_floats

ranks = st.builds(rank, storable_floats, moments)
places = st.builds(queue_order, ranks, st.none() | moments)
facts = st.builds(
    HostFacts,
    st.booleans(),
    st.integers(1, 32),
    st.text("0123456789abcdef", max_size=4),
    # An item that was saved as a plain record has any id.
    st.just("") | st.text("0123456789abcdef", min_size=32, max_size=32) | st.text("a#~", max_size=9),
)


@given(st.tuples(storable_floats, moments), st.tuples(storable_floats, moments))
def test_rank_sorts_the_highest_priority_first_then_the_oldest(
    one: tuple[float, datetime], other: tuple[float, datetime]
) -> None:
    by_rank = rank(*one) < rank(*other)
    assert by_rank == ((-one[0], one[1]) < (-other[0], other[1]))


@given(storable_floats, storable_floats, moments, moments)
def test_rank_begins_with_the_priority(
    one: float, other: float, moment: datetime, other_moment: datetime
) -> None:
    both = rank(one, moment), rank(other, other_moment)
    assert [len(text) for text in both] == [RANK_LENGTH, RANK_LENGTH]
    assert (both[0][:PRIORITY_LENGTH] == both[1][:PRIORITY_LENGTH]) == (one == other)


@given(ranks, st.none() | moments)
def test_queue_order_can_be_split(ranked: str, moment: datetime | None) -> None:
    assert split_order(queue_order(ranked, moment)) == (moment, ranked)


@given(ranks, ranks, moments, moments)
def test_queue_order_sorts_ready_items_first_then_those_that_wait_by_moment(
    one: str, other: str, moment: datetime, later: datetime
) -> None:
    assert queue_order(one) < queue_order(other, moment)
    assert (queue_order(one) < queue_order(other)) == (one < other)
    by_order = queue_order(one, moment) < queue_order(other, later)
    assert by_order == ((moment, one) < (later, other))


@given(places, moments)
def test_due_bound_comes_after_the_items_that_are_due_and_before_the_others(
    place: str, moment: datetime
) -> None:
    waits_until, _ = split_order(place)
    assert (place < due_bound(moment)) == (waits_until is None or waits_until <= moment)


@given(places, places, facts, facts, moments)
def test_host_order_sorts_as_its_place(
    one: str, other: str, of_one: HostFacts, of_other: HostFacts, moment: datetime
) -> None:
    if one != other:
        assert (host_order(one, of_one) < host_order(other, of_other)) == (one < other)
    assert (host_order(one, of_one) < due_bound(moment)) == (one < due_bound(moment))


@given(places, facts)
def test_host_order_can_be_split(place: str, of_host: HostFacts) -> None:
    order = host_order(place, of_host)
    assert split_order(order) == split_order(place)
    assert split_facts(order) == of_host
    assert split_place(order) == place
