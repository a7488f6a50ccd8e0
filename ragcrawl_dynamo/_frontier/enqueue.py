"""Links into the queue: each once, whatever is known of them here or elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from ragcrawl_dynamo._dynamodb.conditional_writes import Applied, ConditionalInsert, Failed, Outcome
from ragcrawl_dynamo._frontier.claim import AddResult
from ragcrawl_dynamo._frontier.counters import Counters
from ragcrawl_dynamo._frontier.item_store import QueueStore, open_since, ready_candidate
from ragcrawl_dynamo._frontier.notifier import Waker, Work, note_work
from ragcrawl_dynamo._frontier.scheduler import Claimer
from ragcrawl_dynamo._frontier.seen_links import SeenCache
from ragcrawl_dynamo._schema.records import shards_for
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo._utils.urls import host_of_url, link_id, normalize_url, url_hash
from ragcrawl_dynamo.errors import (
    InvalidArgumentError,
    InvalidInputError,
    PartialBatchError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

# What an item that is added can not bring along.
_SET_BY_QUEUE = {
    *("item_id", "run_id", "site_id", "normalized_url", "url_hash", "domain"),
    *("status", "retry_count", "last_error", "started_at", "completed_at"),
    *("attempt", "lease_owner", "lease_token", "lease_expires_at"),
}

# Hosts for which a process remembers how many links it added.
_REMEMBERED = 100_000


class Adder:
    """Adds links to the queue of one run."""

    def __init__(
        self,
        run_id: str,
        site_id: str,
        queue: QueueStore,
        counters: Counters,
        claimer: Claimer,
        waker: Waker,
        tasks: Tasks,
        clock: Clock,
        cache_size: int,
    ) -> None:
        self._run_id = run_id
        self._site_id = site_id
        self._queue = queue
        self._counters = counters
        self._claimer = claimer
        self._waker = waker
        self._tasks = tasks
        self._clock = clock
        self._seen = SeenCache(cache_size)
        self._added: Counter[str] = Counter()
        self._latest = datetime.min.replace(tzinfo=UTC)

    def forget(self) -> None:
        """Drops what is remembered of links."""
        self._seen.clear()
        self._added.clear()

    async def add(self, links: Iterable[str | FrontierItem], common: dict[str, Any]) -> list[AddResult]:
        """A result for each link, in their order.

        Raises:
            InvalidArgumentError: An item is of another run or site.
            PartialBatchError: Some may not have been added; all others were.
        """
        results: list[AddResult | None] = []
        places: dict[str, int] = {}
        wanted: dict[str, FrontierItem] = {}
        for i, link in enumerate(links):
            url = link.url if isinstance(link, FrontierItem) else link
            try:
                item = self._item(link, {"discovered_at": self.next_moment(), **common})
            except InvalidInputError as error:
                results.append(AddResult(url, None, added=False, error=error))
                continue
            if item.item_id in self._seen or item.item_id in wanted:
                results.append(AddResult(url, item.item_id, added=False))
                continue
            wanted[item.item_id] = item
            places[item.item_id] = i
            results.append(None)
        failures: list[tuple[Any, RagcrawlDynamoError]] = []
        if not wanted:
            return [each for each in results if each is not None]
        known, is_closed = await self._queue.known(list(wanted))
        if is_closed:
            # Before anything is added: this process may be killed before it can say so.
            await self._waker.reopen()
        work: Work = {}
        now = self._clock.now()
        for item_id, standing in known.items():
            item = wanted.pop(item_id)
            status = FrontierStatus(standing["status"]["S"])
            results[places[item_id]] = AddResult(item.url, item_id, added=False, status=status)
            # Whoever added it was killed, perhaps, before it could make that known.
            if (found := open_since(standing, now)) is not None:
                note_work(work, item.domain, *found)
            self._seen.add(item_id)
        for item_id, outcome in (await self._insert(wanted, work)).items():
            if isinstance(outcome, Failed):
                failures.append((wanted[item_id], outcome.error))
                continue
            added = isinstance(outcome, Applied)
            results[places[item_id]] = AddResult(wanted[item_id].url, item_id, added=added)
            self._seen.add(item_id)
        if failures:
            raise PartialBatchError(sum(each is not None for each in results), failures) from failures[0][1]
        return [each for each in results if each is not None]

    def next_moment(self) -> datetime:
        """Now, and later than the moment before, so that links of one priority keep their order."""
        self._latest = max(self._clock.now(), self._latest + timedelta(microseconds=1))
        return self._latest

    def _item(self, link: str | FrontierItem, common: dict[str, Any]) -> FrontierItem:
        if isinstance(link, FrontierItem):
            if (link.run_id, link.site_id) != (self._run_id, self._site_id):
                raise InvalidArgumentError("run_id", "an item of another run or site can not be added here")
            fields = link.model_dump(exclude=_SET_BY_QUEUE)
            if "discovered_at" not in link.model_fields_set:
                fields["discovered_at"] = common["discovered_at"]
        elif isinstance(link, str):
            fields = {"url": link, **common}
        else:
            raise InvalidArgumentError(
                "links", f"a link is a URL or a FrontierItem, not {type(link).__name__}"
            )
        normalized = normalize_url(fields["url"])
        item = FrontierItem(
            **fields,
            item_id=link_id(fields.get("unique_key") or normalized),
            run_id=self._run_id,
            site_id=self._site_id,
            normalized_url=normalized,
            url_hash=url_hash(normalized),
            domain=host_of_url(normalized),
        )
        # Refused here, where it stands alone.
        self._queue.encode(item, 1)
        return item

    async def _insert(self, wanted: dict[str, FrontierItem], work: Work) -> dict[str, Outcome]:
        """Adds items, and wakes their hosts and those of other work."""
        counts = Counter(item.domain for item in wanted.values())
        shards = {
            host: max(self._waker.shards(host), shards_for(self._added[host] + n))
            for host, n in counts.items()
        }
        inserts = [self._queue.encode(item, shards[item.domain]) for item in wanted.values()]
        # To its end even if the caller is cancelled: what is added must be found.
        outcomes = await self._tasks.uninterrupted(
            self._insert_and_wake(list(wanted.values()), inserts, shards, work)
        )
        return dict(zip(wanted, outcomes, strict=True))

    async def _insert_and_wake(
        self, items: list[FrontierItem], inserts: list[ConditionalInsert], shards: dict[str, int], work: Work
    ) -> list[Outcome]:
        now = self._clock.now()
        outcomes = await self._queue.run(inserts)
        if len(self._added) > _REMEMBERED:
            self._added.clear()
        for item, outcome in zip(items, outcomes, strict=True):
            # One that failed may have been added all the same, and one that was refused just before.
            note_work(work, item.domain, item.scheduled_at or now, shards[item.domain])
            if isinstance(outcome, Applied):
                self._added[item.domain] += 1
                if item.scheduled_at is None:
                    self._counters.move(item.domain, None, "pending")
                    self._claimer.offer(ready_candidate(item))
                else:
                    self._counters.move(item.domain, None, "delayed")
        try:
            await self._waker.wake(work)
        except RagcrawlDynamoError:
            # Where some links failed too, those are what the caller must know; the next call wakes the hosts.
            if not any(isinstance(outcome, Failed) for outcome in outcomes):
                raise
        return outcomes
