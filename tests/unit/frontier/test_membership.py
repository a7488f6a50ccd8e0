"""The shares of processes. Those that are read from the table are in the tests of the scheduler."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._frontier.membership import Membership, assign
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.factories import START
from tests.support.fakes import open_gateway

processes = st.lists(st.text("0123456789abcdef", min_size=12, max_size=12), min_size=1, max_size=9, unique=True)


@given(processes, st.integers(1, 80))
def test_assign_gives_each_bucket_to_one_process_and_none_more_than_its_part(
    ids: list[str], buckets: int
) -> None:
    owners = assign(ids, buckets)
    assert list(owners) == list(range(buckets))
    counts = Counter(owners.values())
    assert counts.keys() <= set(ids)
    assert max(counts.values()) <= -(-buckets // len(ids))


@given(processes)
def test_assign_is_the_same_for_every_process(ids: list[str]) -> None:
    assert assign(sorted(ids), 64) == assign(list(reversed(sorted(ids))), 64)


def test_assign_moves_few_buckets_when_a_process_comes() -> None:
    moved = []
    for trial in range(50):
        ids = [f"process-{trial}-{i}" for i in range(4)]
        before, after = assign(ids[:3], 64), assign(ids, 64)
        moved.append(sum(before[bucket] != after[bucket] for bucket in range(64)))
    # The new process gets 16 of them. Shares by number would move 48.
    assert sum(moved) / len(moved) < 28
