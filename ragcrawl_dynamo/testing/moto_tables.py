"""moto's DynamoDB, without the copies and sorts of whole tables that each request costs there.

moto copies every table of a transaction before it writes, to undo a failed one. It sorts all items of a table
for each query. It looks for each attribute of an answer under a dozen names. Here a transaction keeps the
items that it names, a query gets the items of its partition key, and an answer is written without a search.

moto's own methods still write, check and compare. If a version of moto does not have what this module
overrides, they do all of it: `tests/integration/test_moto.py` then says what has become slow.
"""

from __future__ import annotations

import base64
import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from moto.core.utils import convert_to_flask_response
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

__all__ = ["create_application", "fast_tables"]

# Their answers are JSON already, but for binary values: items, keys and numbers.
_ANSWER_WITH_ITEMS = frozenset({"BatchGetItem", "GetItem", "Query", "Scan", "TransactGetItems", "UpdateItem"})

_QUERY = inspect.signature(Table.query)


@contextmanager
def fast_tables() -> Iterator[None]:
    """Makes the tables fast that are created meanwhile, in an account and region that had none before."""
    before = dynamodb_backends.backend
    dynamodb_backends.backend = _Backend
    try:
        yield
    finally:
        dynamodb_backends.backend = before


def create_application() -> Any:
    """Creates the WSGI application of moto's services."""
    return _Dispatcher(_create_service)


def _create_service(service: Any) -> Any:
    application = create_backend_app(service)
    if service == "dynamodb":
        view = convert_to_flask_response(_Handler.dispatch)
        application.view_functions = dict.fromkeys(application.view_functions, view)
    return application


class _Dispatcher(DomainDispatcherApplication):
    """Finds the service of a request. moto reads its folder of services for every request."""

    def __init__(self, create_app: Callable[[Any], Any]) -> None:
        super().__init__(create_app)
        self._services: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        """Returns the service that answers at a host."""
        if host not in self._services:
            self._services[host] = super().get_backend_for_host(host)
        return self._services[host]


class _Handler(DynamoHandler):
    """Answers a request to DynamoDB."""

    def serialized(self, action_result: Any) -> Any:
        """Returns status, headers and body of an answer."""
        if self._get_action() in _ANSWER_WITH_ITEMS:
            # orjson does not know what else moto returns, such as exceptions.
            with suppress(TypeError):
                body = orjson.dumps(action_result.result, default=_base64).decode()
                return 200, {"Content-Type": "application/x-amz-json-1.0", **self.response_headers}, body
        return super().serialized(action_result)


def _base64(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError
    return base64.b64encode(value).decode()


class _Table(Table):
    """A table that gives a query the items of its partition key, and is not copied in a transaction.

    Attributes:
        is_in_transaction: Whether a copy of the table is the table itself.
        partition: The items of one partition key, if the table is what a query sees of another one.
    """

    is_in_transaction: bool = False
    partition: list[Any] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Table:
        if self.is_in_transaction:
            return self
        duplicate = memo[id(self)] = object.__new__(type(self))
        duplicate.__dict__ = copy.deepcopy(self.__dict__, memo)
        return duplicate

    def query(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a page of items, how many were read for it, and the key of the last one."""
        arguments = _QUERY.bind(self, *args, **kwargs).arguments
        partition = self._find(arguments.get("hash_key"), arguments.get("index_name"))
        if partition is None:
            return super().query(*args, **kwargs)
        # Not by the constructor: moto keeps each table that was constructed forever.
        view = object.__new__(type(self))
        view.__dict__ = {**self.__dict__, "partition": partition}
        return Table.query(view, *args, **kwargs)

    def all_items(self) -> list[Any]:
        """Returns the items that a query chooses from and sorts."""
        return super().all_items() if self.partition is None else self.partition

    def _find(self, hash_key: Any, index_name: str | None) -> list[Any] | None:
        """Returns the items with a partition key of the table or an index; None if moto has to find them."""
        # Equal numbers can be written in several ways.
        if hash_key is None or hash_key.is_number():
            return None
        if index_name is None:
            return self._items_of(self.items[hash_key]) if hash_key in self.items else []
        keys = [key for index in self.all_indexes() if index.name == index_name for key in index.schema]
        names = [key["AttributeName"] for key in keys if key["KeyType"] == "HASH"]
        if len(names) != 1:
            return None
        (name,) = names
        items = (item for partition in self.items.values() for item in self._items_of(partition))
        return [item for item in items if name in item.attrs and item.attrs[name].value == hash_key.value]

    def _items_of(self, partition: Any) -> list[Any]:
        return list(partition.values()) if self.has_range_key else [partition]


@dataclass(frozen=True)
class _Kept:
    """An item of a table as it was before a transaction; None if there was none."""

    table: _Table
    hash_key: Any
    range_key: Any
    item: Any

    def restore(self) -> None:
        """Restores the item as it was before the transaction."""
        if self.item is None:
            self.table.delete_item(self.hash_key, self.range_key)
        elif self.range_key is None:
            self.table.items[self.hash_key] = self.item
        else:
            self.table.items[self.hash_key][self.range_key] = self.item


class _Backend(DynamoDBBackend):
    """The tables of one account in one region."""

    # moto looks for the URLs of a service beside the module of its backend.
    __module__ = DynamoDBBackend.__module__

    def create_table(self, *args: Any, **kwargs: Any) -> Table:
        """Creates a table."""
        table = super().create_table(*args, **kwargs)
        table.__class__ = _Table  # type: ignore[type-abstract] # no ABC
        return table

    def transact_write_items(self, transact_items: list[dict[str, Any]]) -> None:
        """Writes all of the items, or none."""
        kept = [self._keep(action) for action in transact_items]
        if None in kept:
            super().transact_write_items(transact_items)
            return
        items = [item for item in kept if item is not None]
        try:
            for item in items:
                item.table.is_in_transaction = True
            super().transact_write_items(transact_items)
        except Exception:
            for item in items:
                item.restore()
            raise
        finally:
            for item in items:
                item.table.is_in_transaction = False

    def _keep(self, action: dict[str, Any]) -> _Kept | None:
        """Copies the item that an action names. Returns None if moto has to copy its table."""
        name, request = next(iter(action.items()))
        table = self.tables.get(request.get("TableName"))
        keys = request.get("Item" if name == "Put" else "Key", {})
        # The records of a stream are not in the items. An action without a key is refused by moto.
        if not isinstance(table, _Table) or table.stream_shard or not keys.keys() >= {*table.table_key_attrs}:
            return None
        hash_key, range_key = self.get_keys_value(table, keys)
        return _Kept(table, hash_key, range_key, copy.deepcopy(table.get_item(hash_key, range_key)))
