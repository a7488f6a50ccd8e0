"""An AWS Lambda function that stores pages from an SQS queue, and says which messages have to come again.

A Lambda's process serves many invocations, but each `asyncio.run` is an event loop of its own, to which a
backend belongs. So the loop is kept, and with it the backend and its connections: a warm invocation opens
nothing.

The function's role needs the policy `ragcrawl-dynamo iam-policy worker`; the queue "ReportBatchItemFailures".
"""

import asyncio
import json
from functools import cache
from typing import Any

from ragcrawl_dynamo import (
    DynamoDBBackend,
    InvalidInputError,
    Page,
    RagcrawlDynamoError,
    StorageBackend,
    StorageConfig,
    create_storage_backend,
)


@cache
def loop() -> asyncio.AbstractEventLoop:
    """The one of this process."""
    return asyncio.new_event_loop()


@cache
def backend() -> StorageBackend:
    """Likewise; the tables are made elsewhere, so that a cold start has little to ask."""
    made = create_storage_backend(StorageConfig.from_env())
    assert isinstance(made, DynamoDBBackend)  # noqa: S101 # the only one that there is
    loop().run_until_complete(made.initialize(create_tables=False))
    return made


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Stores a page for each message; what could not be stored comes again, by itself."""
    return loop().run_until_complete(store(backend(), event["Records"]))


async def store(storage: StorageBackend, records: list[dict[str, Any]]) -> dict[str, Any]:
    """All at once: saves of one moment travel in one request."""
    outcomes = await asyncio.gather(*(save(storage, each["body"]) for each in records))
    failed = [each["messageId"] for each, done in zip(records, outcomes, strict=True) if not done]
    return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}


async def save(storage: StorageBackend, body: str) -> bool:
    """Whether a message is done with: stored, or such as no other try would make storable."""
    try:
        await storage.save_page(Page(**json.loads(body)))
    except (InvalidInputError, ValueError, TypeError) as error:
        print(f"dropped: {error}")
    except RagcrawlDynamoError as error:
        print(f"again later: {error}")
        return False
    return True
