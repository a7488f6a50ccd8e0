"""What all commands share: which tables, how to open them, how to ask, how to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, NotFoundError

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="JSON, a line for each record.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
SiteId = Annotated[str, typer.Argument(metavar="SITE", help="Id of a site.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.")]
Url = Annotated[str, typer.Argument(metavar="URL", help="URL of a page, in any form that normalizes to it.")]


def config_of(context: typer.Context) -> DynamoDBConfig:
    """The settings that the options before the command and the environment make."""
    config: DynamoDBConfig = context.find_root().obj
    return config


def using(context: typer.Context, work: Callable[[DynamoDBBackend], Awaitable[T]]) -> T:
    """The result of work with a backend on tables that are there: no command but `init` makes any."""

    async def use() -> T:
        backend = DynamoDBBackend(config_of(context))
        await backend.initialize(create_tables=False)
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(use())


def confirm(question: str, *, yes: bool) -> None:
    """Goes on if the user says so.

    Raises:
        typer.Abort: They do not, or there is nobody to ask.
    """
    if not yes:
        typer.confirm(question, abort=True, err=True)


def found(record: T | None, what: str) -> T:
    """A record that has to be there.

    Raises:
        NotFoundError: It is not.
    """
    if record is None:
        raise NotFoundError(f"there is no {what}")
    return record
