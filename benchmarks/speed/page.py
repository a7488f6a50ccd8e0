"""Formats the figures of `make bench` for docs/benchmarks.md, and draws its plots.

The figures are those that `benchmarks.speed.run` stores: numbers for each workload and peer.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, markdown
from benchmarks.report import Part
from benchmarks.speed.stalls import Stall, stalls_table
from benchmarks.speed.workloads import OURS, PEERS, PLACES, WORKLOADS, Workload

HERE = Path(__file__).parent
PEERS_PYTHON = ROOT / ".venv-speed/bin/python"

# Targets of what no peer has: number in the list of crawls, unit, limit, and the attribute that it limits.
CRAWL_TARGETS = ((0, "requests a page", 0.5, "requests"), (1, "write units a page", 30, "write_units"))

Figures = dict[str, Any]


def method(figures: Figures) -> list[str]:
    """Says how it was measured."""
    return [
        "Each peer is a process of its own on one core, the endpoint is on another. "
        f"{figures['rounds']} shuffled rounds on the canned endpoint; ratios are medians of those within "
        "rounds, with their range. CPU is that of the whole client process, threads included. We take and "
        "return pydantic models, built within what is measured; peers take and return plain dicts, but for "
        "the two PynamoDBs. " + "; ".join(figures["versions"]) + "."
    ]


def targets(figures: Figures) -> list[str]:
    """Formats the targets, and whether they are reached."""
    rows = [["workload", "target", "measured", ""]]
    for workload in WORKLOADS:
        for peer, most in workload.targets.items():
            median, least, highest = figures["targets"][workload.name][peer]
            measured = f"{median:.2f} ({least:.2f}-{highest:.2f})"
            rows.append([workload.what, f"≤ {most:.2f} of {peer}", measured, _verdict(median <= most)])
    for number, unit, limit, name in CRAWL_TARGETS:
        crawl = figures["crawls"][number]
        rows.append(
            [crawl["what"], f"≤ {limit} {unit}", f"{crawl[name]:.2f}", _verdict(crawl[name] <= limit)]
        )
    return markdown(rows)


def workloads(figures: Figures) -> list[str]:
    """Formats the tables of all workloads."""
    lines = []
    for place, title in PLACES.items():
        lines += [f"## {title}", ""]
        for workload in WORKLOADS:
            if place in workload.places:
                table = table_of(figures["workloads"][place][workload.name])
                lines += [f"### {workload.what}", "", *table, ""]
    return lines[:-1]


def table_of(peers: dict[str, Figures]) -> list[str]:
    """Formats the results of a workload as a table."""
    has_latency = "p99" in peers[OURS]
    head = ["", "CPU per item, µs", "items a second", "of aiodynamo's CPU (range)"]
    rows = [head + (["p50, ms", "p99, ms"] if has_latency else [])]
    for name in PEERS:
        if peer := peers.get(name):
            row = [name, f"{peer['cpu']:.1f}", f"{peer['rate']:,.0f}"]
            row.append("{:.2f} ({:.2f}-{:.2f})".format(*peer["ratio"]))
            rows.append(row + ([f"{peer['p50']:.1f}", f"{peer['p99']:.1f}"] if has_latency else []))
    return markdown(rows)


def crawls(figures: Figures) -> list[str]:
    """Formats the costs of a page in the frontier and in a whole crawl."""
    rows = [["a page", "requests", "read units", "write units", "client CPU, ms"]]
    for crawl in figures["crawls"]:
        units = (f"{crawl[name]:.1f}" for name in ("read_units", "write_units", "cpu"))
        rows.append([crawl["what"], f"{crawl['requests']:.2f}", *units])
    return markdown(rows)


def stalls(figures: Figures) -> list[str]:
    """Formats the stalls of the event loop."""
    if not figures["stalls"]:
        return ["Not measured in this run."]
    return stalls_table([Stall(**stall) for stall in figures["stalls"]])


PARTS: dict[str, Part] = {
    "method": method,
    "targets": targets,
    "workloads": workloads,
    "crawls": crawls,
    "stalls": stalls,
}


def bars(figures: Figures) -> dict[str, dict[str, float]]:
    """Returns the client CPU of an item for each workload and peer, as the plot shows them."""

    def cpu(workload: Workload) -> dict[str, float]:
        peers = figures["workloads"][workload.places[0]][workload.name]
        return {name: peers[name]["cpu"] for name in PEERS if name in peers}

    return {workload.what: cpu(workload) for workload in WORKLOADS}


def draw(script: str, data: Any, path: Path) -> None:
    """Draws a plot, by a script of this folder in the peers' environment, which has matplotlib."""
    command = [str(PEERS_PYTHON), str(HERE / script), str(path)]
    subprocess.run(command, input=json.dumps(data, ensure_ascii=False), text=True, check=True)


def drawn(path: Path) -> Any:
    """Returns the data that a plot shows; the scripts store them in its metadata."""
    match = re.search(r"<dc:description>(.*?)</dc:description>", path.read_text(), re.DOTALL)
    return json.loads(html.unescape(match[1])) if match else None


def _verdict(is_reached: bool) -> str:  # reads well where it is called
    return "reached" if is_reached else "**missed**"
