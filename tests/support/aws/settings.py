"""Defines the settings of a simulated AWS, one for each behaviour."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Lag:
    """The lag of a copy: drawn for each write, log-uniform, so that most lags are much below the longest.

    Attributes:
        least: Seconds.
        most: Seconds.
    """

    least: float = 0.1
    most: float = 10.0

    def __post_init__(self) -> None:
        assert 0 < self.least <= self.most, f"not 0 < {self.least} <= {self.most}"

    def seconds(self, draw: float) -> float:
        """Returns the lag for a number drawn from [0, 1)."""
        return float(self.least * (self.most / self.least) ** draw)


@dataclass(frozen=True)
class Limits:
    """The units that one partition key value of a table or an index serves; by default those of AWS.

    Attributes:
        read_units: Read capacity units a second.
        write_units: Write capacity units a second.
        burst_seconds: For so many seconds' units a key that was idle takes more than that.
    """

    read_units: float = 3000.0
    write_units: float = 1000.0
    burst_seconds: float = 1.0


@dataclass(frozen=True)
class Latency:
    """The time that a request is on its way, besides the time that the engine takes.

    Attributes:
        usual: Seconds, at most, for nearly all requests.
        tail: Seconds, at most, for the others.
        tail_share: The share of those.
    """

    usual: float = 0.004
    tail: float = 1.0
    tail_share: float = 0.01


@dataclass(frozen=True)
class Settings:
    """Settings of a simulated AWS. By default it behaves as the engine does.

    Attributes:
        seed: The seed of all random numbers.
        index_lag: How late global indexes are.
        torn_moves: Whether an entry whose key changes leaves its old place at one moment and comes to its new
            one at another, so that it is seen twice or not at all in between.
        read_lag: How late the copy is that answers half of all eventually consistent reads of tables.
        limits: The limits of each partition key value.
        conflicts: The share of single writes, and of the writes of transactions, that are refused as if they
            met another one on their item. Those that do meet one are refused in any case.
        errors_before: The share of requests that end with a 500 before they were done.
        errors_after: The share of requests that end with a 500 after they were done.
        cuts_after: The share of requests that are done, and whose connection is cut before the answer.
        latency: How long requests are on their way.
    """

    seed: int = 0
    index_lag: Lag | None = None
    torn_moves: bool = False
    read_lag: Lag | None = None
    limits: Limits | None = None
    conflicts: float = 0.0
    errors_before: float = 0.0
    errors_after: float = 0.0
    cuts_after: float = 0.0
    latency: Latency | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        parts = {"index_lag": Lag, "read_lag": Lag, "limits": Limits, "latency": Latency}
        made = {name: kind(**values[name]) for name, kind in parts.items() if values.get(name)}
        return cls(**{**values, **made})


def rough(seed: int, *, longest_lag: float = 10.0) -> Settings:
    """Returns the settings of a bad day: late and torn indexes, conflicts, lost answers; no limits."""
    return Settings(
        seed=seed,
        index_lag=Lag(min(0.1, longest_lag), longest_lag),
        torn_moves=True,
        read_lag=Lag(0.05, min(1.0, longest_lag)) if longest_lag > 0.05 else Lag(longest_lag, longest_lag),
        conflicts=0.01,
        errors_before=0.003,
        errors_after=0.003,
        cuts_after=0.003,
        latency=Latency(),
    )
