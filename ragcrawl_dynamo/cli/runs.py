"""Commands on runs and their frontiers: to look at them, live too, and to hold, end and mend them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Annotated, TypeVar

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ragcrawl_dynamo import (
    CrawlRun,
    DynamoDBBackend,
    Frontier,
    FrontierItem,
    FrontierStats,
    FrontierStatus,
    HostStatus,
    RunState,
    Slice,
)
from ragcrawl_dynamo.cli.output import (
    cell,
    out,
    plain,
    text_of,
    write_json,
    write_outcome,
    write_record,
    write_rows,
)
from ragcrawl_dynamo.cli.session import (
    AsJson,
    DryRun,
    Limit,
    RunId,
    SiteId,
    Yes,
    confirm,
    found,
    using,
)

T = TypeVar("T")

_COUNTS = ("pending", "delayed", "in_progress", "completed", "failed", "skipped")
_HOSTS_SHOWN = 20

one = typer.Typer(no_args_is_help=True, help="One run: show it, hold it, end it.")
queue = typer.Typer(no_args_is_help=True, help="A run's frontier.")


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("runs")(list_runs)
    app.command()(recount)
    app.add_typer(one, name="run")
    app.add_typer(queue, name="frontier")


def list_runs(context: typer.Context, site_id: SiteId, limit: Limit = 20, as_json: AsJson = False) -> None:
    """Lists a site's runs, newest first."""
    found_runs = using(context, lambda backend: backend.list_runs(site_id, limit))
    columns = ("run_id", "status", "created_at", "completed_at", "is_sync", "frontier_size")
    write_rows(found_runs, columns, as_json=as_json, empty=f"site {site_id!r} has no runs")


@one.command("show")
def show(
    context: typer.Context,
    site_id: SiteId,
    run_id: RunId,
    watch: Annotated[
        float | None, typer.Option(min=0.2, metavar="SECONDS", help="Look again that often, until it ends.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Shows a run, and where its frontier stands."""

    async def work(backend: DynamoDBBackend) -> None:
        record = await _run(backend, site_id, run_id)
        frontier = backend.frontier(run_id, site_id)
        if watch is not None:
            await _watch(frontier, run_id, watch, as_json=as_json)
            return
        state, stats = await asyncio.gather(frontier.state(), frontier.stats())
        shown = {**plain(record), "state": state.value, "frontier": plain(stats)}
        if not as_json:
            del shown["config_snapshot"]
        write_record(shown, as_json=as_json)

    # To have seen enough is no error.
    with suppress(KeyboardInterrupt) if watch is not None else nullcontext():
        using(context, work)


@one.command("pause")
def pause(context: typer.Context, site_id: SiteId, run_id: RunId, as_json: AsJson = False) -> None:
    """Lets no worker claim anything more, until `resume`."""
    _with_frontier(context, site_id, run_id, Frontier.pause)
    write_outcome({"state": "paused"}, "paused: leases that run can be finished", as_json=as_json)


@one.command("resume")
def resume(context: typer.Context, site_id: SiteId, run_id: RunId, as_json: AsJson = False) -> None:
    """Ends a pause."""
    _with_frontier(context, site_id, run_id, Frontier.resume)
    write_outcome({"state": "running"}, "running", as_json=as_json)


@one.command("cancel")
def cancel(
    context: typer.Context,
    site_id: SiteId,
    run_id: RunId,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Ends a run for good: it can not be resumed."""
    if dry_run:
        stats = _with_frontier(context, site_id, run_id, Frontier.stats)
        left = stats.pending + stats.delayed
        write_outcome({"left": left}, f"would leave {left:,} links that are not crawled", as_json=as_json)
        return
    confirm(f"End run {run_id} for good?", yes=yes)
    _with_frontier(context, site_id, run_id, Frontier.cancel)
    write_outcome({"state": "cancelled"}, "cancelled: leases that run can be finished", as_json=as_json)


@queue.command("stats")
def stats_of_run(
    context: typer.Context,
    site_id: SiteId,
    run_id: RunId,
    hosts: Annotated[bool, typer.Option("--hosts", help="By host.")] = False,
    as_json: AsJson = False,
) -> None:
    """Counts a run's items by state."""
    if not hosts:
        write_record(_with_frontier(context, site_id, run_id, Frontier.stats), as_json=as_json)
        return

    async def work(frontier: Frontier) -> list[HostStatus]:
        return [each async for each in frontier.iter_hosts()]

    found_hosts = _with_frontier(context, site_id, run_id, work)
    if as_json:
        write_rows(found_hosts, (), as_json=True, empty="")
    else:
        out.print(_host_table(found_hosts))


@queue.command("failed")
def failed(
    context: typer.Context, site_id: SiteId, run_id: RunId, limit: Limit = 50, as_json: AsJson = False
) -> None:
    """Lists dead letters: what failed too often."""

    async def work(backend: DynamoDBBackend) -> Slice[FrontierItem]:
        await _run(backend, site_id, run_id)
        return await backend.get_frontier_items(run_id, FrontierStatus.FAILED, limit)

    columns = ("url", "attempt", "last_error")
    write_rows(using(context, work), columns, as_json=as_json, empty="nothing has failed for good")


@queue.command("requeue")
def requeue(
    context: typer.Context,
    site_id: SiteId,
    run_id: RunId,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Makes dead letters claimable again, with all their attempts."""

    async def work(frontier: Frontier) -> int:
        return (await frontier.stats()).failed if dry_run else await frontier.requeue_failed()

    count = _with_frontier(context, site_id, run_id, work)
    done = "would put" if dry_run else "put"
    write_outcome({"requeued": count, "dry_run": dry_run}, f"{done} {count:,} back", as_json=as_json)


def recount(context: typer.Context, site_id: SiteId, run_id: RunId, as_json: AsJson = False) -> None:
    """Counts a run's items by reading all of them, and corrects the counters."""
    write_record(_with_frontier(context, site_id, run_id, Frontier.recount), as_json=as_json)


def _with_frontier(
    context: typer.Context, site_id: str, run_id: str, work: Callable[[Frontier], Awaitable[T]]
) -> T:
    """The result of work with the frontier of a run that has to be there."""

    async def on(backend: DynamoDBBackend) -> T:
        await _run(backend, site_id, run_id)
        return await work(backend.frontier(run_id, site_id))

    return using(context, on)


async def _run(backend: DynamoDBBackend, site_id: str, run_id: str) -> CrawlRun:
    return found(await backend.get_run(run_id, site_id), f"run {run_id!r} of site {site_id!r}")


async def _watch(frontier: Frontier, run_id: str, seconds: float, *, as_json: bool) -> None:
    """Shows the frontier again and again, until it is finished, cancelled, or the user has seen enough."""
    before: tuple[float, int] | None = None
    with Live(console=out, auto_refresh=False) as live:
        while True:
            state, stats = await asyncio.gather(frontier.state(), frontier.stats())
            hosts = [each async for each in frontier.iter_hosts()]
            now, done = time.monotonic(), stats.completed + stats.failed + stats.skipped
            rate = None if before is None else max(0, done - before[1]) / (now - before[0])
            before = now, done
            finished = state is RunState.RUNNING and await frontier.is_finished()
            if as_json:
                write_json({"state": state, **plain(stats), "rate": rate, "is_finished": finished})
            else:
                live.update(_view(run_id, state, stats, rate, hosts, finished=finished), refresh=True)
            if finished or state is RunState.CANCELLED:
                return
            await asyncio.sleep(seconds)


def _view(
    run_id: str,
    state: RunState,
    stats: FrontierStats,
    rate: float | None,
    hosts: list[HostStatus],
    *,
    finished: bool,
) -> Group:
    counts = Table(
        title=f"run {escape(run_id)}: {'finished' if finished else state.value}", title_justify="left"
    )
    for name in (*_COUNTS, "items a second"):
        counts.add_column(name.replace("_", " "), justify="right")
    counts.add_row(
        *(text_of(getattr(stats, name)) for name in _COUNTS), "-" if rate is None else f"{rate:.1f}"
    )
    return Group(counts, _host_table(hosts))


def _host_table(hosts: list[HostStatus]) -> Table:
    """The hosts that have most to do."""
    order = sorted(hosts, key=lambda each: (-each.stats.pending - each.stats.in_progress, each.host))
    table = Table(
        caption=f"and {len(order) - _HOSTS_SHOWN:,} more hosts" if len(order) > _HOSTS_SHOWN else None
    )
    for name in ("host", "delay", "max_in_flight", "blocked_until", *_COUNTS):
        table.add_column(name.replace("_", " "), justify="left" if name == "host" else "right")
    for each in order[:_HOSTS_SHOWN]:
        table.add_row(
            cell(each.host),
            f"{each.delay:g} s",
            text_of(each.max_in_flight),
            text_of(each.blocked_until),
            *(text_of(getattr(each.stats, name)) for name in _COUNTS),
        )
    return table
