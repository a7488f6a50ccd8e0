"""Paces batches that are not full: calls wait for more calls only if that saves requests.

Tasks that save in a loop need no pace: those of one batch get their answers at the same moment, and so call
again at the same moment. Calls that come one by one need it. The table compares CPU per save (as a ratio
within one run) and requests per save with the pace, and with a bound on the batches in flight alone; measured
on 2 cores, on the canned endpoint of benchmarks/speed with 5 ms of latency:

| saves                           | paced   | at most 32 in flight | at most 8 | at most 4 |
|---------------------------------|---------|----------------------|-----------|-----------|
| 64 tasks in a loop              | 1, 0.05 | 1.0, 0.05            | 1.0, 0.05 | 1.0, 0.05 |
| 8 tasks, up to 20 ms in between | 1, 0.25 | 1.6, 0.80            | 1.6, 0.78 | 1.6, 0.78 |
| 64 tasks, likewise              | 1, 0.06 | 3.1, 0.59            | 2.2, 0.36 | 1.7, 0.20 |
| 700 a second, at random moments | 1, 0.08 | 2.8, 0.75            | 2.8, 0.74 | 2.6, 0.70 |
| the same on DynamoDB Local      | 1, 0.11 | 1.5, 0.36            | 1.4, 0.29 | 1.5, 0.36 |

The price is latency: at 700 a second a save takes 18 ms at the median instead of 7.
"""

from __future__ import annotations

# A request costs about a millisecond of CPU (docs/benchmarks.md). One in 20 ms bounds what batches that are
# not full take to a twentieth of a core, and the time that a call waits for more calls.
SECONDS_PER_BATCH = 0.02

# Batches that may go at once after a quiet time.
BURST = 8.0


class Pacer:
    """Decides when the next batch that is not full may go: a token bucket."""

    def __init__(self) -> None:
        self._tokens = BURST
        self._filled_at = 0.0

    def pause(self, now: float) -> float:
        """Returns the seconds until a batch may go; 0.0 takes a token, since the batch goes now."""
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) / SECONDS_PER_BATCH)
        self._filled_at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) * SECONDS_PER_BATCH
        self._tokens -= 1.0
        return 0.0
