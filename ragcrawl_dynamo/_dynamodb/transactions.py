"""Runs transactions whose writes have names, so that a refusal names the write that was refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import Condition, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo.errors import ConditionFailedError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TransactWriteItemTypeDef

# AWS: TransactWriteItems, cancellation reasons.
_CONDITION_FAILED = "ConditionalCheckFailed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why DynamoDB refused a transaction: conditions of some of its writes did not hold.

    Attributes:
        reasons: By name of a write, AWS's reason code; "None" where nothing was against it.
        items: By name of a write whose condition failed, the item as it was, if there was one.
    """

    reasons: Mapping[str, str]
    items: Mapping[str, Item]

    def is_refused(self, name: str) -> bool:
        """Whether the condition of a write failed; False for a name that the transaction does not have."""
        return self.reasons.get(name) == _CONDITION_FAILED

    def item(self, name: str) -> Item:
        """The item of a write as it was; empty where there was none, or nothing was against the write."""
        return self.items.get(name, {})


class Transaction:
    """At most 100 writes that are all done, or none, each under a name of its own.

    Args:
        token: The write token that one of the writes, `marked`, stores. It makes a repeated request harmless:
            DynamoDB does a request with the same client token once within 10 minutes, and afterwards the
            token in the item tells that it was done.
        marked: The name of that write.
    """

    def __init__(self, token: WriteToken, marked: str) -> None:
        self._token = token
        self._marked = marked
        self._writes: dict[str, TransactWriteItemTypeDef] = {}

    def put(self, name: str, table: Table[Any], item: Item, condition: Condition | None = None) -> None:
        """Adds the write of an item, in any case or only if a condition holds."""
        self._writes[name] = requests.transact_put(table, item, condition)

    def update(self, name: str, table: Table[Any], key: Key, update: Update, condition: Condition) -> None:
        """Adds the change of an item, if a condition holds."""
        self._writes[name] = requests.transact_update(table, key, update, condition)

    async def run(
        self, gateway: Gateway, on_throttled: Callable[[float], None] | None = None
    ) -> Refusal | None:
        """Does all writes; returns why DynamoDB refused them, or None once they are done.

        Args:
            gateway: The gateway.
            on_throttled: Called with the seconds until the transaction is tried again, when it is throttled.

        Raises:
            ConflictError: Other transactions had one of the items at each attempt; nothing was written.
            ServiceError: It is unknown whether they were done, or DynamoDB refused them for another reason.
        """
        ((_, client_token),) = self._token.value.items()
        request = requests.transaction_request(str(client_token), list(self._writes.values()))
        try:
            async with gateway.permit("TransactWriteItems", "") as budget:
                budget.on_throttled = on_throttled
                await gateway.call("TransactWriteItems", request, budget=budget)
        except ConditionFailedError as error:
            items = {name: item for name, item in zip(self._writes, error.items, strict=True) if item}
            if self._token.is_in(items.get(self._marked)):
                return None
            return Refusal(dict(zip(self._writes, error.reasons, strict=True)), items)
        return None
