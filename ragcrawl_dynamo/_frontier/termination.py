"""Proves that a run is finished and counts its items exactly, by reading the whole run."""

from __future__ import annotations

import secrets
from collections import Counter
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice, zip_longest

from ragcrawl_dynamo._dynamodb.outcomes import Applied
from ragcrawl_dynamo._dynamodb.values import Item, unescape
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.cancellation import holds_no_lease
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.counts import NAMES, FrontierStats, stats_of
from ragcrawl_dynamo._frontier.item_store import STATE_ATTRIBUTES, state_of, work_of
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.tally import Tally
from ragcrawl_dynamo._frontier.work import Work, WorkByHost
from ragcrawl_dynamo._schema.queue_order import queue_order, rank, split_facts
from ragcrawl_dynamo._schema.records import RunState
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.models import FrontierStatus

# How many open items are remembered if the run is not finished.
_OPEN_ITEMS_REMEMBERED = 100

# Seconds between two signs of life of the process that reads the whole run.
_SIGN_OF_LIFE_SECONDS = 20.0

# How many hosts of a list are looked at, and of all lists together, before the whole run is read.
_HOSTS_OF_LIST = 4
_HOSTS_LOOKED_AT = 32

# How many hosts are counted, or announced, at a time.
_HOSTS_AT_ONCE = 500

# Later than any moment for which a host can wait.
_ALWAYS = datetime.max.replace(tzinfo=UTC)


class Termination:
    """Proves that one run is finished, queues items that are missing in the queue, and counts all items."""

    def __init__(self, run: RunContext, notifier: Notifier) -> None:
        self._run = run
        self._notifier = notifier

    async def is_finished(self) -> bool:
        """Returns whether every item is final.

        As long as the index or a remembered item shows open work, the answer is False without reading the
        whole run.
        """
        control = await self._run.control.read()
        if control is not None and control.finished_by:
            return True
        if control is not None and control.state is RunState.CANCELLED:
            return await holds_no_lease(self._run)
        if await self._remembered_are_open() or await self._index_shows_open():
            return False
        return await self._verify()

    async def stats(self) -> FrontierStats:
        """Returns the exact counts of a finished run, or else the stored counts."""
        control = await self._run.control.read()
        if control is not None and control.finished_by:
            return FrontierStats(**control.final_counts)
        return FrontierStats.estimated(await self._run.counters.stats())

    async def recount(self) -> FrontierStats:
        """Counts all items, and corrects the stored counts by the differences.

        If the run is proven to be finished, it proves that again: a process that was killed while it added a
        link may have left an open item.
        """
        control = await self._run.control.read()
        if control is not None and control.finished_by and await self._verify():
            return await self.stats()
        with Tally() as tally:
            stored = await self._subtract_stored(tally)
            async with aclosing(self._run.items.scan(attributes=STATE_ATTRIBUTES)) as pages:
                async for items in pages:
                    tally.count((item["domain"]["S"], state_of(item)) for item in items)
            return await self._correct(tally, stored)

    async def _index_shows_open(self) -> bool:
        """Returns whether one of the first hosts of the lists has an open item."""
        hosts = self._run.hosts
        await self._run.control.know_buckets()
        lists = await gather(
            hosts.read_list(bucket, _ALWAYS, _HOSTS_OF_LIST) for bucket in range(hosts.buckets)
        )
        # The first host of each list, then the second one, ...
        listed = [host for row in zip_longest(*(first for first, _ in lists)) for host in row if host]
        looks = await gather(
            self._run.queues.first_id(host.host, shard)
            for host in listed[:_HOSTS_LOOKED_AT]
            for shard in range(split_facts(host.order).shards)
        )
        self._run.view.open_items = [item_id for item_id in dict.fromkeys(looks) if item_id is not None]
        return await self._remembered_are_open()

    async def _remembered_are_open(self) -> bool:
        view = self._run.view
        if not view.open_items:
            return False
        items = await self._run.items.read(view.open_items[:_OPEN_ITEMS_REMEMBERED])
        view.open_items = [item_id for item_id, item in items.items() if not item.status.is_final]
        return bool(view.open_items)

    async def _verify(self) -> bool:
        """Proves that the run is finished. If an item is added meanwhile, the proof loses its token."""
        run = self._run
        token = await run.control.begin_verification(run.clock.now())
        if token is None:
            return False
        is_proven = False
        with Tally() as tally:
            try:
                stored = await self._subtract_stored(tally)
                is_proven = await self._read_run(token, tally)
            finally:
                counts = {name: tally.total[name] for name in NAMES} if is_proven else None
                is_finished = await run.control.end_verification(token, counts)
            if is_finished:
                await self._correct(tally, stored)
        return is_finished

    async def _read_run(self, token: WriteToken, tally: Tally) -> bool:
        """Reads all items of the run, and announces the work of those that are open.

        Args:
            token: The token of the proof.
            tally: Gets all items.

        Returns:
            Whether no item is open. It is False too if the token was removed, so that the proof has failed.
        """
        run = self._run
        last_sign_at = run.clock.monotonic()
        open_items: list[str] = []
        work = WorkByHost()
        async with aclosing(run.items.scan(attributes=STATE_ATTRIBUTES)) as pages:
            async for items in pages:
                tally.count((item["domain"]["S"], state_of(item)) for item in items)
                if run.clock.monotonic() - last_sign_at > _SIGN_OF_LIFE_SECONDS:
                    last_sign_at = run.clock.monotonic()
                    if not await run.control.keep_verification(token, run.clock.now()):
                        return False
                for item in items:
                    if not FrontierStatus(item["status"]["S"]).is_final:
                        await self._note_work(item, work)
                        if len(open_items) < _OPEN_ITEMS_REMEMBERED:
                            open_items.append(unescape(item["item_id"]["S"]))
                if len(work) >= _HOSTS_AT_ONCE:
                    await self._notifier.announce(work)
                    work.clear()
        run.view.open_items = open_items
        await self._notifier.announce(work)
        return not open_items

    async def _note_work(self, item: Item, work: WorkByHost) -> None:
        """Adds the work of an open item to `work`; queues the item if it was saved as a plain record."""
        item_work = work_of(item)
        if item_work is None and item["status"]["S"] == FrontierStatus.PENDING:
            await self._adopt(unescape(item["item_id"]["S"]))
            item_work = Work(queue_order(rank(0.0, self._run.clock.now())))
        # An item in progress that is not queued is worked on without a lease.
        if item_work is not None:
            work.note(item["domain"]["S"], item_work)

    async def _adopt(self, item_id: str) -> None:
        items = self._run.items
        for record in (await items.read([item_id])).values():
            (outcome,) = await items.run([items.adopt(record, secrets.token_hex(8))])
            if isinstance(outcome, Applied):
                self._run.counters.move(record.domain, None, "pending")

    async def _subtract_stored(self, tally: Tally) -> FrontierStats:
        """Subtracts the stored counts of all hosts from a tally; returns the stored counts of the run."""
        stored = await self._run.counters.stats()
        by_host: dict[str, Counter[str]] = {}
        async for host, item in self._run.hosts.iterate_counts():
            by_host[host] = Counter(asdict(stats_of(item)))
            if len(by_host) >= _HOSTS_AT_ONCE:
                tally.subtract_stored(by_host)
                by_host.clear()
        tally.subtract_stored(by_host)
        return stored

    async def _correct(self, tally: Tally, stored: FrontierStats) -> FrontierStats:
        """Corrects the stored counts by the differences; returns the exact counts."""
        exact = FrontierStats(**tally.total)
        total = Counter(asdict(exact))
        total.subtract(asdict(stored))
        self._run.counters.correct(total, ())
        differences = tally.differences()
        while batch := list(islice(differences, _HOSTS_AT_ONCE)):
            self._run.counters.correct(Counter(), batch)
            await self._notifier.flush()
        return exact
