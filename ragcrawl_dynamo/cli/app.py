"""The root of the command: options that select the tables, the groups of commands, and error messages."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from ragcrawl_dynamo import DynamoDBConfig, RagcrawlDynamoError
from ragcrawl_dynamo._utils.validation import first_of
from ragcrawl_dynamo.cli import content, engine, ragcrawl, runs, tables
from ragcrawl_dynamo.cli.output import fail

app: typer.Typer = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Manages the tables and records of a crawler in DynamoDB.",
    epilog="An environment variable can set each setting, such as RAGCRAWL_DYNAMO_TABLE_PREFIX.",
)
tables.add_to(app)
content.add_to(app)
runs.add_to(app)
ragcrawl.add_to(app)
engine.add_to(app)


@app.callback()
def choose(
    context: typer.Context,
    table_prefix: Annotated[
        str | None, typer.Option(help="Prefix of the table names.", show_default="ragcrawl_")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="AWS region.", show_default="AWS_REGION, the profile's, or us-east-1"),
    ] = None,
    endpoint_url: Annotated[
        str | None, typer.Option(help="URL of an endpoint other than that of AWS, such as DynamoDB Local's.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Profile in the shared AWS configuration files.")
    ] = None,
    content_bucket: Annotated[str | None, typer.Option(help="S3 bucket for large bodies.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log the steps of the command.")] = False,
) -> None:
    """Reads the settings from the options and the environment."""
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    options = {
        "table_prefix": table_prefix,
        "region": region,
        "endpoint_url": endpoint_url,
        "profile": profile,
        "content_bucket": content_bucket,
    }
    overrides: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    context.obj = DynamoDBConfig.from_env(**overrides)


def run(args: list[str] | None = None) -> None:
    """Runs the command. Exit codes: 0 success, 1 error or declined question, 2 wrong usage."""
    try:
        app(args)
    except ValidationError as error:
        field, why = first_of(error, with_value=False)
        fail(f"{field or 'settings'}: {why}")
    except RagcrawlDynamoError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
