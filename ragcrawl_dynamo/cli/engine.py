"""The command that runs a DynamoDB engine on this machine."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ragcrawl_dynamo.cli.output import fail, say
from ragcrawl_dynamo.testing import run_dynamodb_local, run_moto


def add_to(app: typer.Typer) -> None:
    """Adds the command to an app."""
    app.command()(local)


def local(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 for a free one.")] = 8000,
    dynamodb_local: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Run AWS's DynamoDB Local from this folder instead of moto."),
    ] = None,
) -> None:
    """Runs a DynamoDB engine on this machine until Ctrl-C. Its tables are in memory, and then gone.

    It prints the variables by which programs find it.
    """
    engine = run_moto(port) if dynamodb_local is None else run_dynamodb_local(dynamodb_local, port)
    # A supervisor ends it as Ctrl-C does: otherwise DynamoDB Local would outlive it.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt), engine as endpoint:
            typer.echo(f"export RAGCRAWL_DYNAMO_ENDPOINT_URL={endpoint}")
            typer.echo("export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local")
            say(f"{'moto' if dynamodb_local is None else 'DynamoDB Local'} runs until Ctrl-C")
            threading.Event().wait()
    except RuntimeError as error:
        fail(str(error))
    finally:
        signal.signal(signal.SIGTERM, before)
