"""Keeps session tokens, signatures and stored data of our requests out of botocore's DEBUG logs.

botocore's loggers belong to the whole process: other clients use them too. So the filter here drops a record
only if one of our requests is under way in the task that logs it. The filter is removed with the last client.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# At DEBUG these log session tokens, signatures and stored data.
_LOGGERS = ("botocore.auth", "botocore.endpoint", "botocore.parsers")

_is_our_request: ContextVar[bool] = ContextVar("ragcrawl_dynamo_is_our_request", default=False)

# Clients of different event loops open and close in different threads.
_lock = threading.Lock()
_clients = 0


@contextmanager
def filtered_logs() -> Iterator[None]:
    """Installs the filter while a client is open; the last client removes it."""
    _count_client(1)
    try:
        yield
    finally:
        _count_client(-1)


@contextmanager
def silent_request() -> Iterator[None]:
    """Marks the current task as one that sends a request of ours: its DEBUG records are dropped."""
    token = _is_our_request.set(True)
    try:
        yield
    finally:
        _is_our_request.reset(token)


def _count_client(change: int) -> None:
    global _clients
    with _lock:
        _clients += change
        for name in _LOGGERS:
            # Adding a filter twice adds it once.
            if _clients:
                logging.getLogger(name).addFilter(_is_loggable)
            else:
                logging.getLogger(name).removeFilter(_is_loggable)


def _is_loggable(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG or not _is_our_request.get()
