"""Remembers the hosts that the workbench dropped lately, to recognize late entries of the index."""

from __future__ import annotations

from ragcrawl_dynamo._frontier.host_candidates import INDEX_LAG_SECONDS, HostCandidates


class LeftHosts(dict[str, tuple[float, HostCandidates]]):
    """The hosts that were forgotten lately, with the moment. The index may still show their ended items."""

    def remember(self, host: HostCandidates, monotonic: float) -> None:
        """Remembers a host as long as the index may be late; `monotonic` is the present moment."""
        self[host.host] = monotonic, host
        while (first := next(iter(self))) != host.host:
            if monotonic - self[first][0] < INDEX_LAG_SECONDS:
                break
            del self[first]

    def is_past(self, host: str, order: str, monotonic: float) -> bool:
        """Returns whether the list shows an order of a host that this process knows to be replaced."""
        return host in self and self[host][1].is_past(order, monotonic)

    def take(self, host: str) -> HostCandidates | None:
        """Takes out a host that has work again, with its past places; None if it is not remembered."""
        _, known = self.pop(host, (0.0, None))
        if known is not None:
            known.record, known.is_own, known.paused_until = None, True, None
        return known
