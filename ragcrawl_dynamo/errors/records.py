"""Errors of records, leases, tables and clocks that are not as a call needs them."""

from collections.abc import Sequence
from typing import Any

from ragcrawl_dynamo.errors.base import RagcrawlDynamoError


class NotFoundError(RagcrawlDynamoError):
    """The record to change does not exist."""


class FrontierCancelledError(RagcrawlDynamoError):
    """The run was cancelled: nothing can be claimed from its frontier, and it cannot be resumed."""


class LeaseLostError(RagcrawlDynamoError):
    """Leases were lost before the call. Nothing was changed for their items; all other items were processed.

    Attributes:
        claims: The claims whose lease was lost.
    """

    def __init__(self, claims: Sequence[Any]) -> None:
        self.claims: tuple[Any, ...] = tuple(claims)
        first = self.claims[0].item
        more = f", and those of {len(claims) - 1} other items" if len(claims) > 1 else ""
        super().__init__(
            f"the lease of item {first.item_id!r} ({first.url[:200]!r}) was lost{more}: the item was "
            f"finished, or its lease expired and another worker claimed it; drop this claim"
        )


class ClockSkewError(RagcrawlDynamoError):
    """This machine's clock is too far off to judge leases.

    Attributes:
        offset: How many seconds the clock is ahead at least, by the times in DynamoDB's answers.
    """

    def __init__(self, offset: float, bound: float) -> None:
        self.offset = offset
        super().__init__(
            f"this machine's clock is at least {abs(offset):.1f} s {'ahead' if offset > 0 else 'behind'} of "
            f"DynamoDB's, more than half of frontier_max_clock_skew = {bound:g} s: synchronize the clock, or "
            f"raise that setting in every process"
        )


class ChangesExpiredError(RagcrawlDynamoError):
    """The cursor is older than the changes that are kept of the site: start again without a cursor."""


class AmbiguousIdError(RagcrawlDynamoError):
    """Several sites use this id: pass site_id too."""


class ConflictError(RagcrawlDynamoError):
    """Others changed a record each time that this process tried to change it: try again."""


class CorruptContentError(RagcrawlDynamoError):
    """The stored body of a version is incomplete or differs from what was saved.

    Attributes:
        page_id: The page.
        version_id: The version.
        site_id: The site.
    """

    def __init__(self, reason: str, *, page_id: str, version_id: str, site_id: str) -> None:
        self.page_id = page_id
        self.version_id = version_id
        self.site_id = site_id
        version = f"version {version_id!r} of page {page_id!r} of site {site_id!r}"
        super().__init__(f"the body of {version} is damaged: {reason}")


class CorruptItemError(RagcrawlDynamoError):
    """A stored item does not fit its model: a program other than this package wrote it."""


class SchemaMismatchError(RagcrawlDynamoError):
    """An existing table differs from what this version needs.

    Attributes:
        table: The full name of the table.
        differences: The differences, one sentence for each.
    """

    def __init__(self, table: str, differences: Sequence[str], advice: str) -> None:
        self.table = table
        self.differences: tuple[str, ...] = tuple(differences)
        super().__init__(f"table {table}: {'; '.join(differences)}. {advice}")


class SchemaVersionError(RagcrawlDynamoError):
    """The tables belong to another version of this package.

    Attributes:
        stored: The schema version of the tables.
        wanted: The schema version of this package.
    """

    def __init__(self, stored: int, wanted: int) -> None:
        self.stored = stored
        self.wanted = wanted
        advice = "upgrade ragcrawl-dynamo" if stored > wanted else "upgrade the tables with migrate()"
        super().__init__(f"the tables have schema version {stored}, this package has {wanted}: {advice}")


class MassDeletionError(RagcrawlDynamoError):
    """A call would delete more of a site than `max_deleted_share` allows; nothing was deleted.

    Attributes:
        deleted: How many records the call would delete.
        total: How many records there are.
    """

    def __init__(self, kind: str, deleted: int, total: int, share: float) -> None:
        self.deleted = deleted
        self.total = total
        if kind == "pages":
            advice = (
                "check the pages (after a crawl, run.unseen has them); if the deletion is intended, call "
                "tombstone_pages(site_id, [page.page_id for page in run.unseen], allow_mass_deletion=True)"
            )
        else:
            advice = (
                "with dry_run=True, the call shows what it would delete; if the deletion is intended, pass "
                "allow_mass_deletion=True"
            )
        super().__init__(
            f"the call would delete {deleted:,} of {total:,} {kind}, more than max_deleted_share = "
            f"{share:g}; nothing was deleted: {advice}"
        )


class OpenRunsError(RagcrawlDynamoError):
    """The tables cannot be migrated while runs are open; nothing was changed. `runs` has the ids of all."""

    def __init__(self, runs: Sequence[str]) -> None:
        self.runs: tuple[str, ...] = tuple(runs)
        named = ", ".join(map(repr, runs[:10])) + (", ..." if len(runs) > 10 else "")
        super().__init__(
            f"{len(runs):,} runs are open ({named}), so nothing was migrated: finish or cancel them with the "
            f"version of this package that began them, and stop its processes"
        )


class PartialBatchError(RagcrawlDynamoError):
    """Some items of a bulk call were not saved; all others were.

    Attributes:
        saved: How many distinct items were written.
        failures: A pair (model, error) for each item that was not. After a transport error it is not known
            whether the items were written; saving them again is safe.
    """

    def __init__(self, saved: int, failures: Sequence[tuple[Any, RagcrawlDynamoError]]) -> None:
        self.saved = saved
        self.failures: tuple[tuple[Any, RagcrawlDynamoError], ...] = tuple(failures)
        super().__init__(
            f"{saved} items saved, {len(self.failures)} not; the first failure: {self.failures[0][1]}"
        )
