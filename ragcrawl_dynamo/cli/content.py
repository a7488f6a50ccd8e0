"""Commands on sites, pages and versions: list, show, compare, export, import and clean up."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax

from ragcrawl_dynamo import (
    DynamoDBBackend,
    GarbageReport,
    NotFoundError,
    Page,
    PageVersion,
    PruneReport,
    Slice,
)
from ragcrawl_dynamo.cli.output import (
    err,
    note,
    out,
    say,
    write_json,
    write_outcome,
    write_record,
    write_rows,
)
from ragcrawl_dynamo.cli.session import (
    AsJson,
    DryRun,
    Limit,
    SiteId,
    Url,
    Yes,
    confirm,
    require_site,
    required,
    using,
)
from ragcrawl_dynamo.cli.transfer import Exporter, Importer, OnRecord

_MASS = "Allow deleting a larger share of the site than max_deleted_share."
AllowMass = Annotated[bool, typer.Option("--allow-mass-deletion", help=_MASS)]
FilePath = Annotated[
    Path, typer.Argument(metavar="FILE", help="File of JSON lines, or a folder *.parquet of Parquet files.")
]

# The fields that hold the text of a version, in the order in which its hash prefers them.
_TEXTS = {"markdown": "Markdown", "plain_text": "plain text", "html": "HTML"}

page_commands: typer.Typer = typer.Typer(no_args_is_help=True, help="Shows one page.")


def add_to(app: typer.Typer) -> None:
    """Adds the commands to an app."""
    app.command()(sites)
    app.command()(pages)
    app.add_typer(page_commands, name="page")
    for command in (versions, diff, prune, gc):
        app.command()(command)
    app.command("export")(export_site)
    app.command("import")(import_site)
    app.command("delete-site")(delete_site)


def sites(context: typer.Context, limit: Limit = 1000, as_json: AsJson = False) -> None:
    """Lists the sites."""
    site_list = using(context, lambda backend: backend.list_sites(limit=limit))
    columns = ("site_id", "name", "total_pages", "total_runs", "last_crawl_at", "is_active")
    write_rows(site_list, columns, as_json=as_json, empty="there are no sites")
    if site_list and not as_json:
        note("total pages and total runs were counted when a run of the site was last completed")


def pages(
    context: typer.Context,
    site_id: SiteId,
    limit: Limit = 100,
    tombstones: Annotated[bool, typer.Option("--tombstones", help="Also list pages that are gone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Lists a site's pages."""

    async def work(backend: DynamoDBBackend) -> Slice[Page]:
        page_list = await backend.list_pages(site_id, limit=limit, include_tombstones=tombstones)
        if not page_list:
            await require_site(backend, site_id)
        return page_list

    page_list = using(context, work)
    columns = ("url", "status_code", "version_count", "last_crawled", "last_changed", "is_tombstone")
    write_rows(page_list, columns, as_json=as_json, empty=f"site {site_id!r} has no pages")


@page_commands.command("show")
def show_page(
    context: typer.Context,
    site_id: SiteId,
    url: Url,
    content: Annotated[bool, typer.Option("--content", help="Print the current content instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows a page, or its current content: the Markdown, or else the plain text, or else the HTML."""

    async def work(backend: DynamoDBBackend) -> tuple[Page, PageVersion | None]:
        page = await _page(backend, site_id, url)
        current = await backend.get_current_version(site_id, page.page_id) if content else None
        return page, current

    page, current = using(context, work)
    if not content:
        write_record(page, as_json=as_json)
        return
    version = required(current, f"content of {url}")
    if as_json:
        write_json(version)
        return
    field = _text_field(version)
    if field != "markdown":
        note(f"the version has no Markdown; this is its {_TEXTS[field]}")
    typer.echo(getattr(version, field))


def versions(
    context: typer.Context, site_id: SiteId, url: Url, limit: Limit = 20, as_json: AsJson = False
) -> None:
    """Lists a page's versions, newest first."""

    async def work(backend: DynamoDBBackend) -> Slice[PageVersion]:
        page = await _page(backend, site_id, url)
        return await backend.list_versions(site_id, page.page_id, limit=limit, include_content=False)

    columns = ("version_id", "crawled_at", "status_code", "title", "run_id")
    write_rows(using(context, work), columns, as_json=as_json, empty=f"{url} has no versions")


def diff(
    context: typer.Context,
    site_id: SiteId,
    url: Url,
    old: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="VERSION", help="Id of the older version; by default the one before the newest."
        ),
    ] = None,
    new: Annotated[
        str | None,
        typer.Option("--to", metavar="VERSION", help="Id of the newer version; by default the newest."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compares the Markdown of two versions of a page, or else their plain text, or else their HTML."""

    async def work(backend: DynamoDBBackend) -> tuple[PageVersion, PageVersion]:
        page = await _page(backend, site_id, url)
        newest = await backend.list_versions(site_id, page.page_id, limit=2, include_content=False)
        ids = [version.version_id for version in newest]
        if len(ids) < 2 and not (old and new):
            count = "one version" if ids else "no version"
            raise NotFoundError(f"{url} has {count}, and a comparison needs two: choose another page")
        pair = []
        for version_id in (old or ids[1], new or ids[0]):
            version = await backend.get_version(site_id, page.page_id, version_id)
            pair.append(required(version, f"version {version_id!r} of {url}"))
        return pair[0], pair[1]

    before, after = using(context, work)
    field = _text_field(before, after)
    lines = list(
        difflib.unified_diff(
            (getattr(before, field) or "").splitlines(),
            (getattr(after, field) or "").splitlines(),
            f"{before.version_id} {before.crawled_at:%Y-%m-%d %H:%M}",
            f"{after.version_id} {after.crawled_at:%Y-%m-%d %H:%M}",
            lineterm="",
        )
    )
    if as_json:
        write_json({"from": before.version_id, "to": after.version_id, "field": field, "diff": lines})
        return
    if field != "markdown":
        note(f"the versions have no Markdown; this compares their {_TEXTS[field]}")
    if not lines:
        say(f"both versions have the same {_TEXTS[field]}")
    elif out.is_terminal:
        out.print(Syntax("\n".join(lines), "diff", background_color="default", word_wrap=True))
    else:
        typer.echo("\n".join(lines))


def export_site(
    context: typer.Context,
    site_id: SiteId,
    file: FilePath,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Writes a site with its runs, pages and all versions to a file. An interrupted export resumes."""
    with _bar("exporting") as on_progress:
        count = using(
            context, lambda backend: Exporter(backend, site_id, file, on_progress).run(overwrite=overwrite)
        )
    write_outcome({"records": count}, f"{count:,} records are in {file}", as_json=as_json)


def import_site(context: typer.Context, file: FilePath, as_json: AsJson = False) -> None:
    """Saves the records of an export, and replaces stored ones. An interrupted import resumes."""
    with _bar("importing") as on_progress:
        count = using(context, lambda backend: Importer(backend, file, on_progress).run())
    write_outcome({"records": count}, f"{count:,} records were saved", as_json=as_json)


def prune(
    context: typer.Context,
    site_id: SiteId,
    keep_last: Annotated[
        int | None, typer.Option(min=1, help="Keep this many versions of each page, the newest ones.")
    ] = None,
    max_age_days: Annotated[
        float | None, typer.Option(help="Keep versions that were crawled within this many days.")
    ] = None,
    allow_mass_deletion: AllowMass = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Deletes old versions, but never the current version of a page."""

    async def work(backend: DynamoDBBackend, dry: bool) -> PruneReport:
        report = await backend.prune_versions(
            site_id,
            keep_last=keep_last,
            max_age_days=max_age_days,
            dry_run=dry,
            allow_mass_deletion=allow_mass_deletion or dry,
        )
        if not report.versions_total:
            await require_site(backend, site_id)
        return report

    _clean_up(context, work, "Delete these versions?", yes=yes, dry_run=dry_run, as_json=as_json)


def gc(
    context: typer.Context,
    site_id: SiteId,
    grace_hours: Annotated[
        float, typer.Option(help="Keep bodies that were written within this many hours.")
    ] = 24.0,
    allow_mass_deletion: AllowMass = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Deletes bodies that no version uses. Small ones are stored in their versions, and are not counted."""

    async def work(backend: DynamoDBBackend, dry: bool) -> GarbageReport:
        report = await backend.collect_garbage(
            site_id,
            grace_hours=grace_hours,
            dry_run=dry,
            allow_mass_deletion=allow_mass_deletion or dry,
        )
        if not report.bodies_total:
            await require_site(backend, site_id)
        return report

    _clean_up(context, work, "Delete these bodies?", yes=yes, dry_run=dry_run, as_json=as_json)


def delete_site(
    context: typer.Context,
    site_id: SiteId,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Deletes a site with its runs, their frontiers, its pages and versions."""

    async def count(backend: DynamoDBBackend) -> dict[str, int]:
        usage = await backend.get_content_usage(site_id)
        records = {
            "runs": sum([1 async for _ in backend.iter_runs(site_id)]),
            "pages": await backend.count_pages(site_id, include_tombstones=True),
            "versions": usage.versions,
        }
        if not any(records.values()):
            await require_site(backend, site_id)
        return records

    counts = using(context, count)
    if dry_run:
        write_record(counts, as_json=as_json)
        return
    if not yes:
        write_record(counts, as_json=False)
    confirm(f"Delete site {site_id} with these records?", yes=yes)
    existed = using(context, lambda backend: backend.delete_site(site_id))
    text = f"deleted site {site_id!r}" if existed else f"there is no site {site_id!r}"
    write_outcome({"existed": existed, **counts}, text, as_json=as_json)


def _clean_up(
    context: typer.Context,
    work: Callable[[DynamoDBBackend, bool], Awaitable[PruneReport | GarbageReport]],
    question: str,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Shows what would be deleted, and deletes it after confirmation. `work` gets whether to count only."""
    if not dry_run and not yes:
        write_record(using(context, lambda backend: work(backend, True)), as_json=False)
        confirm(question, yes=False)
    report = using(context, lambda backend: work(backend, dry_run))
    write_record(report, as_json=as_json)
    if isinstance(report, GarbageReport) and not as_json:
        note("bodies that are stored in their versions, as most small ones, are not counted")


def _text_field(*versions: PageVersion) -> str:
    """Returns the field with the text of versions: the first that one of them has, as in `PageVersion.of`."""
    return next((name for name in _TEXTS if any(getattr(version, name) for version in versions)), "markdown")


async def _page(backend: DynamoDBBackend, site_id: str, url: str) -> Page:
    return required(await backend.get_page_by_url(site_id, url), f"page {url} in site {site_id!r}")


@contextmanager
def _bar(activity: str) -> Iterator[OnRecord]:
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(activity, total=1.0)
        counts: dict[str, int] = {}

        def on_progress(kind: str, share: float) -> None:
            counts[kind] = counts.get(kind, 0) + 1
            records = ", ".join(f"{count:,} {name}s" for name, count in counts.items())
            progress.update(task, completed=share, description=f"{activity}: {records}")

        yield on_progress
