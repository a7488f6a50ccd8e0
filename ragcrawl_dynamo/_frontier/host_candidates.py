"""Keeps the items of one host that a process knows: those to claim now, and those that have to wait."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ragcrawl_dynamo._dynamodb.outcomes import Applied, Outcome
from ragcrawl_dynamo._frontier.candidates import Candidate, Waiting, candidate_at, claim_order
from ragcrawl_dynamo._frontier.work import Listed
from ragcrawl_dynamo._schema.queue_order import split_facts, split_order, split_place
from ragcrawl_dynamo._schema.records import HostRecord

# Seconds for which candidates are kept, in the share of this process and outside of it. Other processes may
# add items meanwhile. An item that is better than its host's place moves the host in the list, which is seen
# sooner.
OWN_CANDIDATE_SECONDS = 30.0
CANDIDATE_SECONDS = 5.0

# The longest time in seconds for which the queue of a host that is listed as having work is not read.
LONGEST_PAUSE = 60.0

# The shortest one for a drained host. Counts are stored every second.
_DRAINED_PAUSE = 5.0

# Seconds for which records that this process has written or read by key are trusted more than an index, which
# may lag (AWS gives no bound, but says "usually well under a second").
INDEX_LAG_SECONDS = 15.0

# How many ids of items that this process has ended are remembered for each host.
_ENDED_REMEMBERED = 2000


@dataclass(slots=True)
class Pace:
    """How many items a second are claimed, measured over a second or longer.

    Attributes:
        since: When the measurement began, in seconds of the monotonic clock.
        count: How many items were claimed since.
        per_second: The result of the measurement before.
    """

    since: float
    count: int = 0
    per_second: float = 0.0

    def note(self, monotonic: float) -> None:
        """Counts a claimed item."""
        self.count += 1
        if (seconds := monotonic - self.since) >= 1.0:
            self.per_second = self.count / seconds
            self.since, self.count = monotonic, 0


@dataclass(eq=False, slots=True)
class HostCandidates:
    """The knowledge of this process about one host.

    Attributes:
        host: The name of the host.
        order: The sort key of the host in the list of hosts, as it was last seen; None if it is not listed.
        bucket: The bucket of the host.
        ready: The items that can be claimed, in priority order.
        waiting: The items that cannot be claimed yet, by id.
        ended: The ids of items that this process has ended. The index may still show them.
        doubtful: The ids of items whose state on the workbench differed from the index. They are read by key
            before they are tried.
        is_all: Whether `ready` and `waiting` are all open items, as far as this process knows.
        looked_at: When the queue was last read, in seconds of the monotonic clock; None before.
        must_check: Whether the record must be read, even if the list of hosts shows no limits.
        record: The record of a host that has limits, as it was last read or written.
        turn: The number of the turn in which this process has served the host last; 0 before.
        last_turn: The turn before the claim that is under way.
        is_served: Whether that claim has claimed an item.
        picked: How many candidates were chosen for the claim that is under way.
        tried: The ids of these candidates.
        is_used: Whether candidates were chosen since the queue was last read.
        is_own: Whether the host is in the share of this process.
        empty_looks: How many looks in a row have shown nothing that can be claimed.
        distrusted: How many times in a row the host could not leave the list because of its counts.
        leave_at: When it is next tried to take the host out of the list, by the monotonic clock.
        leave_pause: How many seconds after that it is tried again.
        idle_since: Since when nothing can be claimed, in seconds of the monotonic clock.
        version: Grows with each change that may move the host in the order of the workbench.
        seen_at: When the host was last seen in the list, in seconds of the monotonic clock.
        placed_at: When this process has last read or written the host's place in the list by key.
        past_orders: The sort keys that `order` had before, each with the moment at which it was replaced by
            such a read or write. The list may still show them.
        pace: How fast this process claims items of the host.
        paused_until: Nothing is claimed before this moment, since DynamoDB throttles writes for the host;
            None if it does not.
        held_up: How many claims in a row were held up by throttling, or got no answer in time.
    """

    host: str
    order: str | None
    bucket: int
    ready: list[Candidate] = field(default_factory=list)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    ended: dict[str, None] = field(default_factory=dict)
    doubtful: dict[str, None] = field(default_factory=dict)
    is_all: bool = False
    looked_at: float | None = None
    must_check: bool = False
    record: HostRecord | None = None
    turn: int = 0
    last_turn: int = 0
    is_served: bool = False
    picked: int = 0
    tried: set[str] = field(default_factory=set)
    is_used: bool = False
    is_own: bool = True
    empty_looks: int = 0
    distrusted: int = 0
    leave_at: float | None = None
    leave_pause: float = 1.0
    idle_since: float | None = None
    version: int = 0
    seen_at: float = 0.0
    placed_at: float = -math.inf
    past_orders: dict[str, float] = field(default_factory=dict)
    pace: Pace | None = None
    paused_until: datetime | None = None
    held_up: int = 0
    _earliest: datetime | None = None
    _ready_ids: set[str] = field(default_factory=set)

    def forget(self) -> None:
        """Forgets the items, after another process has changed them."""
        self.forget_ready()
        own_ids = (item_id for item_id, waiting in self.waiting.items() if waiting.is_own)
        for item_id in (*self.ended, *own_ids):
            _remember(self.doubtful, item_id)
        self.waiting.clear()
        self.ended.clear()
        self._earliest = None
        self.looked_at = None
        self.empty_looks = self.distrusted = 0

    def expect_only_item(self) -> None:
        """Notes the only item of the host that the list names, so that the queue need not be read for it."""
        if self.order is None or not (item_id := split_facts(self.order).only_item):
            return
        if item_id in self.doubtful or item_id in self.tried:
            return
        candidate = candidate_at(item_id, self.host, split_place(self.order))
        if candidate.moment is None:
            self.offer(candidate)
        else:
            self.wait(candidate, candidate.moment)
        self.is_all = True

    def offer(self, candidate: Candidate) -> None:
        """Adds an item that can be claimed."""
        self.drop(candidate.item_id)
        self.tried.discard(candidate.item_id)
        self.ended.pop(candidate.item_id, None)
        bisect.insort(self.ready, candidate, key=claim_order)
        self._ready_ids.add(candidate.item_id)

    def take(self) -> Candidate:
        """Takes the first item that can be claimed."""
        candidate = self.ready.pop(0)
        self._ready_ids.remove(candidate.item_id)
        self.tried.add(candidate.item_id)
        return candidate

    def end_claim(self) -> None:
        """Notes that the claim that was under way has ended."""
        self.picked = 0
        self.is_served = False
        self.tried.clear()

    def drop(self, item_id: str) -> None:
        """Forgets an item, whether it can be claimed or waits."""
        self.waiting.pop(item_id, None)
        if item_id in self._ready_ids:
            self._ready_ids.remove(item_id)
            self.ready = [candidate for candidate in self.ready if candidate.item_id != item_id]

    def forget_ready(self) -> None:
        """Forgets the items that can be claimed, so that the queue is read again."""
        self.ready.clear()
        self._ready_ids.clear()
        self.is_all = False

    def is_before_last(self, candidate: Candidate) -> bool:
        """Returns whether a candidate comes before a known one, so that no unknown item precedes it."""
        return bool(self.ready) and candidate.claim_order < self.ready[-1].claim_order

    def wait(self, candidate: Candidate, until: datetime, *, is_own: bool = False) -> None:
        """Adds an item that can be claimed from a moment on; `is_own` if this process has leased it."""
        self.drop(candidate.item_id)
        self.ended.pop(candidate.item_id, None)
        self.waiting[candidate.item_id] = Waiting(until, candidate, is_own)
        self._earliest = until if self._earliest is None else min(until, self._earliest)

    def end(self, item_id: str) -> None:
        """Notes that an item has left the queue."""
        self.drop(item_id)
        _remember(self.ended, item_id)

    def note_claimed(self, monotonic: float) -> None:
        """Notes that this process has claimed an item."""
        self.is_served = True
        if self.pace is None:
            self.pace = Pace(monotonic)
        self.pace.note(monotonic)

    def wake(self, now: datetime) -> None:
        """Offers the items whose moment has come."""
        if self._earliest is None or self._earliest > now:
            return
        for waiting in [waiting for waiting in self.waiting.values() if waiting.until <= now]:
            self.offer(waiting.candidate)
        self._earliest = min((waiting.until for waiting in self.waiting.values()), default=None)

    def has_room(self, now: datetime) -> bool:
        """Returns whether the limits allow one more lease than those that are chosen."""
        return self.record is None or self.record.allowance(now, self.picked + 1) > self.picked

    @property
    def entry(self) -> Listed:
        """The entry of the host in the list of hosts as last seen; without an order if it is not listed."""
        return Listed(self.host, self.order or "")

    def note_order(self, order: str | None, monotonic: float) -> None:
        """Notes the place of the host in the list, after this process has read or written it by key."""
        since = monotonic - INDEX_LAG_SECONDS
        self.past_orders = {past: at for past, at in self.past_orders.items() if at > since and past != order}
        if self.order is not None and self.order != order:
            self.past_orders[self.order] = monotonic
        self.order, self.placed_at = order, monotonic

    def is_past(self, order: str, monotonic: float) -> bool:
        """Returns whether the list shows an order that this process knows to be replaced."""
        replaced_at = self.past_orders.get(order)
        return replaced_at is not None and monotonic - replaced_at < INDEX_LAG_SECONDS

    def note_move(self, outcome: Outcome, monotonic: float) -> bool:
        """Notes that this process wanted to move the host in the list; returns whether it did."""
        if not isinstance(outcome, Applied) or outcome.item is None:
            return False
        self.note_order(outcome.item["queue_order"]["S"], monotonic)
        # The revision of the record has changed.
        self.record = None
        return True

    @property
    def lacks_record(self) -> bool:
        """Whether the record has to be read before a lease: the host may have limits that are not known."""
        if self.record is not None:
            return False
        return self.must_check or (self.order is not None and split_facts(self.order).has_limits)

    def needs_look(self, monotonic: float) -> bool:
        """Returns whether the queue or the record has to be read before an item is chosen."""
        if self.lacks_record or not self.ready:
            return True
        if self.order is None:
            return False
        if self.looked_at is None:
            # Only items that this process has added are known. One of others may be better.
            return not self.is_all and split_order(self.order)[1] < self.ready[0].rank
        if self.ready[0].distance and self.is_used and not self.is_all:
            # Items in the share of this process may come further down.
            return True
        kept = OWN_CANDIDATE_SECONDS if self.is_own else CANDIDATE_SECONDS
        return monotonic - self.looked_at > kept

    @property
    def is_drained(self) -> bool:
        """Whether the host is listed and has no open item, as far as this process knows."""
        return self.order is not None and self.is_all and not (self.ready or self.waiting or self.tried)

    @property
    def pause(self) -> timedelta:
        """How long the queue is not read after it has shown nothing: 1, 2, 4, ... up to 60 seconds.

        A drained host leaves the list with the next counts, so it is not read for 5 seconds.
        """
        seconds = pause_after(self.empty_looks)
        return timedelta(seconds=max(_DRAINED_PAUSE, seconds) if self.is_drained else seconds)

    def is_due_to_leave(self, monotonic: float) -> bool:
        """Returns whether to try now to take the drained host out of the list; it is assumed to be tried."""
        if self.leave_at is not None and monotonic < self.leave_at:
            return False
        is_due = self.leave_at is not None
        self.leave_pause = min(LONGEST_PAUSE, 2 * self.leave_pause) if is_due else 1.0
        self.leave_at = monotonic + self.leave_pause
        return is_due

    def next_moment(self) -> datetime | None:
        """Returns when the next waiting item can be claimed, or an earlier moment; None if none waits."""
        return self._earliest if self.waiting else None

    def note_look(
        self, seen: Iterable[Candidate], *, is_all: bool, now: datetime, distance: Callable[[Candidate], int]
    ) -> None:
        """Replaces the known items by those of a read of the queue.

        Args:
            seen: The items that the index shows.
            is_all: Whether these are all.
            now: The present moment.
            distance: Returns the distance of a candidate.
        """
        expired = {
            candidate.item_id: candidate for candidate in self.ready if candidate.expired_token is not None
        }
        self.forget_ready()
        waiting, self.waiting = self.waiting, {}
        self._earliest = None
        for candidate in seen:
            # An index may show an item twice while the item moves.
            item_id = candidate.item_id
            if item_id in self.ended or item_id in self.tried or item_id in self._ready_ids:
                continue
            known = waiting.get(item_id)
            if known is not None and known.candidate.order == candidate.order:
                self.wait(known.candidate, known.until, is_own=known.is_own)
            elif candidate.moment is not None and candidate.moment > now:
                self.wait(replace(candidate, distance=distance(candidate)), candidate.moment)
            else:
                if known is not None:
                    # Either the index or the knowledge of this process is out of date.
                    _remember(self.doubtful, item_id)
                self.waiting.pop(item_id, None)
                if item_id in expired and expired[item_id].order == candidate.order:
                    candidate = expired[item_id]
                self.ready.append(replace(candidate, distance=distance(candidate)))
                self._ready_ids.add(item_id)
        # The index may not show the items that this process has leased yet, or only further down.
        for item_id, known in waiting.items():
            if item_id in self.waiting or item_id in self._ready_ids:
                continue
            if known.is_own or not is_all:
                self.wait(known.candidate, known.until, is_own=known.is_own)
        self.ready.sort(key=claim_order)
        self.is_all = is_all
        self.is_used = False
        self.wake(now)
        self.empty_looks = 0 if self.ready else self.empty_looks + 1
        if self.ready or self.waiting:
            self.distrusted = 0


def _remember(ids: dict[str, None], item_id: str) -> None:
    """Adds an id to those that are remembered, as the latest one."""
    ids.pop(item_id, None)
    ids[item_id] = None
    if len(ids) > _ENDED_REMEMBERED:
        del ids[next(iter(ids))]


def pause_after(times: int) -> float:
    """Returns the seconds to wait after a number of failures in a row: 1, 2, 4, ... up to 60."""
    # The bound keeps the power from overflowing.
    return min(LONGEST_PAUSE, 2.0 ** max(0, min(times - 1, 10)))
