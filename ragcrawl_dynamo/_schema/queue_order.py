"""Builds and reads sort keys of by_queue: the item to claim first sorts first."""

from __future__ import annotations

import struct
from datetime import datetime

from ragcrawl_dynamo._dynamodb.values import MOMENT_LENGTH, moment_text

# How many characters of a rank are the priority.
PRIORITY_LENGTH = 16

# In a host's queue, items that can be claimed at once sort before items that wait for a moment: the end of a
# delay, or the end of a lease.
READY, TIMED = "0", "1"
DELAYED, LEASED = "d", "l"


def rank(priority: float, discovered_at: datetime) -> str:
    """`{16 hexadecimal digits}{moment}`: sorts the highest priority first, then the oldest item."""
    # The bits of an IEEE 754 double sort like the number if those of a negative number are inverted, and the
    # sign bit of any other number is flipped. The result is inverted to sort the highest number first. Adding
    # 0.0 turns -0.0 into 0.0.
    (bits,) = struct.unpack(">Q", struct.pack(">d", priority + 0.0))
    ascending = bits ^ (2**64 - 1) if bits >> 63 else bits | 1 << 63
    return f"{ascending ^ (2**64 - 1):016x}{moment_text(discovered_at)}"


def ready_order(rank: str) -> str:
    """`0{rank}`: the sort key of an item that can be claimed at once."""
    return READY + rank


def timed_order(moment: datetime, kind: str, rank: str) -> str:
    """`1{moment}{kind}{rank}`: the sort key of an item that can be claimed from a moment on.

    Args:
        moment: The moment.
        kind: What the item waits for: DELAYED for the end of a delay, LEASED for the end of a lease.
        rank: The rank of the item.
    """
    return f"{TIMED}{moment_text(moment)}{kind}{rank}"


def split_order(order: str) -> tuple[str, datetime | None, str]:
    """Returns the kind, the moment and the rank of a sort key in a host's queue; READY has no moment."""
    if order.startswith(READY):
        return READY, None, order[1:]
    end = 1 + MOMENT_LENGTH
    return order[end], datetime.fromisoformat(order[1:end]), order[end + 1 :]
