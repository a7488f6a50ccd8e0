"""Converts Scrapy's requests to frontier items and back, and Python values to JSON and back."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scrapy import Request
from scrapy.utils.misc import load_object
from scrapy.utils.request import request_from_dict

from ragcrawl_dynamo import Frontier, FrontierItem
from ragcrawl_dynamo.adapters.scrapy.crawl import IS_START

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler


# Key in a payload, beside the fields of the request: how often the request has ended with an error.
_ERRORS = "_errors"


class RequestSerializer:
    """Converts the requests of a spider."""

    def __init__(
        self, crawler: Crawler, spider: Spider, frontier: Frontier, *, filters_duplicates: bool = True
    ) -> None:
        # Any: its fingerprinter is None until it crawls.
        self._crawler: Any = crawler
        self._spider = spider
        self._frontier = frontier
        self._filters_duplicates = filters_duplicates

    def key_of(self, request: Request) -> str:
        """Returns the unique key of a request. A request that must not be filtered gets a new one."""
        return secrets.token_hex(16) if self._is_never_filtered(request) else self._fingerprint(request)

    def is_same_work(self, request: Request, other: Request) -> bool:
        """Returns whether a request that a middleware made of a claimed one is crawled under the same claim.

        This is so if Scrapy would not filter it: for retries, and for redirects of requests with
        `dont_filter`. All others are new links, so a page to which many links redirect is fetched once. A
        start request is filtered although it has `dont_filter`, unless it is the same request again.
        """
        if self._is_never_filtered(other):
            return True
        return other.dont_filter and self._fingerprint(request) == self._fingerprint(other)

    def item_of(self, request: Request, unique_key: str) -> FrontierItem:
        """Returns a request as an item for the frontier.

        Args:
            request: The request.
            unique_key: The key of the request, by `key_of`.

        Raises:
            TypeError: It holds a value that cannot be stored.
            ValueError: Its callback is not a method of the spider, or a field cannot be stored.
        """
        return self._frontier.link(
            request.url,
            unique_key=unique_key,
            payload=dumps(request.to_dict(spider=self._spider)),
            depth=int(request.meta.get("depth", 0)),
            priority=float(request.priority),
        )

    def request_of(self, item: FrontierItem) -> Request:
        """Returns the request of an item.

        An item without a payload was not added by Scrapy. Its request has only a URL and a depth.

        Raises:
            Exception: The payload is not a request. The request's class and the spider may raise any error.
        """
        if item.payload is None:
            return Request(item.url, meta={"depth": item.depth})
        fields = loads(item.payload)
        class_name = fields.get("_class")
        if class_name is not None and not issubclass(load_object(class_name), Request):
            raise ValueError(f"its class {class_name} is not a subclass of scrapy.Request")
        return request_from_dict(fields, spider=self._spider)

    def _is_never_filtered(self, request: Request) -> bool:
        # A page that redirects to itself over others, for example to set a cookie, is crawled again.
        is_back = request.url in request.meta.get("redirect_urls", ())
        is_start = bool(request.meta.get(IS_START)) and not is_back
        return (request.dont_filter or not self._filters_duplicates) and not is_start

    def _fingerprint(self, request: Request) -> str:
        fingerprint: bytes = self._crawler.request_fingerprinter.fingerprint(request)
        return fingerprint.hex()


def errors_of(item: FrontierItem) -> int:
    """Returns how often the request of an item has ended with an error."""
    return 0 if item.payload is None else int(loads(item.payload).get(_ERRORS, 0))


def payload_with_errors(item: FrontierItem, errors: int) -> str:
    """Returns the payload of an item, with the number of its errors."""
    fields = (
        loads(item.payload) if item.payload is not None else {"url": item.url, "meta": {"depth": item.depth}}
    )
    return dumps({**fields, _ERRORS: errors})


def dumps(value: Any) -> str:
    """Returns a value as JSON, from which `loads` makes an equal value of the same type.

    Raises:
        TypeError: The value holds something else than None, bools, numbers, text, bytes, datetimes, lists,
            tuples, sets and dicts.
    """
    return json.dumps(_to_plain(value), ensure_ascii=False, separators=(",", ":"))


def loads(text: str) -> Any:
    """Returns the value that `dumps` has encoded."""
    return _from_plain(json.loads(text))


def _to_plain(value: Any) -> Any:
    """Returns a value that JSON can store. Other types become a dict with one key, which begins with `$`."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case datetime():
            # The ISO format has no place for a datetime's fold.
            return {"$folded" if value.fold else "$datetime": value.isoformat()}
        case list():
            return [_to_plain(member) for member in value]
        case tuple():
            return {"$tuple": [_to_plain(member) for member in value]}
        case set():
            return {"$set": [_to_plain(member) for member in value]}
        case dict():
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: _to_plain(member) for key, member in value.items()}
            return {"$dict": [[_to_plain(key), _to_plain(member)] for key, member in value.items()]}
    raise TypeError(
        f"a value of type {type(value).__name__} cannot be stored: use None, bools, numbers, text, bytes, "
        f"datetimes, lists, tuples, sets and dicts"
    )


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(member) for member in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, content),) = value.items()
        match kind:
            case "$bytes":
                return base64.b64decode(content)
            case "$datetime":
                return datetime.fromisoformat(content)
            case "$folded":
                return datetime.fromisoformat(content).replace(fold=1)
            case "$tuple":
                return tuple(_from_plain(member) for member in content)
            case "$set":
                return {_from_plain(member) for member in content}
            case "$dict":
                return {_from_plain(key): _from_plain(member) for key, member in content}
    return {key: _from_plain(member) for key, member in value.items()}
