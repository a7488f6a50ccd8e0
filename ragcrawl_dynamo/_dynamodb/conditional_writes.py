"""Runs many conditional writes, independent of each other: in PartiQL batches, or in one request each.

Both ways give the same outcomes. PartiQL takes a tenth of the requests and of the CPU. Single requests serve
engines that lack PartiQL (moto) and roles that may not use it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.answers import check_item
from ragcrawl_dynamo._dynamodb.batching import (
    BATCHES_IN_FLIGHT,
    KeyValues,
    by_key,
    chunks,
    key_values,
    read_all,
)
from ragcrawl_dynamo._dynamodb.error_mapping import statement_error
from ragcrawl_dynamo._dynamodb.expressions import AllOf, Condition, Exists, Missing, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Outcome, Refused
from ragcrawl_dynamo._dynamodb.partiql import insert_statement, update_statement
from ragcrawl_dynamo._dynamodb.retry import CONFLICT_REASON, THROTTLING_REASONS, Budget
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.errors import (
    AccessDeniedError,
    ConditionFailedError,
    ConflictError,
    RagcrawlDynamoError,
    ServiceError,
    ThrottledError,
)

logger = logging.getLogger(__name__)

# AWS: BatchExecuteStatement.
STATEMENTS_PER_BATCH = 25

# Single requests of one call that are in flight.
_SINGLE_IN_FLIGHT = 16

# AWS: BatchStatementError.
_REFUSAL_CODES = frozenset({"ConditionalCheckFailed", "DuplicateItem"})
_STATEMENT_FAULTS = frozenset({"InternalServerError", CONFLICT_REASON})

# An internal error of DynamoDB has a name. A bare 500 is moto's answer to PartiQL with parameters; it can
# also be that of a proxy or of AWS, and then has nothing to do with PartiQL.
_UNSUPPORTED_CODES = frozenset({"UnknownOperationException", "500"})


@dataclass(frozen=True, slots=True)
class ConditionalInsert:
    """Writes an item if there is none with its key.

    Attributes:
        item: The item, which holds the token.
        token: The value by which the write is recognized if its answer was lost.
        may_be_applied: Whether the write was sent before, and may have been done then.
    """

    item: Item
    token: WriteToken
    may_be_applied: bool = False


@dataclass(frozen=True, slots=True)
class ConditionalUpdate:
    """Changes an item if it exists and a condition holds.

    Attributes:
        key: The item's key.
        update: The change, which stores the token too; counters that it increments must exist.
        condition: The condition.
        token: The value by which the write is recognized if its answer was lost.
        may_be_applied: Whether the write was sent before, and may have been done then.
    """

    key: Key
    update: Update
    condition: Condition
    token: WriteToken
    may_be_applied: bool = False


Write: TypeAlias = ConditionalInsert | ConditionalUpdate


class ConditionalWrites(Protocol):
    """Runs conditional writes on one table."""

    async def run(
        self, writes: Sequence[Write], *, once: bool = False, seconds: float | None = None
    ) -> list[Outcome]:
        """Returns the outcome of each write, in their order; writes of one key happen one after the other.

        Args:
            writes: The writes.
            once: Whether throttled writes are not sent again: they fail, and the others do not wait.
            seconds: How long a request with its retries may take, `call_timeout` by default.
        """
        ...


class SingleWrites:
    """Runs each write as a PutItem or an UpdateItem."""

    def __init__(self, gateway: Gateway, table: Table[Any]) -> None:
        self._gateway = gateway
        self._table = table

    async def run(
        self, writes: Sequence[Write], *, once: bool = False, seconds: float | None = None
    ) -> list[Outcome]:
        """See ConditionalWrites."""

        async def run_one(write: Write) -> Outcome:
            return await self._run_one(write, once=once, seconds=seconds)

        async def run_distinct(distinct: Sequence[Write]) -> list[Outcome]:
            return await gather_bounded(run_one, distinct, _SINGLE_IN_FLIGHT)

        return await _run_in_rounds(self._table, writes, run_distinct)

    async def _run_one(self, write: Write, *, once: bool, seconds: float | None) -> Outcome:
        operation = "PutItem" if isinstance(write, ConditionalInsert) else "UpdateItem"
        budget = None
        try:
            async with self._gateway.permit(
                operation, self._table.name, once=once, seconds=seconds
            ) as budget:
                return await self._send(write, budget)
        except ConditionFailedError as error:
            # The write's own first attempt may have been applied, and its answer lost.
            return _outcome_of_refusal(write, error.item)
        except RagcrawlDynamoError as error:
            return Failed(error, write.may_be_applied or _may_be_applied(error, budget))

    async def _send(self, write: Write, budget: Budget) -> Applied:
        if isinstance(write, ConditionalInsert):
            is_absent = Missing(self._table.partition_key)
            put = requests.put_request(self._table, write.item, is_absent)
            await self._gateway.call("PutItem", put, budget=budget)
            return Applied()
        condition = AllOf((Exists(self._table.partition_key), write.condition))
        update = requests.update_request(self._table, write.key, write.update, condition)
        response = await self._gateway.call("UpdateItem", update, budget=budget)
        return Applied(response["Attributes"])


class PartiqlWrites:
    """Runs the writes as BatchExecuteStatement, 25 statements each.

    Attributes:
        is_served: Whether a batch was answered: PartiQL is supported here.
    """

    def __init__(self, gateway: Gateway, table: Table[Any], *, probing: bool = False) -> None:
        """`probing` is whether batches fail at once while they seem to be unsupported."""
        self._gateway = gateway
        self._table = table
        self._probing = probing
        self.is_served: bool = False

    async def run(
        self, writes: Sequence[Write], *, once: bool = False, seconds: float | None = None
    ) -> list[Outcome]:
        """See ConditionalWrites."""

        async def run_batch(batch: Sequence[Write]) -> list[Outcome]:
            outcomes, may_be_applied = await self._send_batch(batch, once=once, seconds=seconds)
            if may_be_applied:
                outcomes = await self._recognize_applied(batch, outcomes)
            return outcomes

        async def run_distinct(distinct: Sequence[Write]) -> list[Outcome]:
            batches = chunks(distinct, STATEMENTS_PER_BATCH)
            results = await gather_bounded(run_batch, batches, BATCHES_IN_FLIGHT)
            return [outcome for outcomes in results for outcome in outcomes]

        return await _run_in_rounds(self._table, writes, run_distinct)

    async def _send_batch(
        self, writes: Sequence[Write], *, once: bool, seconds: float | None
    ) -> tuple[list[Outcome], bool]:
        """Sends at most 25 writes, and sends those again that can succeed later.

        Returns:
            The outcomes, and whether a write that was refused may be one whose earlier attempt was applied.
        """
        outcomes: dict[int, Outcome] = {}
        pending = dict(enumerate(writes))
        may_be_applied = any(write.may_be_applied for write in writes)
        budget = None
        try:
            async with self._gateway.permit(
                "BatchExecuteStatement", self._table.name, once=once, seconds=seconds
            ) as budget:
                if self._probing and not self.is_served:
                    budget.final_codes = _UNSUPPORTED_CODES
                while pending:
                    answers = await self._execute(pending, budget)
                    may_be_applied |= budget.may_be_applied
                    outcomes |= {
                        i: self._outcome(writes[i], answer, may_be_applied=may_be_applied)
                        for i, answer in answers.items()
                    }
                    sent = len(pending)
                    retryable = _STATEMENT_FAULTS if once else _STATEMENT_FAULTS | THROTTLING_REASONS
                    pending = {
                        i: writes[i] for i, answer in answers.items() if _error_code(answer) in retryable
                    }
                    # The statements that are sent again may have been applied, as after an internal error.
                    may_be_applied |= bool(pending)
                    budget.count_batch(sent, len(pending))
                    pause = budget.pause()
                    if budget.is_spent_after(pause):
                        break
                    if pending:
                        await budget.sleep(pause)
        except RagcrawlDynamoError as error:
            failed = Failed(error, may_be_applied or _may_be_applied(error, budget))
            outcomes |= dict.fromkeys(pending, failed)
        return [outcomes[i] for i in range(len(writes))], may_be_applied

    async def _execute(self, writes: Mapping[int, Write], budget: Budget) -> dict[int, Any]:
        response = await self._gateway.call(
            "BatchExecuteStatement",
            {"Statements": [self._statement(write) for write in writes.values()]},
            table=self._table.name,
            budget=budget,
        )
        self.is_served = True
        answers = dict(zip(writes, response["Responses"], strict=True))
        for i, answer in answers.items():
            # The item as an update left it.
            if item := answer.get("Item"):
                check_item("BatchExecuteStatement", self._table.name, _key(self._table, writes[i]), item)
        return answers

    async def _recognize_applied(self, writes: Sequence[Write], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Reads the items that refused a write, and finds the writes that an earlier attempt applied."""
        refused = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Refused)]
        keys = {i: _key(self._table, writes[i]) for i in refused}
        recognized = list(outcomes)
        try:
            items = by_key(self._table, await read_all(self._gateway, self._table, list(keys.values())))
        except RagcrawlDynamoError as error:
            for i in refused:
                recognized[i] = Failed(error)
            return recognized
        for i, key in keys.items():
            recognized[i] = _outcome_of_refusal(writes[i], items.get(key_values(self._table, key)))
        return recognized

    def _statement(self, write: Write) -> Any:
        if isinstance(write, ConditionalInsert):
            return insert_statement(self._table.name, write.item)
        return update_statement(self._table.name, write.key, write.update, write.condition)

    def _outcome(self, write: Write, answer: Any, *, may_be_applied: bool) -> Outcome:
        """Returns the outcome of one statement; `may_be_applied` if an attempt before may have done it."""
        if (error := answer.get("Error")) is None:
            return Applied(None if isinstance(write, ConditionalInsert) else answer["Item"])
        code = str(error.get("Code", "Unknown"))
        if code in _REFUSAL_CODES:
            return Refused()
        failure = statement_error(code, error.get("Message", "no message"), self._table.name)
        return Failed(failure, may_be_applied or code == "InternalServerError")


class AutomaticWrites:
    """Uses PartiQL batches until they turn out to be denied or unsupported; then single requests."""

    def __init__(self, gateway: Gateway, table: Table[Any]) -> None:
        self._partiql = PartiqlWrites(gateway, table, probing=True)
        self._single = SingleWrites(gateway, table)
        self._table = table
        self._lacks_partiql = False

    async def run(
        self, writes: Sequence[Write], *, once: bool = False, seconds: float | None = None
    ) -> list[Outcome]:
        """See ConditionalWrites."""
        if self._lacks_partiql:
            return await self._single.run(writes, once=once, seconds=seconds)
        outcomes = await self._partiql.run(writes, once=once, seconds=seconds)
        is_served = self._partiql.is_served
        denied = [i for i, outcome in enumerate(outcomes) if _lacks_partiql(outcome, is_served=is_served)]
        if not denied:
            return outcomes
        if not self._lacks_partiql:
            self._lacks_partiql = True
            logger.warning(
                "%s: PartiQL batches are denied or unsupported here; single requests are used instead, ten "
                "times as many. Allow dynamodb:PartiQLInsert and dynamodb:PartiQLUpdate, or set "
                "conditional_batches to 'item'",
                self._table.name,
            )
        outcomes_of_single = await self._single.run([writes[i] for i in denied], once=once, seconds=seconds)
        for i, outcome in zip(denied, outcomes_of_single, strict=True):
            outcomes[i] = outcome
        return outcomes


def conditional_writes(gateway: Gateway, table: Table[Any]) -> ConditionalWrites:
    """Returns the runner of a table's conditional writes that the setting `conditional_batches` asks for."""
    kinds: dict[str, type[SingleWrites | PartiqlWrites | AutomaticWrites]] = {
        "auto": AutomaticWrites,
        "partiql": PartiqlWrites,
        "item": SingleWrites,
    }
    return kinds[gateway.config.conditional_batches](gateway, table)


def _lacks_partiql(outcome: Outcome, *, is_served: bool) -> bool:
    """Returns whether a write failed because PartiQL is denied, or was never served and seems unsupported."""
    if not isinstance(outcome, Failed):
        return False
    is_unsupported = isinstance(outcome.error, ServiceError) and outcome.error.code in _UNSUPPORTED_CODES
    return (is_unsupported and not is_served) or isinstance(outcome.error, AccessDeniedError)


def _error_code(answer: Any) -> str | None:
    code: str | None = answer.get("Error", {}).get("Code")
    return code


def _may_be_applied(error: RagcrawlDynamoError, budget: Budget | None) -> bool:
    """Returns whether a write that failed may have been done; without a budget it was not sent."""
    if budget is None:
        return False
    return budget.may_be_applied or not isinstance(error, ThrottledError | ConflictError)


def _outcome_of_refusal(write: Write, item: Item | None) -> Outcome:
    """Returns the outcome of a refused write: applied if the item that refused it holds the write's token."""
    if item is None or not write.token.is_in(item):
        return Refused()
    return Applied(None if isinstance(write, ConditionalInsert) else item)


async def _run_in_rounds(
    table: Table[Any],
    writes: Sequence[Write],
    run_distinct: Callable[[Sequence[Write]], Awaitable[list[Outcome]]],
) -> list[Outcome]:
    """Runs writes in rounds of distinct keys: DynamoDB rejects a batch that has a key twice."""
    outcomes: dict[int, Outcome] = {}
    pending = list(range(len(writes)))
    while pending:
        first_of_key: dict[KeyValues, int] = {}
        for i in pending:
            first_of_key.setdefault(key_of(table, writes[i]), i)
        of_round = list(first_of_key.values())
        outcomes |= dict(zip(of_round, await run_distinct([writes[i] for i in of_round]), strict=True))
        pending = [i for i in pending if i not in outcomes]
    return [outcomes[i] for i in range(len(writes))]


def key_of(table: Table[Any], write: Write) -> KeyValues:
    """Returns the primary key of a write's item as a hashable value."""
    return key_values(table, _key(table, write))


def _key(table: Table[Any], write: Write) -> Key:
    if isinstance(write, ConditionalUpdate):
        return write.key
    return {name: write.item[name] for name in table.primary_key}
