"""Chooses the engine of the demo: AWS's DynamoDB Local if it is installed, and moto otherwise."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ragcrawl_dynamo.testing import local_dynamodb

ENGINES = ("auto", "moto", "dynamodb-local")

# Where `make fetch-dynamodb-local` puts it.
DYNAMODB_LOCAL = Path(__file__).parent.parent / ".dynamodb-local"

# The demo ends before the best optimizations of Java pay.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@dataclass(frozen=True)
class Engine:
    """A DynamoDB engine that runs.

    Attributes:
        name: "moto", "dynamodb-local" or "aws".
        endpoint: Its URL; None for AWS's own.
        description: A description of the engine, and the reason for its choice.
    """

    name: str
    endpoint: str | None
    description: str


@asynccontextmanager
async def run_engine(name: str) -> AsyncIterator[Engine]:
    """Runs an engine on this machine.

    Args:
        name: "moto", "dynamodb-local", or "auto": DynamoDB Local if it starts, and moto otherwise.

    Raises:
        RuntimeError: The engine did not start.
    """
    why = "as asked for"
    async with AsyncExitStack() as stack:
        if name != "moto":
            os.environ.setdefault("JAVA_TOOL_OPTIONS", JAVA_OPTIONS)
            try:
                endpoint = await stack.enter_async_context(local_dynamodb(DYNAMODB_LOCAL))
            except RuntimeError as error:
                if name == "dynamodb-local":
                    raise
                why = f"since {error}".partition(":")[0]
            else:
                why = f"since Java and {DYNAMODB_LOCAL.name} are here" if name == "auto" else why
                yield Engine("dynamodb-local", endpoint, f"DynamoDB Local, AWS's own engine, {why}")
                return
        endpoint = await stack.enter_async_context(local_dynamodb())
        yield Engine("moto", endpoint, f"moto, embedded in this process, {why}")


def known_engine(endpoint: str | None, region: str | None) -> Engine:
    """Returns the engine of the command line's options. A local endpoint is taken for DynamoDB Local."""
    if urlsplit(endpoint or "").hostname in ("127.0.0.1", "localhost", "::1"):
        return Engine("dynamodb-local", endpoint, f"DynamoDB Local at {endpoint}, as asked for")
    return Engine("aws", endpoint, f"AWS at {endpoint or region}, as asked for")
