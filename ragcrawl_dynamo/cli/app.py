"""The command's root: options that say which tables, the groups of commands, and errors in one sentence."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from ragcrawl_dynamo import DynamoDBConfig, RagcrawlDynamoError
from ragcrawl_dynamo._utils.validation import first_of
from ragcrawl_dynamo.cli import content, runs, tables
from ragcrawl_dynamo.cli.output import err

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Looks after crawl storage in DynamoDB.",
    epilog="Every setting can also come from the environment, as RAGCRAWL_DYNAMO_TABLE_PREFIX and so on.",
)
tables.add_to(app)
content.add_to(app)
runs.add_to(app)


@app.callback()
def choose(
    context: typer.Context,
    table_prefix: Annotated[
        str | None, typer.Option(help="Prefix of the tables' names.", show_default="ragcrawl_")
    ] = None,
    region: Annotated[str | None, typer.Option(help="AWS region.", show_default="us-east-1")] = None,
    endpoint_url: Annotated[
        str | None, typer.Option(help="Of DynamoDB Local, say; AWS's own by default.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Section of the shared AWS configuration.")] = None,
    content_bucket: Annotated[str | None, typer.Option(help="S3 bucket of large bodies.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
) -> None:
    """Reads the settings."""
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    given = {
        "table_prefix": table_prefix,
        "region": region,
        "endpoint_url": endpoint_url,
        "profile": profile,
        "content_bucket": content_bucket,
    }
    overrides: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    context.obj = DynamoDBConfig.from_env(**overrides)


def run(args: list[str] | None = None) -> None:
    """Runs the command and ends the process: 0 for success, 1 for an error or a no, 2 for wrong usage."""
    try:
        app(args)
    except ValidationError as error:
        field, why = first_of(error)
        _fail(f"{field or 'settings'}: {why}")
    except (RagcrawlDynamoError, OSError) as error:
        _fail(str(error))


def _fail(reason: str) -> NoReturn:
    err.print("[bold red]error:[/]", end=" ")
    err.print(reason, markup=False, soft_wrap=True)
    sys.exit(1)
