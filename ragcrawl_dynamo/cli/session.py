"""Shared parts of the commands: common options, opening a backend, questions and missing records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, NotFoundError

T = TypeVar("T")

# How many sites an error names.
_SITES_NAMED = 10

# How many times a command sends a request, unless the environment says otherwise.
_ATTEMPTS = 8

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one line for each record.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")]
Limit = Annotated[int, typer.Option(min=1, help="The largest number of records.")]
SiteId = Annotated[str, typer.Argument(metavar="SITE", help="Id of a site.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.")]
LatestRun = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="Id of a run.", show_default="the latest one")
]
Url = Annotated[
    str, typer.Argument(metavar="URL", help="URL of a page, in any form with the same normalized URL.")
]


def config_of(context: typer.Context) -> DynamoDBConfig:
    """Returns the settings from the options before the command and the environment.

    A user waits for the answer: retries end after some seconds, not after `call_timeout`.
    """
    config = settings_of(context)
    if config.retry_attempts is None:
        config = config.model_copy(update={"retry_attempts": _ATTEMPTS})
    return config


def settings_of(context: typer.Context) -> DynamoDBConfig:
    """Returns the same settings for a command that runs for long: retries end after `call_timeout`."""
    config: DynamoDBConfig = context.find_root().obj
    return config


def using(context: typer.Context, work: Callable[[DynamoDBBackend], Awaitable[T]]) -> T:
    """Calls `work` with a backend on existing tables, and returns its result. Only `init` creates tables."""

    async def use() -> T:
        backend = DynamoDBBackend(config_of(context))
        await backend.initialize(create_tables=False)
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(use())


def confirm(question: str, *, yes: bool) -> None:
    """Asks the user for confirmation, unless `yes` is set.

    Raises:
        typer.Abort: The user declined, or there is no user to ask.
    """
    if not yes:
        typer.confirm(question, abort=True, err=True)


def required(record: T | None, name: str) -> T:
    """Returns a record that must exist.

    Raises:
        NotFoundError: It does not exist.
    """
    if record is None:
        raise NotFoundError(f"there is no {name}")
    return record


async def require_site(backend: DynamoDBBackend, site_id: str) -> None:
    """Checks that a site is stored, after nothing was found in it.

    Raises:
        NotFoundError: It is not; the error names the sites that are.
    """
    if await backend.get_site(site_id) is not None:
        return
    sites = await backend.list_sites(limit=_SITES_NAMED)
    names = ", ".join(site.site_id for site in sites) + ("" if sites.cursor is None else ", ...")
    known = f"the sites are: {names}" if sites else "there are no sites"
    raise NotFoundError(f"there is no site {site_id!r}; {known}")
