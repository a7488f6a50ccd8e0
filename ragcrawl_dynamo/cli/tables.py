"""Commands on the tables: create, show and migrate them, and generate policies and templates."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from ragcrawl_dynamo import DynamoDBBackend, MigrationProgress
from ragcrawl_dynamo.cli.output import err, note, out, plain, say, write_json, write_outcome, write_rows
from ragcrawl_dynamo.cli.session import AsJson, DryRun, Yes, config_of, confirm
from ragcrawl_dynamo.iam import policy
from ragcrawl_dynamo.templates import cloudformation, terraform


class RoleName(StrEnum):
    """The roles that have an IAM policy."""

    ADMIN = "admin"
    MIGRATOR = "migrator"
    WORKER = "worker"
    READER = "reader"


class Format(StrEnum):
    """The formats of a template."""

    CLOUDFORMATION = "cloudformation"
    TERRAFORM = "terraform"


def add_to(app: typer.Typer) -> None:
    """Adds the commands to an app."""
    app.command()(init)
    app.command()(status)
    app.command()(migrate)
    app.command("iam-policy")(iam_policy)
    app.command()(template)


def init(
    context: typer.Context,
    create_missing_indexes: Annotated[
        bool, typer.Option(help="Add missing global indexes. DynamoDB reads the whole table to build one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Creates the tables that are missing."""

    async def work() -> list[str]:
        backend = DynamoDBBackend(config_of(context))
        before, _ = await backend.describe_tables()
        await backend.initialize(create_missing_indexes=create_missing_indexes)
        await backend.close()
        return [table.name for table in before if table.status == "MISSING"]

    created = asyncio.run(work())
    text = f"created {', '.join(created)}" if created else "all tables exist already"
    write_outcome({"created": created}, text, as_json=as_json)


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Shows where the tables are, their schema version, and where they differ from the settings.

    The exit code is 1 if a table does not serve requests.
    """
    backend = DynamoDBBackend(config_of(context))
    tables, version = asyncio.run(backend.describe_tables())
    destination = backend.find_destination()
    healthy = all(table.is_serving for table in tables)
    if as_json:
        records = [plain(table) for table in tables]
        where = plain(destination)
        write_json({"healthy": healthy, "schema_version": version, **where, "tables": records})
    else:
        columns = ("name", "status", "items", "size_bytes", "billing", "time_to_live")
        write_rows(tables, columns, as_json=False, empty="")
        for table in tables:
            for difference in table.differences:
                out.print(difference, markup=False, soft_wrap=True)
        known = "not recorded" if version is None else version
        out.print(str(destination), markup=False, highlight=False, soft_wrap=True)
        out.print(f"schema version: {known}; {'healthy' if healthy else '[red]not healthy[/]'}")
        note("DynamoDB updates the numbers of items and bytes about every six hours")
        if any(table.status == "MISSING" for table in tables):
            say("`init` creates the tables that are missing; if they exist, check table_prefix and region")
    if not healthy:
        raise typer.Exit(1)


def migrate(
    context: typer.Context, yes: Yes = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Upgrades tables of an older schema version. No run may be open. If it is interrupted, run it again."""
    backend = DynamoDBBackend(config_of(context))
    _, version = asyncio.run(backend.describe_tables())
    wanted = backend.schema_version
    outcome = {"rewritten": 0, "schema_version": version}
    if version == wanted:
        write_outcome(outcome, f"the tables have schema version {wanted}: nothing to do", as_json=as_json)
        return
    known = "an unrecorded schema version" if version is None else f"schema version {version}"
    if dry_run:
        text = f"would upgrade the tables from {known} to {wanted}"
        write_outcome(outcome, text, as_json=as_json)
        return
    confirm(f"Upgrade the tables from {known} to {wanted}?", yes=yes)
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
        {"rewritten": rewritten, "schema_version": wanted},
        f"rewrote {rewritten:,} items: the tables have schema version {wanted}",
        as_json=as_json,
    )


def iam_policy(
    context: typer.Context,
    role: Annotated[RoleName, typer.Argument(help="Role that gets the policy.")],
    account: Annotated[str, typer.Option(help="AWS account of the tables; any by default.")] = "*",
    partition: Annotated[
        str | None, typer.Option(help="AWS partition, such as aws-us-gov.", show_default="that of the region")
    ] = None,
) -> None:
    """Prints the least-privilege IAM policy of a role."""
    _print(policy(config_of(context), role.value, account=account, partition=partition))


def template(
    context: typer.Context,
    kind: Annotated[
        Format, typer.Argument(help="Format of the code. Save that of Terraform as a file *.tf.json.")
    ],
) -> None:
    """Prints infrastructure code for the tables that `init` would create."""
    make = cloudformation if kind is Format.CLOUDFORMATION else terraform
    _print(make(config_of(context)))


def _print(document: dict[str, Any]) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
