"""Sort keys of the frontier's index: what is claimed first sorts first."""

from __future__ import annotations

import struct
from datetime import datetime

from ragcrawl_dynamo._dynamodb.values import MOMENT_LENGTH, moment_text

# What of a rank is the priority.
PRIORITY_LENGTH = 16

# In a host's queue, what can be claimed at once sorts before what waits for a time: a delay's end, or a
# lease's.
READY, TIMED = "0", "1"
DELAYED, LEASED = "d", "l"


def rank(priority: float, discovered_at: datetime) -> str:
    """`{16 hexadecimal digits}{moment}`: sorts the highest priority first, then the oldest."""
    # The bits of an IEEE 754 double sort like the number once negative ones are inverted and the sign is
    # flipped; all of it inverted sorts the highest first. Adding 0.0 makes 0.0 of -0.0.
    (bits,) = struct.unpack(">Q", struct.pack(">d", priority + 0.0))
    ascending = bits ^ (2**64 - 1) if bits >> 63 else bits | 1 << 63
    return f"{ascending ^ (2**64 - 1):016x}{moment_text(discovered_at)}"


def ready_order(rank: str) -> str:
    """`0{rank}`: an item that can be claimed."""
    return READY + rank


def timed_order(moment: datetime, kind: str, rank: str) -> str:
    """`1{moment}{kind}{rank}`: an item that can be claimed from a moment on; `kind` is DELAYED or LEASED."""
    return f"{TIMED}{moment_text(moment)}{kind}{rank}"


def split_order(order: str) -> tuple[str, datetime | None, str]:
    """Kind, moment and rank of a place in a host's queue; what is READY has no moment."""
    if order.startswith(READY):
        return READY, None, order[1:]
    end = 1 + MOMENT_LENGTH
    return order[end], datetime.fromisoformat(order[1:end]), order[end + 1 :]
