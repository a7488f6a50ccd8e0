"""An AWS Lambda function that saves pages from an SQS queue, and reports the messages that it could not save.

A Lambda process serves many invocations. A backend works in one event loop only, and `asyncio.run` creates a
new loop for every call. The function therefore keeps its loop, and with it the store and its connections: a
warm invocation opens no connection.

The role of the function needs the policy that `ragcrawl-dynamo iam-policy worker` prints. The event source
mapping of the queue needs "ReportBatchItemFailures".
"""

import asyncio
import json
from functools import cache
from typing import Any

from ragcrawl_dynamo import InvalidInputError, Page, RagcrawlDynamoError, Store, connect


@cache
def loop() -> asyncio.AbstractEventLoop:
    """Returns the event loop of this process."""
    return asyncio.new_event_loop()


@cache
def store() -> Store:
    """Returns the store of this process. It creates no tables, which keeps a cold start short."""
    opened = connect()
    loop().run_until_complete(opened.initialize(create_tables=False))
    return opened


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Saves a page for each message. SQS delivers the messages that failed again."""
    return loop().run_until_complete(save_all(store(), event["Records"]))


async def save_all(store: Store, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Saves all pages concurrently, which batches them into few requests; returns the failed messages."""
    outcomes = await asyncio.gather(*(save(store, record["body"]) for record in records))
    failed = [record["messageId"] for record, done in zip(records, outcomes, strict=True) if not done]
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


async def save(store: Store, body: str) -> bool:
    """Returns whether a message is done: its page was saved, or it can never be saved."""
    try:
        await store.save_page(Page(**json.loads(body)))
    except (InvalidInputError, ValueError, TypeError) as error:
        print(f"dropped: {error}")
    except RagcrawlDynamoError as error:
        print(f"again later: {error}")
        return False
    return True
