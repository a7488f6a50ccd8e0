"""Runs a simulated AWS until it is ended: `python -m tests.support.aws ENDPOINT [SETTINGS] [PORT]`.

ENDPOINT is that of DynamoDB Local, SETTINGS a JSON object with the fields of `Settings`. It prints its URL.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import orjson

from tests.support.aws.proxy import SimulatedAWS
from tests.support.aws.settings import Settings


async def main(endpoint: str, settings: str = "{}", port: str = "0") -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    aws = SimulatedAWS(endpoint, Settings.from_json(orjson.loads(settings)))
    async with aws.serve(int(port)) as url:
        print(url, flush=True)
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
