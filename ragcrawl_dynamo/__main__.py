"""Runs the command `ragcrawl-dynamo`, for `python -m ragcrawl_dynamo`."""

from ragcrawl_dynamo.cli import main

if __name__ == "__main__":
    main()
