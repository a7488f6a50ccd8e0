"""Computes the tables of docs/scale.md from what `make bench-partitions` measured.

`make docs-figures` writes the tables of the page. A test compares them with what is there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.machine import markdown
from benchmarks.partitions.crawls import CONCURRENCY, READS_A_SECOND, WRITES_A_SECOND, Kind
from benchmarks.partitions.result import Measurements
from benchmarks.partitions.units import READ_BYTES, STORED_BYTES, WRITE_BYTES
from benchmarks.report import Part
from ragcrawl_dynamo._frontier.membership import assign

# AWS: "Amazon DynamoDB pricing", on demand, Standard table class, us-east-1, since 1 November 2024.
DOLLARS_A_MILLION_WRITES = 0.625
DOLLARS_A_MILLION_READS = 0.125
DOLLARS_A_GB_MONTH = 0.25

# AWS: "DynamoDB on-demand capacity mode", "Quotas in Amazon DynamoDB".
NEW_TABLE_WRITES = 4_000
TABLE_QUOTA = 40_000

# The parts of the body of a page of Python's documentation (91 KB raw), after compression, take so many write
# units: `make bench-bodies` measures 13.1 for a version, of which head and index entry are two.
BODY_WRITES = 11.1

# A page of a query holds 1 MB (AWS: "Query").
QUERY_BYTES = 1024 * 1024

# Seconds between two signs of life of a process, and without one until it counts as gone: membership.py.
BEAT_SECONDS = 10.0
ALIVE_SECONDS = 30.0

# The default of `Frontier.claim` and `Frontier.worker`.
LEASE_SECONDS = 60.0

RATES = (1_000, 10_000)
PROCESSES = (1, 10, 100, 1_000)
HOSTS, LINKS = 1_000_000, 1_000_000_000

# Keys that are full only beyond this are left out of the table of ceilings.
HIGHEST_CEILING = 50_000

# Keys that all processes of a run share.
RUN = "runs {site}"
RECORDS = "frontier #{run}"
MEMBERS = "frontier #{run}#members"
LISTS = "frontier/by_queue #{run}#{n}"
ITEMS = "frontier {hash}#{run}"

# The setting or the circumstance that raises the ceiling of a kind of keys.
_SPLITS = "DynamoDB splits it, since its sort keys are hashes"
_PROCESSES = "fewer processes with more handlers: see below"
_LISTS = "more `frontier_buckets`"
_RISES = {
    "frontier {hash}#{run}": "one of 16; " + _SPLITS,
    "pages {site}": _SPLITS,
    "versions/by_site {site}": _SPLITS,
    "pages #{site}#{n}": "each process has one of its own",
    "pages #{site}#{id}": "each process has one of its own",
    "frontier #{run}#{n}": _LISTS + "; the record of a host with limits is one item",
    "frontier/by_queue #{run}#{n}": _LISTS,
    "frontier/by_queue {run}#{host}#{n}": "a host without limits gets more shards by its pace, up to 32",
    "frontier #{run}#members": _PROCESSES,
    "frontier #{run}": _PROCESSES,
    "runs {site}": _PROCESSES,
    "pages #{site}": _PROCESSES,
}


def dollars(reads: float, writes: float) -> float:
    """Returns the price of so many units."""
    return (reads * DOLLARS_A_MILLION_READS + writes * DOLLARS_A_MILLION_WRITES) / 1e6


def name_of(kind: Kind) -> str:
    """Returns place and pattern of a kind."""
    return f"{kind.place} {kind.pattern}"


# The tables


def ceilings(measured: Measurements) -> list[list[str]]:
    """Returns the pages/s at which the hottest value of each kind is full: the least of all scenarios."""
    sizes = sorted({crawl.scenario.hosts for crawl in measured.crawls})
    least: dict[str, dict[int, float]] = {}
    for crawl in measured.crawls:
        for kind in crawl.kinds:
            of_kind = least.setdefault(name_of(kind), {})
            hosts = crawl.scenario.hosts
            of_kind[hosts] = min(of_kind.get(hosts, math.inf), kind.ceiling)
    head = ["partition key", *(f"{hosts:,} host{'s' * (hosts > 1)}" for hosts in sizes), "what raises it"]
    rows = [
        [
            _code(name),
            *(_rounded(of_kind.get(hosts, math.inf)) for hosts in sizes),
            _RISES.get(name, ""),
        ]
        for name, of_kind in sorted(least.items(), key=lambda entry: min(entry[1].values()))
        if min(of_kind.values()) < HIGHEST_CEILING
    ]
    return [head, *rows]


@dataclass(frozen=True)
class Load:
    """The units a second that processes put on one key.

    Attributes:
        name: The key.
        limit: The units that one partition serves.
        of_each: The units a second of each process.
        of_pairs: The units a second of each process for each of all processes.
    """

    name: str
    limit: float
    of_each: float
    of_pairs: float = 0.0

    def at(self, processes: int) -> float:
        """Returns the units a second of so many processes."""
        return processes * (self.of_each + processes * self.of_pairs)

    @property
    def full_at(self) -> float:
        """Returns the number of processes that take all that a partition gives."""
        if not self.of_pairs:
            return self.limit / self.of_each if self.of_each else math.inf
        half = self.of_each / (2 * self.of_pairs)
        return math.sqrt(half**2 + self.limit / self.of_pairs) - half


def loads(measured: Measurements) -> list[Load]:
    """Returns the loads on the keys that all processes share."""
    # Hundreds of processes have more than one host to crawl.
    busy = [crawl for crawl in measured.crawls if crawl.scenario.processes > 1 and crawl.scenario.hosts > 1]

    def busiest(name: str, units: str) -> tuple[float, float]:
        """Returns the units a second of each process, and its pages a second, in the most expensive crawl."""
        rates = []
        for crawl in busy:
            rate = crawl.scenario.pages / crawl.seconds / crawl.scenario.processes
            rates += [(getattr(kind, units) * rate, rate) for kind in crawl.kinds if name_of(kind) == name]
        return max(rates, default=(0.0, 0.0))

    waiting = {name_of(kind): kind.hottest_reads for kind in measured.waiting.kinds}
    of_control, rate = busiest(RECORDS, "reads")
    # Each process reads the signs of life of all processes.
    member = next(size for name, size in measured.sizes.items() if "member#" in name) - STORED_BYTES
    return [
        Load(f"{_code(RUN)}, writes", WRITES_A_SECOND, busiest(RUN, "writes")[0]),
        Load(f"{_code(RECORDS)}, writes", WRITES_A_SECOND, busiest(RECORDS, "writes")[0]),
        Load(f"{_code(RECORDS)}, reads, at {rate:.0f} pages/s each", READS_A_SECOND, of_control),
        Load(
            f"{_code(MEMBERS)}, reads",
            READS_A_SECOND,
            0.0,
            of_pairs=member / READ_BYTES / BEAT_SECONDS,
        ),
        Load(f"{_code(LISTS)}, reads of each, all waiting", READS_A_SECOND, waiting.get(LISTS, 0.0)),
        Load(f"{_code(ITEMS)}, reads of each, all waiting", READS_A_SECOND, waiting.get(ITEMS, 0.0)),
    ]


def processes(measured: Measurements) -> list[list[str]]:
    """Returns the units a second on shared keys, and how many buckets each process has."""
    head = ["units a second", *(f"{count:,}" for count in PROCESSES), "full at, processes"]
    rows = [
        [load.name, *(_rounded(load.at(count)) for count in PROCESSES), _rounded(load.full_at)]
        for load in loads(measured)
    ]
    for buckets in (16, 256):
        shares = [shares_of(count, buckets) for count in PROCESSES]
        texts = [f"{least}" if least == most else f"{least} to {most}" for least, most in shares]
        rows.append([f"lists of hosts in the share of a process, of {buckets}", *texts, ""])
    return [head, *rows]


def shares_of(count: int, buckets: int) -> tuple[int, int]:
    """Returns the least and the most buckets that one of `count` processes gets."""
    names = [f"{number:012x}" for number in range(count)]
    shares = Counter(assign(names, buckets).values())
    numbers = [shares[name] for name in names]
    return min(numbers), max(numbers)


def rates(measured: Measurements) -> list[list[str]]:
    """Returns the units and dollars of a crawl at some pages/s, by table and index."""
    places = spent_by_place(measured)
    head = ["", *(f"{rate:,} pages/s" for rate in RATES)]
    rows = [
        [f"write units a second, `{place}`", *(f"{rate * writes:,.0f}" for rate in RATES)]
        for place, (_, writes) in sorted(places.items(), key=lambda entry: -entry[1][1])
        if writes >= 0.1
    ]
    reads, writes = (sum(of_place[i] for of_place in places.values()) for i in (0, 1))
    known = sum(kind.reads for kind in measured.crawl(10_000, 1).kinds)
    hottest = max(writes for _, writes in places.values())
    rows += [
        ["write units a second, all", *(f"{rate * writes:,.0f}" for rate in RATES)],
        ["read units a second, all", *(f"{rate * reads:,.0f}" for rate in RATES)],
        [
            "of these, by one process that knows all links",
            *(f"{rate * known:,.0f}" for rate in RATES),
        ],
        [
            f"least partitions of the busiest table ({WRITES_A_SECOND:,} write units each)",
            *(f"{math.ceil(rate * hottest / WRITES_A_SECOND):,}" for rate in RATES),
        ],
        [
            f"of a new table's {NEW_TABLE_WRITES:,} write units a second, the busiest takes",
            *(f"{rate * hottest / NEW_TABLE_WRITES:,.1f} times" for rate in RATES),
        ],
        [
            f"of the quota of {TABLE_QUOTA:,} for a table, the busiest takes",
            *(f"{rate * hottest / TABLE_QUOTA:.0%}" for rate in RATES),
        ],
        ["dollars an hour", *(f"{3600 * dollars(rate * reads, rate * writes):,.2f}" for rate in RATES)],
        ["dollars for a million pages", *(f"{dollars(1e6 * reads, 1e6 * writes):,.2f}" for _ in RATES)],
    ]
    return [head, *rows]


def spent_by_place(measured: Measurements) -> dict[str, tuple[float, float]]:
    """Returns read and write units of a new page by table and index, with the body of a real page."""
    places: dict[str, tuple[float, float]] = {}
    for kind in measured.crawl(10_000).kinds:
        reads, writes = places.get(kind.place, (0.0, 0.0))
        places[kind.place] = reads + kind.reads, writes + kind.writes
    reads, writes = places["versions"]
    places["versions"] = reads, writes + BODY_WRITES
    return places


def storage(measured: Measurements) -> list[list[str]]:
    """Returns the bytes and dollars a month of a run of a billion links on a million hosts."""

    def size(place: str, part: str) -> float:
        """Returns the mean bytes of the kind whose primary key has that part."""
        return next(
            size for name, size in measured.sizes.items() if name.startswith(f"{place} ") and part in name
        )

    page = size("pages", "{site} / {id}") + size("pages/by_url", "{site} / {id}")
    version = size("versions", "{id} / {id}") + size("versions/by_site", "{id} / {id}")
    body = BODY_WRITES * WRITE_BYTES + STORED_BYTES
    parts = [
        ("links in the queue's table", LINKS, size("frontier", "{hash}#{run} / {id}")),
        (
            "while they are open: their entries in `by_queue`",
            LINKS,
            size("frontier/by_queue", "{run} / {id}"),
        ),
        ("hosts, with their entries", HOSTS, size("frontier", "host#") + size("frontier/by_queue", "host#")),
        ("pages, with `by_url`, once crawled", LINKS, page),
        ("versions, with `by_site`, one a page", LINKS, version),
        ("bodies, of 91 KB each before compression", LINKS, body),
        ("changes of a month, if all pages are new in it", LINKS, size("pages", "#{site}#{")),
    ]
    rows = [
        [
            what,
            f"{count:,}",
            f"{item_bytes:,.0f}",
            f"{count * item_bytes / 1e9:,.1f}",
            _dollars_a_month(count * item_bytes),
        ]
        for what, count, item_bytes in parts
    ]
    return [["", "number", "bytes of each", "GB", "dollars a month"], *rows]


def once(measured: Measurements) -> list[list[str]]:
    """Returns the rows of the reads and writes that such a run does only once."""
    crawl = measured.crawl(10_000)
    link = next(size for name, size in measured.sizes.items() if name.startswith(f"{ITEMS} / "))
    # A read of the whole run is not rounded for each item.
    run_bytes = LINKS * (link - STORED_BYTES)
    reads = run_bytes / READ_BYTES
    new = sum(kind.writes for kind in crawl.kinds) + BODY_WRITES
    read = sum(kind.reads for kind in crawl.kinds)
    return [
        ["", "write units", "read units", "dollars"],
        ["all links added (2 write units each)", f"{2 * LINKS:,}", "", f"{dollars(0, 2 * LINKS):,.0f}"],
        [
            "all links crawled as new pages, with the line above",
            f"{LINKS * new:,.0f}",
            f"{LINKS * read:,.0f}",
            f"{dollars(LINKS * read, LINKS * new):,.0f}",
        ],
        [
            f"the proof of the end, {math.ceil(run_bytes / QUERY_BYTES):,} requests; again in `complete_run`",
            "",
            f"{reads:,.0f}",
            f"{dollars(reads, 0):,.2f}",
        ],
    ]


def recovery(measured: Measurements) -> list[list[str]]:
    """Returns the seconds until interrupted work is resumed."""
    recovered = measured.recovery
    least = recovered.lease_seconds + recovered.clock_skew
    look = max(0.0, recovered.after_kill - least)
    after_kill = LEASE_SECONDS + recovered.clock_skew + look
    fleet, rate = PROCESSES[-1], RATES[-1]
    return [
        ["what happened", "work stands still for", "of that"],
        [
            "one process is killed",
            f"{after_kill:.1f} s, its items only",
            f"a lease of {LEASE_SECONDS:.0f} s, a clock skew of {recovered.clock_skew:.0f} s, and "
            f"{look:.1f} s until others look (measured with leases of {recovered.lease_seconds:.0f} s: "
            f"{recovered.after_kill:.1f} s in all)",
        ],
        [
            f"all {fleet:,} processes are killed and start again",
            f"{after_kill + fleet * CONCURRENCY / rate:.1f} s, their items only",
            f"{fleet * CONCURRENCY:,} leases of {CONCURRENCY} handlers each are then "
            f"{fleet * CONCURRENCY / rate:.0f} s of work at {rate:,} pages/s",
        ],
        [
            "one process is gone: its share of lists",
            f"{ALIVE_SECONDS + BEAT_SECONDS:.0f} s",
            "others that have nothing left claim from it meanwhile",
        ],
        ["a pause ends", f"{recovered.after_resume:.1f} s", "measured, a worker that waits"],
    ]


TABLES: dict[str, Callable[[Measurements], list[list[str]]]] = {
    "ceilings": ceilings,
    "processes": processes,
    "rates": rates,
    "storage": storage,
    "once": once,
    "recovery": recovery,
}


def _table(make: Callable[[Measurements], list[list[str]]], figures: Any) -> list[str]:
    """Computes a table from the figures of the data file."""
    return markdown(make(Measurements.of_figures(figures)))


PARTS: dict[str, Part] = {name: partial(_table, make) for name, make in TABLES.items()}


def _code(name: str) -> str:
    place, _, pattern = name.partition(" ")
    return f"{place} `{pattern}`"


def _rounded(number: float) -> str:
    """Returns a number with two or three significant digits."""
    if number == math.inf:
        return "never"
    if number < 10:
        return f"{number:.1f}"
    digits = max(0, len(str(int(number))) - 3)
    return f"{round(number, -digits):,.0f}"


def _dollars_a_month(size: float) -> str:
    return f"{size / 1e9 * DOLLARS_A_GB_MONTH:,.2f}"
