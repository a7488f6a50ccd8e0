"""Sort keys of by_queue: their order as text is the order of the claims."""

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._schema import queue_order
from tests.support.factories import moments, storable_floats


@given(
    st.tuples(storable_floats, moments),
    st.tuples(storable_floats, moments),
)
def test_rank_sorts_the_highest_priority_first_then_the_oldest(
    one: tuple[float, datetime], other: tuple[float, datetime]
) -> None:
    by_rank = queue_order.rank(*one) < queue_order.rank(*other)
    assert by_rank == ((-one[0], one[1]) < (-other[0], other[1]))


@given(moments, moments, storable_floats, st.sampled_from([queue_order.DELAYED, queue_order.LEASED]))
def test_timed_order_sorts_by_time_and_can_be_split(
    moment: datetime, other: datetime, priority: float, kind: str
) -> None:
    rank = queue_order.rank(priority, other)
    assert queue_order.split_order(queue_order.ready_order(rank)) == (queue_order.READY, None, rank)
    order = queue_order.timed_order(moment, kind, rank)
    assert queue_order.split_order(order) == (kind, moment, rank)
    assert queue_order.ready_order(rank) < order
    if moment < other:
        assert order < queue_order.timed_order(other, queue_order.DELAYED, rank)
