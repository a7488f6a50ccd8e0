"""An AWS Lambda function that saves pages from an SQS queue, and reports the messages that it could not save.

A Lambda process serves many invocations. A backend works in one event loop only, and `asyncio.run` creates a
new loop for every call. The function therefore keeps its loop, and with it the backend and its connections: a
warm invocation opens no connection.

The role of the function needs the policy that `ragcrawl-dynamo iam-policy worker` prints. The event source
mapping of the queue needs "ReportBatchItemFailures".
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
    """Returns the event loop of this process."""
    return asyncio.new_event_loop()


@cache
def backend() -> StorageBackend:
    """Returns the backend of this process. It creates no tables, which keeps a cold start short."""
    storage = create_storage_backend(StorageConfig.from_env())
    assert isinstance(storage, DynamoDBBackend)  # noqa: S101 # the only implementation
    loop().run_until_complete(storage.initialize(create_tables=False))
    return storage


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Saves a page for each message. SQS delivers the messages that failed again."""
    return loop().run_until_complete(store(backend(), event["Records"]))


async def store(storage: StorageBackend, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Saves all pages concurrently, which batches them into few requests; returns the failed messages."""
    outcomes = await asyncio.gather(*(save(storage, record["body"]) for record in records))
    failed = [record["messageId"] for record, done in zip(records, outcomes, strict=True) if not done]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


async def save(storage: StorageBackend, body: str) -> bool:
    """Returns whether a message is done: its page was saved, or it can never be saved."""
    try:
        await storage.save_page(Page(**json.loads(body)))
    except (InvalidInputError, ValueError, TypeError) as error:
        print(f"dropped: {error}")
    except RagcrawlDynamoError as error:
        print(f"again later: {error}")
        return False
    return True
