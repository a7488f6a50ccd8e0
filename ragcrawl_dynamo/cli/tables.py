"""Commands on the tables themselves: to make, look at, migrate and describe them."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from ragcrawl_dynamo import DynamoDBBackend, MigrationProgress
from ragcrawl_dynamo.cli.output import err, out, plain, write_json, write_outcome, write_rows
from ragcrawl_dynamo.cli.session import AsJson, DryRun, Yes, config_of, confirm
from ragcrawl_dynamo.iam import policy
from ragcrawl_dynamo.templates import cloudformation, terraform


class RoleName(StrEnum):
    """Who needs a policy."""

    ADMIN = "admin"
    MIGRATOR = "migrator"
    WORKER = "worker"
    READER = "reader"


class Format(StrEnum):
    """Of a template."""

    CLOUDFORMATION = "cloudformation"
    TERRAFORM = "terraform"


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(init)
    app.command()(status)
    app.command()(migrate)
    app.command("iam-policy")(iam_policy)
    app.command()(template)


def init(
    context: typer.Context,
    create_missing_indexes: Annotated[
        bool, typer.Option(help="Add indexes that tables lack; reads these tables whole.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Makes the tables that are missing."""

    async def work() -> list[str]:
        backend = DynamoDBBackend(config_of(context))
        before, _ = await backend.describe_tables()
        await backend.initialize(create_missing_indexes=create_missing_indexes)
        await backend.close()
        return [each.name for each in before if each.status == "MISSING"]

    made = asyncio.run(work())
    text = f"created {', '.join(made)}" if made else "all tables are there"
    write_outcome({"created": made}, text, as_json=as_json)


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Shows the tables, the version of their schema, and whether they serve requests; exits with 1 if not."""
    found, version = asyncio.run(DynamoDBBackend(config_of(context)).describe_tables())
    healthy = all(each.is_serving for each in found)
    if as_json:
        write_json({"healthy": healthy, "schema_version": version, "tables": [plain(each) for each in found]})
    else:
        columns = ("name", "status", "items", "size_bytes", "billing", "time_to_live")
        write_rows(found, columns, as_json=False, empty="")
        known = "none recorded" if version is None else version
        out.print(f"schema version: {known}; {'healthy' if healthy else '[red]not healthy[/]'}")
        err.print("[dim]DynamoDB counts items and bytes every six hours or so[/]")
    if not healthy:
        raise typer.Exit(1)


def migrate(
    context: typer.Context, yes: Yes = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Brings tables of an older schema version up to this one; may be ended and called again."""
    backend = DynamoDBBackend(config_of(context))
    _, version = asyncio.run(backend.describe_tables())
    own = backend.schema_version
    outcome = {"rewritten": 0, "schema_version": version}
    if version == own:
        write_outcome(outcome, f"the tables are of schema version {own}: nothing to do", as_json=as_json)
        return
    known = version or "that is not recorded"
    if dry_run:
        text = f"would bring the tables from schema version {known} to {own}"
        write_outcome(outcome, text, as_json=as_json)
        return
    confirm(f"Rewrite what is of schema version {known}?", yes=yes)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,} items"), TimeElapsedColumn())
    with Progress(*columns, console=err) as progress:
        bars: dict[str, Any] = {}

        def show(page: MigrationProgress) -> None:
            bar = bars.get(page.table)
            if bar is None:
                bar = bars[page.table] = progress.add_task(page.table, total=None)
            progress.advance(bar, page.seen)

        rewritten = asyncio.run(backend.migrate(show))
    write_outcome(
        {"rewritten": rewritten, "schema_version": own},
        f"rewrote {rewritten:,} items: the tables are of schema version {own}",
        as_json=as_json,
    )


def iam_policy(
    context: typer.Context,
    role: Annotated[RoleName, typer.Argument(help="Who it is for.")],
    account: Annotated[str, typer.Option(help="AWS account of the tables.")] = "*",
    partition: Annotated[str, typer.Option(help="aws-cn or aws-us-gov outside of AWS's main one.")] = "aws",
) -> None:
    """Prints the least that a role has to be allowed, as an IAM policy."""
    _print(policy(config_of(context), role.value, account=account, partition=partition))


def template(
    context: typer.Context,
    kind: Annotated[Format, typer.Argument(help="Save Terraform's as a file *.tf.json.")],
) -> None:
    """Prints the tables as infrastructure code, as `init` would make them."""
    make = cloudformation if kind is Format.CLOUDFORMATION else terraform
    _print(make(config_of(context)))


def _print(document: dict[str, Any]) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
