"""The command `ragcrawl-dynamo`. Its modules need the extra `cli`."""

import sys

_EXTRA = frozenset({"typer", "rich"})


def main() -> None:
    """Runs the command."""
    try:
        from ragcrawl_dynamo.cli.app import run  # fails without the extra
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.exit("ragcrawl-dynamo: the command needs an extra: pip install 'ragcrawl-dynamo[cli]'")
    run()
