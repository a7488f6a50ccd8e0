"""Runs a simulation in a process of its own, and controls it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import orjson

from tests.support.aws.proxy import CONTROL
from tests.support.aws.settings import Settings

_ROOT = Path(__file__).parents[3]


class RunningAWS:
    """A simulation in another process.

    Attributes:
        url: Its endpoint.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def configure(self, settings: Settings) -> None:
        """Changes its settings, from the next request on."""
        self._control(orjson.dumps(settings.as_json()))

    def events(self) -> dict[str, int]:
        """Returns the number of events by kind."""
        events: dict[str, int] = self._control(None)
        return events

    def _control(self, body: bytes | None) -> dict[str, int]:
        with urlopen(Request(self.url + CONTROL, data=body)) as response:  # noqa: S310 # on loopback
            events: dict[str, int] = orjson.loads(response.read())
            return events


@contextmanager
def run_simulated_aws(endpoint: str, settings: Settings) -> Iterator[RunningAWS]:
    """Runs `python -m tests.support.aws` before the engine at `endpoint` until the context ends."""
    command = [sys.executable, "-m", "tests.support.aws", endpoint, orjson.dumps(settings.as_json()).decode()]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the simulation did not start"
            yield RunningAWS(url)
        finally:
            process.terminate()
