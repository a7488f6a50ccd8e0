"""The command that runs ragcrawl's own command line on the tables."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from ragcrawl_dynamo.cli.output import say
from ragcrawl_dynamo.cli.session import settings_of

# The command line of ragcrawl, which has the same name as this module's command, needs its crawler.
_ADAPTER = "ragcrawl_dynamo.adapters.ragcrawl.command"


def add_to(app: typer.Typer) -> None:
    """Adds the command to an app."""
    # All that follows its name is ragcrawl's, also --help.
    passed_on = {"ignore_unknown_options": True, "allow_interspersed_args": False}
    app.command(add_help_option=False, context_settings=passed_on)(ragcrawl)


def ragcrawl(
    context: typer.Context,
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND...", help="A command of ragcrawl, with its options."),
    ] = None,
) -> None:
    """Runs ragcrawl's own commands on these tables: crawl, sync, sites, runs, list."""
    try:
        # No import statement: the types of the command line do not depend on a crawler.
        adapter = import_module(_ADAPTER)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ragcrawl":
            raise
        say("ragcrawl is not installed: pip install 'ragcrawl-dynamo[cli,ragcrawl]'")
        raise typer.Exit(1) from None
    adapter.run(settings_of(context), args or [])
