"""Many conditional writes at once, each decided for itself: in PartiQL batches, or one request each.

Both ways give the same answers. PartiQL takes a tenth of the requests and of the CPU; single requests serve
engines that lack it (moto) and roles that may not use it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import BATCHES_IN_FLIGHT, key_values, read_all
from ragcrawl_dynamo._dynamodb.expressions import AllOf, Condition, Exists, Missing, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.partiql import insert_statement, update_statement
from ragcrawl_dynamo._dynamodb.retry import THROTTLING_REASONS
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.errors import (
    AccessDeniedError,
    ConditionFailedError,
    RagcrawlDynamoError,
    RequestRejectedError,
    ServerFaultError,
    ServiceError,
    TableNotFoundError,
    ThrottledError,
)

logger = logging.getLogger(__name__)

# AWS: BatchExecuteStatement.
STATEMENTS_PER_BATCH = 25

# Single requests of one call in flight.
_SINGLE_IN_FLIGHT = 16

# AWS: BatchStatementError.
_REFUSED = frozenset({"ConditionalCheckFailed", "DuplicateItem"})
_AGAIN = THROTTLING_REASONS | {"InternalServerError", "TransactionConflict"}
_KINDS: dict[str, type[ServiceError]] = {
    "AccessDenied": AccessDeniedError,
    "ResourceNotFound": TableNotFoundError,
    "InternalServerError": ServerFaultError,
    **dict.fromkeys(THROTTLING_REASONS, ThrottledError),
}

# An internal error of DynamoDB's has a code; a bare 500 is moto's answer to PartiQL with parameters.
_UNSUPPORTED = frozenset({"UnknownOperationException", "500"})


@dataclass(frozen=True, slots=True)
class ConditionalInsert:
    """Write an item if there is none of its key.

    Attributes:
        item: The item, which holds the token.
        token: It tells whether a write whose answer was lost was applied.
    """

    item: Item
    token: WriteToken


@dataclass(frozen=True, slots=True)
class ConditionalUpdate:
    """Change an item if it exists and a condition holds.

    Attributes:
        key: The item's key.
        update: What to change, the token included; counters must exist.
        condition: When.
        token: It tells whether a write whose answer was lost was applied.
    """

    key: Key
    update: Update
    condition: Condition
    token: WriteToken


@dataclass(frozen=True, slots=True)
class Applied:
    """The write was done; a change has the item as it is then."""

    item: Item | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The condition did not hold, or the item is there already."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Whether the write was done is unknown; the error says why."""

    error: RagcrawlDynamoError


Write: TypeAlias = ConditionalInsert | ConditionalUpdate
Outcome: TypeAlias = Applied | Refused | Failed


class ConditionalWrites(Protocol):
    """Does conditional writes on one table."""

    async def run(self, writes: Sequence[Write]) -> list[Outcome]:
        """The outcome of each write, in their order; those of one key happen one after the other."""
        ...


class SingleWrites:
    """One PutItem or UpdateItem each."""

    def __init__(self, gateway: Gateway, table: Table[Any]) -> None:
        self._gateway = gateway
        self._table = table

    async def run(self, writes: Sequence[Write]) -> list[Outcome]:
        """See ConditionalWrites."""
        return await _in_rounds(self._table, writes, self._run_distinct)

    async def _run_distinct(self, writes: Sequence[Write]) -> list[Outcome]:
        return await gather_bounded(self._write, writes, _SINGLE_IN_FLIGHT)

    async def _write(self, write: Write) -> Outcome:
        try:
            if isinstance(write, ConditionalInsert):
                absent = Missing(self._table.partition_key)
                put = requests.put_request(self._table, write.item, absent)
                await self._gateway.call("PutItem", put)
                return Applied()
            condition = AllOf((Exists(self._table.partition_key), write.condition))
            update = requests.update_request(self._table, write.key, write.update, condition)
            response = await self._gateway.call("UpdateItem", update)
            return Applied(response["Attributes"])
        except ConditionFailedError as error:
            # Refused by our own first attempt, perhaps, whose answer was lost.
            return _recognized(write, error.item or {})
        except RagcrawlDynamoError as error:
            return Failed(error)


class PartiqlWrites:
    """BatchExecuteStatement, 25 statements each."""

    def __init__(self, gateway: Gateway, table: Table[Any]) -> None:
        self._gateway = gateway
        self._table = table

    async def run(self, writes: Sequence[Write]) -> list[Outcome]:
        """See ConditionalWrites."""
        return await _in_rounds(self._table, writes, self._run_distinct)

    async def _run_distinct(self, writes: Sequence[Write]) -> list[Outcome]:
        chunks = [writes[i : i + STATEMENTS_PER_BATCH] for i in range(0, len(writes), STATEMENTS_PER_BATCH)]
        outcomes = await gather_bounded(self._run_batch, chunks, BATCHES_IN_FLIGHT)
        return [each for batch in outcomes for each in batch]

    async def _run_batch(self, writes: Sequence[Write]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        left = dict(enumerate(writes))
        unclear = False

        def note() -> None:
            nonlocal unclear
            unclear = True

        try:
            async with self._gateway.permit("BatchExecuteStatement", self._table.name) as budget:
                while True:
                    response = await self._gateway.call(
                        "BatchExecuteStatement",
                        {"Statements": [self._statement(write) for write in left.values()]},
                        table=self._table.name,
                        budget=budget,
                        on_unclear=note,
                    )
                    again: dict[int, Write] = {}
                    for (i, write), answer in zip(left.items(), response["Responses"], strict=True):
                        outcomes[i] = self._outcome(write, answer)
                        if answer.get("Error", {}).get("Code") in _AGAIN:
                            again[i] = write
                    # An internal error says nothing about the write either.
                    unclear = unclear or bool(again)
                    if len(again) == len(left):
                        budget.fail()
                    else:
                        budget.progress()
                    if not again or budget.is_spent:
                        break
                    left = again
                    await asyncio.sleep(budget.pause())
        except RagcrawlDynamoError as error:
            outcomes |= dict.fromkeys(left, Failed(error))
        if unclear:
            await self._look_again(writes, outcomes)
        return [outcomes[i] for i in range(len(writes))]

    async def _look_again(self, writes: Sequence[Write], outcomes: dict[int, Outcome]) -> None:
        """Finds out which refused writes were applied by an attempt whose answer was lost."""
        refused = {
            _key(self._table, writes[i]): i for i, each in outcomes.items() if isinstance(each, Refused)
        }
        keys: list[Key] = [
            {name: {"S": value} for name, value in zip(self._table.primary_key, key, strict=True)}
            for key in refused
        ]
        try:
            items = await read_all(self._gateway, self._table, keys)
        except RagcrawlDynamoError as error:
            outcomes |= dict.fromkeys(refused.values(), Failed(error))
            return
        for item in items:
            i = refused[key_values(self._table, item)]
            outcomes[i] = _recognized(writes[i], item)

    def _statement(self, write: Write) -> Any:
        if isinstance(write, ConditionalInsert):
            return insert_statement(self._table.name, write.item)
        return update_statement(self._table.name, write.key, write.update, write.condition)

    def _outcome(self, write: Write, answer: Any) -> Outcome:
        if (error := answer.get("Error")) is None:
            return Applied(None if isinstance(write, ConditionalInsert) else answer["Item"])
        code = str(error.get("Code", "Unknown"))
        if code in _REFUSED:
            return Refused()
        kind = _KINDS.get(code, RequestRejectedError)
        message = f"a statement was refused; DynamoDB says: {error.get('Message', 'no message')}"
        return Failed(kind(message, code=code, operation="BatchExecuteStatement", table=self._table.name))


class AutomaticWrites:
    """PartiQL batches, until it turns out that they are not allowed or not there; then single requests."""

    def __init__(self, gateway: Gateway, table: Table[Any]) -> None:
        self._partiql = PartiqlWrites(gateway, table)
        self._single = SingleWrites(gateway, table)
        self._table = table
        self._use_single = False

    async def run(self, writes: Sequence[Write]) -> list[Outcome]:
        """See ConditionalWrites."""
        if self._use_single:
            return await self._single.run(writes)
        outcomes = await self._partiql.run(writes)
        refused = [i for i, each in enumerate(outcomes) if _lacks_partiql(each)]
        if not refused:
            return outcomes
        if not self._use_single:
            self._use_single = True
            logger.warning(
                "%s: PartiQL batches are denied or unsupported here; single requests are used instead, ten "
                "times as many. Allow dynamodb:PartiQLInsert and dynamodb:PartiQLUpdate, or set "
                "conditional_batches to 'item'",
                self._table.name,
            )
        again = await self._single.run([writes[i] for i in refused])
        for i, outcome in zip(refused, again, strict=True):
            outcomes[i] = outcome
        return outcomes


def conditional_writes(gateway: Gateway, table: Table[Any]) -> ConditionalWrites:
    """The way of `conditional_batches`."""
    ways: dict[str, type[SingleWrites | PartiqlWrites | AutomaticWrites]] = {
        "auto": AutomaticWrites,
        "partiql": PartiqlWrites,
        "item": SingleWrites,
    }
    return ways[gateway.config.conditional_batches](gateway, table)


def _lacks_partiql(outcome: Outcome) -> bool:
    if not isinstance(outcome, Failed):
        return False
    unsupported = isinstance(outcome.error, ServiceError) and outcome.error.code in _UNSUPPORTED
    return unsupported or isinstance(outcome.error, AccessDeniedError)


def _recognized(write: Write, item: Item) -> Outcome:
    """The outcome of a write that was refused, given the item that refused it."""
    if not write.token.is_in(item):
        return Refused()
    return Applied(None if isinstance(write, ConditionalInsert) else item)


async def _in_rounds(table: Table[Any], writes: Sequence[Write], run: Any) -> list[Outcome]:
    """Runs writes so that no two of one key are in flight: a batch that has a key twice is refused whole."""
    outcomes: dict[int, Outcome] = {}
    left = list(range(len(writes)))
    while left:
        first: dict[tuple[str, ...], int] = {}
        for i in left:
            first.setdefault(_key(table, writes[i]), i)
        now = list(first.values())
        outcomes |= dict(zip(now, await run([writes[i] for i in now]), strict=True))
        taken = set(now)
        left = [i for i in left if i not in taken]
    return [outcomes[i] for i in range(len(writes))]


def _key(table: Table[Any], write: Write) -> tuple[str, ...]:
    return key_values(table, write.item if isinstance(write, ConditionalInsert) else write.key)
