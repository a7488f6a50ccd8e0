"""Commands on runs and their frontiers: show and watch them, pause, resume, cancel and repair them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from functools import partial
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
    NotFoundError,
    RunState,
    Slice,
)
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.cli.output import (
    cell,
    note,
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
    LatestRun,
    Limit,
    RunId,
    SiteId,
    Yes,
    confirm,
    require_site,
    required,
    using,
)

T = TypeVar("T")

_COUNTS = ("pending", "delayed", "in_progress", "completed", "failed", "skipped")
_HOSTS_SHOWN = 20

# How many runs have the size of their frontier read concurrently.
_RUNS_AT_ONCE = 8

run_commands: typer.Typer = typer.Typer(
    no_args_is_help=True, help="Shows, pauses, resumes or cancels one run."
)
frontier_commands: typer.Typer = typer.Typer(
    no_args_is_help=True, help="Shows the frontier of a run, and retries its dead letters."
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands to an app."""
    app.command("runs")(list_runs)
    app.command()(recount)
    app.add_typer(run_commands, name="run")
    app.add_typer(frontier_commands, name="frontier")


def list_runs(context: typer.Context, site_id: SiteId, limit: Limit = 20, as_json: AsJson = False) -> None:
    """Lists a site's runs, newest first. The frontier size of an open run is that of now."""

    async def work(backend: DynamoDBBackend) -> list[CrawlRun]:
        runs = await backend.list_runs(site_id, limit=limit)
        if not runs:
            await require_site(backend, site_id)
        return await gather_bounded(partial(_with_size, backend), runs, _RUNS_AT_ONCE)

    runs = using(context, work)
    columns = ("run_id", "status", "created_at", "completed_at", "is_sync", "frontier_size")
    write_rows(runs, columns, as_json=as_json, empty=f"site {site_id!r} has no runs")


@run_commands.command("show")
def show(
    context: typer.Context,
    site_id: SiteId,
    run_id: LatestRun = None,
    watch: Annotated[
        float | None,
        typer.Option(min=0.2, metavar="SECONDS", help="Refresh at this interval, until the run ends."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Shows a run with the state and the counts of its frontier."""

    async def work(backend: DynamoDBBackend) -> None:
        record = await _run(backend, site_id, run_id)
        frontier = backend.frontier(site_id, record.run_id)
        if watch is not None:
            await _watch(frontier, record.run_id, watch, as_json=as_json)
            return
        state, stats = await asyncio.gather(frontier.state(), frontier.stats())
        fields = {**plain(record), "state": state.value, "frontier": plain(stats)}
        if not record.status.is_final:
            fields["frontier_size"] = stats.total
        if not as_json:
            del fields["config_snapshot"]
        write_record(fields, as_json=as_json)

    # Ctrl-C is the usual way to end --watch, so it is not an error.
    with suppress(KeyboardInterrupt) if watch is not None else nullcontext():
        using(context, work)


@run_commands.command("pause")
def pause(context: typer.Context, site_id: SiteId, run_id: RunId, as_json: AsJson = False) -> None:
    """Pauses a run: workers claim nothing until `run resume`."""
    _with_open_frontier(context, site_id, run_id, Frontier.pause)
    write_outcome({"state": "paused"}, "paused: workers can finish the items that they hold", as_json=as_json)


@run_commands.command("resume")
def resume(context: typer.Context, site_id: SiteId, run_id: RunId, as_json: AsJson = False) -> None:
    """Resumes a paused run."""
    _with_open_frontier(context, site_id, run_id, Frontier.resume)
    write_outcome({"state": "running"}, "running", as_json=as_json)


@run_commands.command("cancel")
def cancel(
    context: typer.Context,
    site_id: SiteId,
    run_id: RunId,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Cancels a run. It cannot be resumed."""
    if dry_run:
        stats = _with_open_frontier(context, site_id, run_id, Frontier.stats)
        left = stats.pending + stats.delayed
        write_outcome({"left": left}, f"would leave {left:,} links uncrawled", as_json=as_json)
        return
    confirm(f"Cancel run {run_id}? It cannot be resumed.", yes=yes)
    _with_open_frontier(context, site_id, run_id, Frontier.cancel)
    write_outcome(
        {"state": "cancelled"}, "cancelled: workers can finish the items that they hold", as_json=as_json
    )


@frontier_commands.command("stats")
def stats_of_run(
    context: typer.Context,
    site_id: SiteId,
    run_id: LatestRun = None,
    hosts: Annotated[bool, typer.Option("--hosts", help="Show the counts and limits of each host.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows how many items of a run are in each state."""
    if not hosts:
        write_record(_with_frontier(context, site_id, run_id, Frontier.stats), as_json=as_json)
        return

    async def work(frontier: Frontier) -> list[HostStatus]:
        return [host async for host in frontier.iter_hosts()]

    host_list = _with_frontier(context, site_id, run_id, work)
    if as_json:
        write_rows(host_list, (), as_json=True, empty="")
    else:
        out.print(_host_table(host_list))


@frontier_commands.command("failed")
def failed(
    context: typer.Context,
    site_id: SiteId,
    run_id: LatestRun = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Lists dead letters: items that failed too often."""

    async def work(backend: DynamoDBBackend) -> Slice[FrontierItem]:
        run = await _run(backend, site_id, run_id)
        return await backend.get_frontier_items(run.run_id, status=FrontierStatus.FAILED, limit=limit)

    columns = ("url", "attempt", "last_error")
    write_rows(using(context, work), columns, as_json=as_json, empty="there are no dead letters")


@frontier_commands.command("requeue")
def requeue(
    context: typer.Context,
    site_id: SiteId,
    run_id: RunId,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Puts dead letters back into the queue. Each gets all its attempts again."""

    async def work(frontier: Frontier) -> int:
        return (await frontier.stats()).failed if dry_run else await frontier.requeue_failed()

    count = _with_frontier(context, site_id, run_id, work)
    text = f"{'would put' if dry_run else 'put'} {count:,} back into the queue"
    write_outcome({"requeued": count, "dry_run": dry_run}, text, as_json=as_json)


def recount(context: typer.Context, site_id: SiteId, run_id: RunId, as_json: AsJson = False) -> None:
    """Reads all items of a run, counts them and corrects the counters."""
    write_record(_with_frontier(context, site_id, run_id, Frontier.recount), as_json=as_json)


def _with_frontier(
    context: typer.Context, site_id: str, run_id: str | None, work: Callable[[Frontier], Awaitable[T]]
) -> T:
    """Calls `work` with the frontier of an existing run, by default the latest, and returns its result."""

    async def work_with_backend(backend: DynamoDBBackend) -> T:
        run = await _run(backend, site_id, run_id)
        return await work(backend.frontier(site_id, run.run_id))

    return using(context, work_with_backend)


def _with_open_frontier(
    context: typer.Context, site_id: str, run_id: str, work: Callable[[Frontier], Awaitable[T]]
) -> T:
    """Calls `work` with the frontier of a run that has not ended, and returns its result.

    Raises:
        NotFoundError: The run has ended, or does not exist.
    """

    async def work_with_backend(backend: DynamoDBBackend) -> T:
        run = await _run(backend, site_id, run_id)
        if run.status.is_final:
            raise NotFoundError(
                f"run {run_id!r} of site {site_id!r} is {run.status}: "
                f"only a run that has not ended can be paused, resumed or cancelled"
            )
        return await work(backend.frontier(site_id, run_id))

    return using(context, work_with_backend)


async def _run(backend: DynamoDBBackend, site_id: str, run_id: str | None) -> CrawlRun:
    """Returns a run of a site, by default the latest."""
    if run_id is not None:
        return required(await backend.get_run(site_id, run_id), f"run {run_id!r} of site {site_id!r}")
    runs = await backend.list_runs(site_id, limit=1)
    if not runs:
        await require_site(backend, site_id)
    run = required(next(iter(runs), None), f"run of site {site_id!r}")
    note(f"run {run.run_id}")
    return run


async def _with_size(backend: DynamoDBBackend, run: CrawlRun) -> CrawlRun:
    """Returns a run with the present size of its frontier: `complete_run` is the first to store it."""
    if run.status.is_final:
        return run
    stats = await backend.frontier(run.site_id, run.run_id).stats()
    return run.model_copy(update={"frontier_size": stats.total})


async def _watch(frontier: Frontier, run_id: str, seconds: float, *, as_json: bool) -> None:
    """Shows the frontier repeatedly, until it is finished or cancelled, or the user presses Ctrl-C."""
    before: tuple[float, int] | None = None
    with Live(console=out, auto_refresh=False) as live:
        while True:
            state, stats = await asyncio.gather(frontier.state(), frontier.stats())
            hosts = [host async for host in frontier.iter_hosts()]
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
    """Creates a table of the hosts with the most open items."""
    order = sorted(hosts, key=lambda host: (-host.stats.pending - host.stats.in_progress, host.host))
    table = Table(
        caption=f"and {len(order) - _HOSTS_SHOWN:,} more hosts" if len(order) > _HOSTS_SHOWN else None
    )
    for name in ("host", "delay", "max_in_flight", "blocked_until", *_COUNTS):
        table.add_column(name.replace("_", " "), justify="left" if name == "host" else "right")
    for host in order[:_HOSTS_SHOWN]:
        table.add_row(
            cell(host.host),
            f"{host.delay:g} s",
            text_of(host.max_in_flight),
            text_of(host.blocked_until),
            *(text_of(getattr(host.stats, name)) for name in _COUNTS),
        )
    return table
