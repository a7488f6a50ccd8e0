"""Which form of items this package reads and writes, as one number for all tables."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from ragcrawl_dynamo.models import Entity

__all__ = ["MigrationProgress"]

# It grows when items change in a way that other versions of this package can not read. Tables without a
# record are of the first.
FIRST_VERSION = 1
SCHEMA_VERSION = 1


class SchemaRecord(Entity):
    """What the tables are, and how far their migration to the next version is.

    `step` counts the migrations of that version that are done; `position` is the key after which the next
    one goes on, and `clean` whether it had nothing to do so far.
    """

    version: int
    step: int = 0
    position: dict[str, str] = Field(default_factory=dict)
    clean: bool = True


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """A page of a table that was looked through.

    Attributes:
        version: To which the items were brought.
        table: Full name of the table.
        seen: Items of the page.
        rewritten: How many of them were of the old form.
    """

    version: int
    table: str
    seen: int
    rewritten: int
