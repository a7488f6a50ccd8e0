"""Makes the connections of clients, and closes those whose process or event loop is gone."""

from __future__ import annotations

import gc
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from ragcrawl_dynamo._dynamodb.http_session import VerifyingSession

# The connections of this process, and those that a parent had opened before it forked this process.
_sessions: WeakSet[Any] = WeakSet()
_sockets: WeakSet[socket.socket] = WeakSet()
_inherited: list[Any] = []


class SessionMaker:
    """Makes the HTTP session of a client, as the setting `http_session_cls`, and keeps it.

    Attributes:
        session: The session, once the client is made.
    """

    session: Any = None

    def __call__(self, **settings: Any) -> Any:
        """Makes the session."""
        connector_args = {**(settings.get("connector_args") or {}), "socket_factory": _make_socket}
        self.session = VerifyingSession(**{**settings, "connector_args": connector_args})
        _sessions.add(self.session)
        return self.session


@contextmanager
def without_event_loop() -> Iterator[None]:
    """Lets a client be closed whose event loop was closed before it, and closes its connections."""
    with warnings.catch_warnings():
        # asyncio warns of each connection: only an event loop can close one.
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        # Python's garbage collector closes them, since they refer to each other. `asyncio.run` has closed
        # them already; older ways to end an event loop have not.
        if any(connection.fileno() >= 0 for connection in _sockets):
            gc.collect()


def _make_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    _sockets.add(made)
    return made


def _disconnect() -> None:
    """Cuts off a forked process from the connections of its parent.

    Without it, the child takes answers that the parent waits for: both read from the same connections. If the
    child closes one of them, or only forgets it, asyncio removes it from the selector, which both share too.
    """
    # aiohttp complains of sessions that are forgotten before they are closed.
    _inherited.extend(_sessions)
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for connection in _sockets:
            # A socket that is closed has no number.
            if connection.fileno() >= 0:
                os.dup2(nothing, connection.fileno(), inheritable=False)
    finally:
        os.close(nothing)


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disconnect)
