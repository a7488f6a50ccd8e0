"""Builds and reads sort keys of by_queue: the item, or the host, to claim from first sorts first."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime

from ragcrawl_dynamo._dynamodb.values import MOMENT_LENGTH, moment_text

# How many characters of a rank are the priority.
PRIORITY_LENGTH = 16
RANK_LENGTH = PRIORITY_LENGTH + MOMENT_LENGTH

# Items that can be claimed at once sort before those that wait for a moment.
READY, TIMED = "0", "1"


def rank(priority: float, discovered_at: datetime) -> str:
    """`{16 hexadecimal digits}{moment}`: sorts the highest priority first, then the oldest item."""
    # The bits of an IEEE 754 double sort like the number if those of a negative number are inverted, and the
    # sign bit of any other number is flipped. The result is inverted to sort the highest number first. Adding
    # 0.0 turns -0.0 into 0.0.
    (bits,) = struct.unpack(">Q", struct.pack(">d", priority + 0.0))
    ascending = bits ^ (2**64 - 1) if bits >> 63 else bits | 1 << 63
    return f"{ascending ^ (2**64 - 1):016x}{moment_text(discovered_at)}"


def queue_order(rank: str, moment: datetime | None = None) -> str:
    """`0{rank}`, or `1{moment}{rank}`: the sort key of an item that is ready, or waits for a moment.

    A lease does not change it.
    """
    return READY + rank if moment is None else f"{TIMED}{moment_text(moment)}{rank}"


def split_order(order: str) -> tuple[datetime | None, str]:
    """Returns the moment and the rank of a sort key; the moment is None if there is none to wait for."""
    if order.startswith(READY):
        return None, order[1 : 1 + RANK_LENGTH]
    end = 1 + MOMENT_LENGTH
    return datetime.fromisoformat(order[1:end]), order[end : end + RANK_LENGTH]


def due_bound(moment: datetime) -> str:
    """`1{moment}~`: sorts behind everything that can be claimed at a moment, and before everything else."""
    return f"{TIMED}{moment_text(moment)}~"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The facts that the entry of a host holds besides its place in the list.

    Attributes:
        has_limits: Whether the host has a delay, a maximum in flight or a block, so that its record has to be
            read before an item is claimed.
        shards: Over how many shards the host's queue is spread.
        mark: A text that differs after each change that other processes have to notice.
        only_item: The id of the only item in the host's queue, whose sort key is the place of the host; empty
            if there may be others.
    """

    has_limits: bool
    shards: int
    mark: str
    only_item: str = ""


def host_order(place: str, facts: HostFacts) -> str:
    """`{place}{L or U}{shards}#{mark}#{only_item}`: the sort key of a host in the list of hosts.

    Args:
        place: The sort key of the host's best item in its queue, or one that waits for a moment.
        facts: The facts.
    """
    limits = "L" if facts.has_limits else "U"
    return f"{place}{limits}{facts.shards:02}#{facts.mark}#{facts.only_item}"


def split_facts(order: str) -> HostFacts:
    """Returns the facts of a sort key that `host_order` built."""
    start = _place_length(order)
    mark, _, only_item = order[start + 4 :].partition("#")
    return HostFacts(order[start] == "L", int(order[start + 1 : start + 3]), mark, only_item)


def split_place(order: str) -> str:
    """Returns the place of a sort key that `host_order` built."""
    return order[: _place_length(order)]


def _place_length(order: str) -> int:
    return len(READY) + RANK_LENGTH + (0 if order.startswith(READY) else MOMENT_LENGTH)
