"""Does conditional writes to items in memory: a test says what a write decides, not how it is spelled."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert, ConditionalUpdate
from ragcrawl_dynamo._dynamodb.expressions import AllOf, AnyOf, Compare, Condition, Exists, Missing
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Outcome, Refused
from ragcrawl_dynamo._dynamodb.values import Item

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def holds(condition: Condition, item: Mapping[str, Any]) -> bool:
    """Returns whether a condition on top-level attributes holds for an item."""
    match condition:
        case AllOf(conditions):
            return all(holds(part, item) for part in conditions)
        case AnyOf(conditions):
            return any(holds(part, item) for part in conditions)
        case Exists(path):
            return path in item
        case Missing(path):
            return path not in item
        case Compare(str(path), symbol, value):
            return path in item and _OPERATORS[symbol](plain(item[path]), plain(value))
    raise AssertionError(condition)


def applied(write: ConditionalUpdate, item: Mapping[str, Any]) -> Item | None:
    """Returns the item that a write leaves; None if its condition refuses it."""
    if not holds(write.condition, item):
        return None
    changed = {**item, **cast("dict[str, Any]", write.update.put)}
    for path, value in write.update.increment.items():
        name = str(path)
        # PartiQL increments only what is there.
        changed[name] = {"N": str(int(item[name]["N"]) + int(value["N"]))}
    for name in write.update.remove:
        changed.pop(name, None)
    return changed


def plain(value: Mapping[str, Any]) -> Any:
    """Returns a text, a number or another value without its type."""
    ((kind, content),) = value.items()
    return Decimal(content) if kind == "N" else content


def key_of(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["run_id"]["S"], item["item_id"]["S"]


def spelled(request: Mapping[str, Any], expression: str) -> str:
    """Returns an expression of a request with its names and values in the place of placeholders."""
    values = {token: plain(value) for token, value in request.get("ExpressionAttributeValues", {}).items()}
    parts = {**request["ExpressionAttributeNames"], **values}
    return re.sub(r"[#:]\d+", lambda match: str(parts[match[0]]), request[expression])


class MemoryTable:
    """Items by key: it does conditional writes, and answers reads by key.

    Attributes:
        items: The items.
        writes: The writes, and `rounds` how many came together.
        reads: The keys that were read.
        failed: The outcomes of writes to the keys that fail, by sort key.
        before_write: Called before each round of writes.
        before_read: Called before each request that reads.
    """

    def __init__(self, *items: Item) -> None:
        self.items = {key_of(item): item for item in items}
        self.writes: list[ConditionalInsert | ConditionalUpdate] = []
        self.rounds: list[tuple[int, bool, float | None]] = []
        self.reads: list[str] = []
        self.failed: dict[str, Failed] = {}
        self.before_write: Callable[[], None] = lambda: None
        self.before_read: Callable[[], None] = lambda: None

    async def run(
        self,
        writes: Sequence[ConditionalInsert | ConditionalUpdate],
        *,
        once: bool = False,
        seconds: float | None = None,
    ) -> list[Outcome]:
        """See ConditionalWrites."""
        self.before_write()
        self.rounds.append((len(writes), once, seconds))
        return [self._write(write) for write in writes]

    def answer(self, operation: str, request: Any) -> Any:
        """Answers a read by key."""
        self.before_read()
        if operation == "get_item":
            return self._get(request["Key"])
        ((table, wanted),) = request["RequestItems"].items()
        answers = [self._get(key) for key in wanted["Keys"]]
        return {"Responses": {table: [answer["Item"] for answer in answers if answer]}}

    def counts(self) -> Counter[str]:
        """Returns how many writes each sort key got."""
        return Counter(
            (write.item if isinstance(write, ConditionalInsert) else write.key)["item_id"]["S"]
            for write in self.writes
        )

    def _get(self, key: Any) -> Any:
        self.reads.append(key["item_id"]["S"])
        item = self.items.get(key_of(key))
        return {} if item is None else {"Item": item}

    def _write(self, write: ConditionalInsert | ConditionalUpdate) -> Outcome:
        self.writes.append(write)
        key = key_of(write.item if isinstance(write, ConditionalInsert) else write.key)
        if key[1] in self.failed:
            return self.failed[key[1]]
        if isinstance(write, ConditionalInsert):
            if key in self.items:
                return Refused()
            self.items[key] = write.item
            return Applied()
        if key not in self.items or (changed := applied(write, self.items[key])) is None:
            return Refused()
        # A write whose answer was lost is recognized by its token.
        assert write.token.is_in(changed)
        self.items[key] = changed
        return Applied(changed)
