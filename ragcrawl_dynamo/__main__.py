"""`python -m ragcrawl_dynamo`: the command `ragcrawl-dynamo`."""

from ragcrawl_dynamo.cli import main

if __name__ == "__main__":
    main()
