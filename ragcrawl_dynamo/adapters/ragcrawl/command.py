"""Runs ragcrawl's own command line on DynamoDB. In ragcrawl 0.0.2 it works on DuckDB only."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Self

import click
from ragcrawl.cli.main import app
from ragcrawl.config import storage_config
from ragcrawl.config.user_config import UserConfig

# Imported before the classes of `storage_config` are replaced, since these modules name them.
from ragcrawl.core import crawl_job, sync_job  # noqa: F401
from typing_extensions import override

from ragcrawl_dynamo import DynamoDBConfig, RagcrawlDynamoError
from ragcrawl_dynamo.adapters.ragcrawl.backend import RagcrawlBackend
from ragcrawl_dynamo.adapters.ragcrawl.factory import replace_backend

# The one command that creates missing tables, as it creates a missing file of DuckDB.
_CREATES_TABLES = "crawl"


def run(config: DynamoDBConfig, args: list[str]) -> None:
    """Runs a command of ragcrawl, which stores in these tables, and ends the process.

    Raises:
        RagcrawlDynamoError: The command could not use the tables.
    """
    replace_backend(partial(_CommandBackend, config, creates_tables=args[:1] == [_CREATES_TABLES]))
    _use_dynamodb(config)
    _hide_storage_option(app)
    # ragcrawl configures logging itself, unless there are handlers already.
    logging.getLogger().handlers.clear()
    try:
        app(args, prog_name="ragcrawl-dynamo ragcrawl")
    except RuntimeError as error:
        # ragcrawl's factory of backends raises it.
        if isinstance(error.__cause__, RagcrawlDynamoError):
            raise error.__cause__ from None
        raise


class _CommandBackend(RagcrawlBackend):
    """Stores in the tables of the command, and ignores ragcrawl's settings."""

    def __init__(self, config: DynamoDBConfig, settings: object, *, creates_tables: bool) -> None:
        super().__init__(config, create_tables=creates_tables)

    @override
    def health_check(self) -> bool:
        # ragcrawl's factory shows the error.
        self.check()
        return True


class _Tables:
    """Replaces the path of DuckDB's file: the commands print it, and create its folder."""

    def __init__(self, config: DynamoDBConfig) -> None:
        self._text = (
            f"DynamoDB tables {config.table_prefix}* at {config.endpoint_url or config.region or 'AWS'}"
        )

    def __str__(self) -> str:
        return self._text

    @property
    def parent(self) -> Self:
        return self

    def exists(self) -> bool:
        return True

    def mkdir(self, **_: Any) -> None:
        """Does nothing."""


def _use_dynamodb(config: DynamoDBConfig) -> None:
    """Makes the commands of ragcrawl use DynamoDB instead of DuckDB, for the rest of the process."""
    tables = _Tables(config)
    settings = storage_config.DynamoDBConfig(
        table_prefix=config.table_prefix.removesuffix("_"), endpoint_url=config.endpoint_url
    )
    if config.region is not None:
        settings.region = config.region
    replaced: Any = storage_config
    replaced.DuckDBConfig = lambda path: settings
    replaced.StorageConfig = partial(storage_config.StorageConfig, fail_if_unavailable=True)
    of_user: Any = UserConfig
    of_user.db_path = property(lambda _: tables)


def _hide_storage_option(group: click.Group) -> None:
    """Hides the option for the path of DuckDB's file from all commands, and refuses it."""
    for command in group.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name == "storage":
                parameter.hidden = True
                parameter.callback = _refuse_path


def _refuse_path(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.BadParameter("options before `ragcrawl` choose the tables, such as --table-prefix")
