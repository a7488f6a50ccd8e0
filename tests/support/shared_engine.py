"""Runs DynamoDB Local once for a test run, however many processes run the tests.

The process that was called, which is also xdist's controller, starts the engine when the first test asks for
it, and ends it when the run ends. xdist's workers ask over a socket.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from multiprocessing.connection import Client, Listener
from pathlib import Path
from secrets import token_bytes
from typing import Any

from ragcrawl_dynamo.testing import run_dynamodb_local


class SharedEngine:
    """The engine in the process that starts and ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running = ExitStack()
        self._endpoint: str | None = None
        self._listener: Listener | None = None
        self._key = token_bytes(16)

    def endpoint(self) -> str:
        """Returns its URL; starts it if it does not run yet.

        Raises:
            RuntimeError: It is not there, or does not start.
        """
        with self._lock:
            if self._endpoint is None:
                self._endpoint = self._running.enter_context(run_dynamodb_local(self._folder))
            return self._endpoint

    def address(self) -> dict[str, Any]:
        """Returns the arguments that `ask` needs in another process."""
        if self._listener is None:
            self._listener = self._running.enter_context(Listener(("127.0.0.1", 0), authkey=self._key))
            threading.Thread(target=self._answer, args=(self._listener,), daemon=True).start()
        host, port = self._listener.address
        return {"host": host, "port": port, "key": self._key}

    def close(self) -> None:
        """Ends the engine."""
        self._running.close()

    def _answer(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
            except OSError:  # it was closed
                return
            with connection:
                try:
                    connection.send((self.endpoint(), None))
                except RuntimeError as error:
                    connection.send((None, str(error)))


def ask(address: dict[str, Any]) -> str:
    """Asks for the engine's URL, from a worker of xdist.

    Raises:
        RuntimeError: The engine is not there, or does not start.
    """
    with Client((address["host"], address["port"]), authkey=address["key"]) as connection:
        endpoint, error = connection.recv()
    if error is not None:
        raise RuntimeError(error)
    return str(endpoint)
