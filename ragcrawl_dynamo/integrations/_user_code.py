"""Checks and calls what users write: an index and a splitter. Their errors name the pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ragcrawl_dynamo._utils.validation import check_callable
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.integrations.chunks import Chunk, chunks_of, listed, mistake_in
from ragcrawl_dynamo.integrations.index import ChunkIndex, Splitter
from ragcrawl_dynamo.models import PageVersion

# Pages that the note of an error names.
_NAMED_PAGES = 3


def check_index(index: ChunkIndex) -> None:
    """Checks that an index has its two methods.

    Raises:
        InvalidArgumentError: It is no index, or it is a class.
    """
    if isinstance(index, type):
        raise InvalidArgumentError(
            "index", f"must be an object, not the class {index.__name__}: pass an instance of it"
        )
    kind = type(index).__name__
    for method in ("upsert", "delete"):
        if not callable(getattr(index, method, None)):
            raise InvalidArgumentError(
                "index", f"must be an object with the methods upsert and delete; {kind} has no {method}"
            )


def check_splitter(split: Splitter) -> None:
    """Checks that a splitter is a plain function.

    Raises:
        InvalidArgumentError: It cannot be called, or it is an async function.
    """
    if not callable(split):
        raise InvalidArgumentError("split", f"must be a function, not {type(split).__name__}")
    check_callable("split", split)


def split_version(split: Splitter, version: PageVersion) -> list[Chunk]:
    """Returns the chunks that a splitter makes of a version. An error of the splitter gets a note.

    Raises:
        InvalidArgumentError: The splitter returns something else than texts or Passages.
    """
    splitter = f"splitter {getattr(split, '__qualname__', type(split).__qualname__)!r}"
    page = f"page {version.page_id!r} ({version.url})"
    with noted(f"raised by {splitter} for {page}"):
        passages = listed(split(version))
    if mistake := mistake_in(passages):
        raise InvalidArgumentError(
            "split", f"must return a list of texts or Passages, not {mistake}: {splitter} did so for {page}"
        )
    return chunks_of(version, passages)


def named_pages(urls: Mapping[str, str | None]) -> str:
    """Names pages by their ids, with their URLs where these are known."""
    names = [f"{page_id!r} ({url})" if url else repr(page_id) for page_id, url in urls.items()]
    more = len(names) - _NAMED_PAGES
    return ", ".join(names[:_NAMED_PAGES]) + (f" and {more} other pages" if more > 0 else "")


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Adds a note to an error that is raised in the block. The error keeps its type and its text."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise
