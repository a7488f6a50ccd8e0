"""Completes the items of links that redirect to a page, or through which its redirect went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert, ConditionalUpdate
from ragcrawl_dynamo._dynamodb.expressions import AllOf, Compare, Condition, Update
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed
from ragcrawl_dynamo._dynamodb.values import Item, moment_text
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.context import FrontierServices, RunContext
from ragcrawl_dynamo._frontier.item_store import LEFT_BY_FINAL, state_of
from ragcrawl_dynamo._schema.attributes import expiry
from ragcrawl_dynamo._schema.keys import frontier_key
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._utils.urls import link_id, url_hash
from ragcrawl_dynamo._utils.validation import check_several
from ragcrawl_dynamo.errors import PartialBatchError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

# How many times an item is read and written if others change it in between. Then it is left to them.
_ATTEMPTS = 4


class Redirects:
    """Completes items of one run without a lease of them."""

    def __init__(self, services: FrontierServices, run: RunContext) -> None:
        self._table = services.tables.frontier
        self._run = run

    def items(self, urls: object, claims: Sequence[Claim]) -> dict[str, FrontierItem]:
        """Returns completed items of URLs, by id, without those of the claims.

        Raises:
            InvalidInputError: A URL is no absolute http(s) URL, or its item cannot be stored.
        """
        run = self._run
        claimed_ids = {claim.item.item_id for claim in claims}
        items: dict[str, FrontierItem] = {}
        for url in check_several("also", urls, str):
            normalized, host = run.rules.apply(url)
            item_id = link_id(normalized)
            if item_id in claimed_ids or item_id in items:
                continue
            item = FrontierItem(
                item_id=item_id,
                run_id=run.run_id,
                site_id=run.site_id,
                url=url,
                normalized_url=normalized,
                url_hash=url_hash(normalized),
                depth=claims[0].item.depth if claims else 0,
                status=FrontierStatus.COMPLETED,
                domain=host,
            )
            # An item that cannot be stored is refused here, before anything is changed.
            to_item(self._table, item)
            items[item_id] = item
        return items

    async def complete(self, items: Mapping[str, FrontierItem]) -> None:
        """Completes stored items that are open and not leased, and adds those that are not stored.

        Raises:
            PartialBatchError: Some items were not completed. Repeating the call is safe.
        """
        run = self._run
        remaining = dict(items)
        failures: list[tuple[FrontierItem, RagcrawlDynamoError]] = []
        for _ in range(_ATTEMPTS):
            if not remaining:
                break
            states, control = await run.read_states(list(remaining))
            absent = [item for item_id, item in remaining.items() if item_id not in states]
            if absent:
                await self._prepare_additions(absent, control)
            now = run.clock.now()
            remaining = {
                item_id: item
                for item_id, item in remaining.items()
                if not FrontierStatus(states.get(item_id, _ABSENT)["status"]["S"]).is_final
            }
            writes = [
                self._completion(item, states[item_id], now)
                if item_id in states
                else self._addition(item, now)
                for item_id, item in remaining.items()
            ]
            outcomes = await run.items.run(writes)
            for item, outcome in zip(list(remaining.values()), outcomes, strict=True):
                if isinstance(outcome, Failed):
                    failures.append((item, outcome.error))
                elif isinstance(outcome, Applied):
                    state = states.get(item.item_id)
                    before = None if state is None else state_of(state)
                    host = item.domain if state is None else state["domain"]["S"]
                    run.counters.move(host, before, "completed")
                    run.view.seen_links.add(item.item_id)
                    run.note_ended(item)
                elif item.item_id not in states or _is_pending(states[item.item_id]):
                    # Another process has changed the item, perhaps only its place in the queue.
                    continue
                del remaining[item.item_id]
            if absent:
                # A process may have proven meanwhile that the run is finished, and counted its items.
                await run.control.reopen(await run.control_reads.following())
        if failures:
            raise PartialBatchError(len(items) - len(failures), failures)

    async def _prepare_additions(self, absent: Sequence[FrontierItem], control: RunControl | None) -> None:
        """Stores the hosts of new items, which hold their counts, and removes the proof of the end."""
        run = self._run
        for host in {item.domain for item in absent}:
            await run.hosts.ensure(host)
        await run.control.reopen(control)

    def _addition(self, item: FrontierItem, now: datetime) -> ConditionalInsert:
        token = WriteToken.new("added_by")
        completed = item.model_copy(update={"completed_at": now, "discovered_at": now})
        extra = {**token.attributes, **expiry(self._run.config.frontier_ttl_days, now)}
        return ConditionalInsert(to_item(self._table, completed, extra), token)

    def _completion(self, item: FrontierItem, state: Item, now: datetime) -> ConditionalUpdate:
        """Builds the write that completes a stored item, if it is unchanged and not leased."""
        run = self._run
        as_read: list[Condition] = [Compare("status", "=", state["status"])]
        if "queue_order" in state:
            as_read.append(Compare("queue_order", "=", state["queue_order"]))
        if not _is_pending(state):
            # Leases that have ended by then count as lost, even by the slowest clock that is allowed.
            lost = now - timedelta(seconds=run.config.frontier_max_clock_skew)
            as_read.append(Compare("lease_expires_at", "<", {"S": moment_text(lost)}))
        token = WriteToken.new("changed_by")
        put = run.items.final(FrontierStatus.COMPLETED, now) | token.assignment
        update = Update(put=put, remove=LEFT_BY_FINAL)
        return ConditionalUpdate(frontier_key(run.run_id, item.item_id), update, AllOf(as_read), token)


_ABSENT: Item = {"status": {"S": FrontierStatus.PENDING}}


def _is_pending(state: Item) -> bool:
    return state["status"] == {"S": FrontierStatus.PENDING}
