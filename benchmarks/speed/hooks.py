"""Measures how much CPU each part of the tuned client saves, on the canned endpoint (`make bench-hooks`).

One process. A round runs a few requests with each client, in random order, so that a drift of the machine
meets all of them. docs/speed.md shows the medians over the rounds: client CPU as a part of that of the plain
client, and in microseconds a request.
"""

import argparse
import asyncio
import gc
import random
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from benchmarks.machine import markdown
from benchmarks.report import Origin, Part, is_full, save
from benchmarks.speed.run import TABLE, canned
from benchmarks.speed.subject import as_text, make_pages
from ragcrawl_dynamo import Page
from ragcrawl_dynamo._dynamodb import fast_path
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.connections import SessionMaker
from ragcrawl_dynamo._schema.tables import PAGES

STEPS = ("plain aioboto3", "settings, marshalling", "and the parser", "and the encoder", "and the short way")

# Requests of a round, and rounds for one `--rounds`.
REQUESTS = {"PutItem": (10, 20), "BatchWriteItem": (4, 10), "BatchGetItem": (2, 5), "Query": (1, 2)}

# Rounds that warm up.
WARM_UP = 3


@asynccontextmanager
async def open_step(step: int, endpoint: str) -> AsyncIterator[Any]:
    """Opens a client with all parts up to a step."""
    botocore_session = AioSession()
    if step >= 2:
        fast_path.tune_session(botocore_session)
    session = aioboto3.Session(
        botocore_session=botocore_session,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        region_name="us-east-1",
    )
    make_http_session = SessionMaker()
    ours = AioConfig(
        parameter_validation=False,
        user_agent="ragcrawl-dynamo",
        retries={"total_max_attempts": 1},
        http_session_cls=make_http_session,
    )
    config = AioConfig() if step == 0 else ours
    async with session.client("dynamodb", endpoint_url=endpoint, config=config) as client:
        if step >= 3:
            fast_path.encode_with_orjson(client)
        if step >= 4:
            fast_path.shorten_way(client, make_http_session.session)
        yield client


class Load:
    """Sends requests as plain clients do, or as this package does."""

    def __init__(self) -> None:
        self._pages = make_pages(1000)
        self._models = [Page(**page) for page in self._pages]
        self._texts = [as_text(page) for page in self._pages]
        self._keys = [
            {"site_id": {"S": "docs"}, "page_id": {"S": str(page["page_id"])}} for page in self._pages
        ]
        self._serialize = TypeSerializer().serialize
        self._deserialize = TypeDeserializer().deserialize

    async def run(self, client: Any, operation: str, *, is_plain: bool) -> None:
        """Runs a round of one operation."""

        def item(i: int) -> Any:
            if is_plain:
                return {name: self._serialize(value) for name, value in self._texts[i % 1000].items()}
            return to_item(PAGES, self._models[i % 1000])

        def read(items: list[Any]) -> None:
            for stored in items:
                if is_plain:
                    _ = {name: self._deserialize(value) for name, value in stored.items()}
                else:
                    from_item(PAGES, stored)

        for i in range(REQUESTS[operation][0]):
            if operation == "PutItem":
                await client.put_item(TableName=TABLE, Item=item(i))
            elif operation == "BatchWriteItem":
                writes = [{"PutRequest": {"Item": item(25 * i + j)}} for j in range(25)]
                await client.batch_write_item(RequestItems={TABLE: writes})
            elif operation == "BatchGetItem":
                keys = self._keys[100 * (i % 10) : 100 * (i % 10) + 100]
                answer = await client.batch_get_item(RequestItems={TABLE: {"Keys": keys}})
                read(answer["Responses"][TABLE])
            else:
                answer = await client.query(
                    TableName=TABLE,
                    KeyConditionExpression="site_id = :s",
                    ExpressionAttributeValues={":s": {"S": "docs"}},
                )
                read(answer["Items"])


async def measure(endpoint: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Returns by operation, for each step, the median ratio and the median seconds of a request."""
    load = Load()
    measured: dict[str, list[tuple[float, float]]] = {}
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_step(i, endpoint)) for i in range(len(STEPS))]
        for operation, (requests, rounds_of_one) in REQUESTS.items():
            seconds: list[list[float]] = [[] for _ in STEPS]
            for _ in range(rounds * rounds_of_one + WARM_UP):
                gc.collect()
                gc.disable()
                for i in random.sample(range(len(STEPS)), len(STEPS)):
                    before = time.process_time()
                    await load.run(clients[i], operation, is_plain=i == 0)
                    seconds[i].append((time.process_time() - before) / requests)
                gc.enable()
            kept = [of_step[WARM_UP:] for of_step in seconds]
            measured[operation] = [
                (
                    statistics.median(ours / plain for ours, plain in zip(of_step, kept[0], strict=True)),
                    statistics.median(of_step),
                )
                for of_step in kept
            ]
    return measured


def ratios(figures: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    """Formats the ratios as a table, with microseconds of a request where they are stored."""

    def cell(ratio: float, seconds: float | None = None) -> str:
        return f"{ratio:.2f}" + ("" if seconds is None else f" ({seconds * 1e6:,.0f} µs)")

    rows = [
        [name, *(cell(*steps[number]) for steps in figures.values())] for number, name in enumerate(STEPS)
    ]
    return markdown([["client CPU, plain = 1", *figures], *rows])


PARTS: dict[str, Part] = {"ratios": ratios}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures how much CPU each part of the tuned client saves.")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    origin = Origin.here("make bench-hooks", engine=False)
    with canned(0.0) as url:
        result = asyncio.run(measure(url, args.rounds))
    print("\n".join(ratios(result)))
    if is_full(parser, args):
        save("hooks", origin, result)
