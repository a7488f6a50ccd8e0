"""Draws numbers that depend on the seed and on their purpose, not on the order of requests."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b


class Chance:
    """Draws numbers from [0, 1).

    The n-th draw for a name is the same in each run with this seed, however concurrent requests interleave.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: Counter[str] = Counter()

    def draw(self, name: str) -> float:
        """Returns the next number for a name."""
        number = self._drawn[name]
        self._drawn[name] += 1
        digest = blake2b(f"{self._seed}/{name}/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2.0**64

    def hits(self, share: float, name: str) -> bool:
        """Returns whether an event happens that has this share of all cases."""
        return share > 0 and self.draw(name) < share
