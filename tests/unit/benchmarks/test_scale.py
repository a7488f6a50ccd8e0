"""The arithmetic of docs/scale.md, with numbers that can be checked by hand."""

import json
import math

import pytest

from benchmarks import scale
from benchmarks.partitions.crawls import Kind, Measured, Recovery, Scenario
from benchmarks.partitions.result import Measurements
from benchmarks.scale import Load


def kinds(item_writes: float) -> list[Kind]:
    return [
        Kind("frontier", "{hash}#{run}", 1, 1.0, item_writes, 1.0, item_writes),
        Kind("frontier", "#{run}", 1, 0.5, 0.1, 0.5, 0.1),
        Kind("frontier/by_queue", "#{run}#{n}", 16, 0.16, 1.6, 0.01, 0.1),
        Kind("runs", "{site}", 1, 0.0, 0.05, 0.0, 0.05),
        Kind("versions", "{id}", 1000, 0.0, 2.0, 0.0, 0.001),
    ]


def crawl(hosts: int, processes: int, item_writes: float, delay: float = 0.0) -> Measured:
    # 250 pages a second, of four processes.
    return Measured(Scenario(hosts, 1000, 1000, delay, processes), 4.0, kinds(item_writes), [])


MEASURED = Measurements(
    [crawl(1, 1, 2.0), crawl(1, 4, 5.0), crawl(10_000, 1, 4.0), crawl(10_000, 4, 4.0)],
    Measured(
        Scenario(300, 600, 600, 3600.0, 1),
        10.0,
        [
            Kind("frontier", "{hash}#{run}", 1, 6.0, 0.0, 6.0, 0.0),
            Kind("frontier/by_queue", "#{run}#{n}", 16, 8.0, 0.0, 0.5, 0.0),
        ],
        [],
    ),
    Recovery(lease_seconds=5.0, clock_skew=2.0, after_kill=7.5, after_resume=0.5),
    {
        "frontier {hash}#{run} / {id}": 612.0,
        "frontier #{run}#members / member#{id}": 196.0,
        "frontier #{run}#{n} / host#{host}": 300.0,
        "frontier/by_queue {hash}#{run} / {id}": 250.0,
        "frontier/by_queue #{run}#{n} / host#{host}": 200.0,
        "pages {site} / {id}": 600.0,
        "pages #{site}#{id} / {id}": 270.0,
        "pages/by_url {site} / {id}": 200.0,
        "versions {id} / {id}#{site}#": 800.0,
        "versions/by_site {id} / {id}#{site}#": 200.0,
    },
)


def column(table: list[list[str]], number: int) -> dict[str, str]:
    return {row[0]: row[number] for row in table}


def test_scale_ceilings_are_the_lowest_of_the_crawls_of_a_size() -> None:
    table = scale.ceilings(MEASURED)
    assert table[0][1:3] == ["1 host", "10,000 hosts"]
    assert column(table, 1)["frontier `{hash}#{run}`"] == "200"
    assert column(table, 2)["frontier `{hash}#{run}`"] == "250"
    assert column(table, 1)["frontier `#{run}`"] == "6,000"
    # Full at a million pages a second: left out.
    assert "versions `{id}`" not in column(table, 1)


def test_scale_loads_of_processes() -> None:
    loads = {load.name: load for load in scale.loads(MEASURED)}
    # 0.05 units a page, 250 pages a second, four processes.
    assert loads["runs `{site}`, writes"].of_each == pytest.approx(3.125)
    assert loads["runs `{site}`, writes"].full_at == pytest.approx(320)
    assert loads["frontier `{hash}#{run}`, reads of each, all waiting"].at(1000) == 6000
    assert loads["frontier/by_queue `#{run}#{n}`, reads of each, all waiting"].full_at == 6000
    # Each of 1,000 processes reads 1,000 signs of life of 96 bytes every 10 seconds.
    assert loads["frontier `#{run}`, reads, at 62 pages/s each"].of_each == pytest.approx(31.25)
    of_members = loads["frontier `#{run}#members`, reads"]
    assert of_members.at(1000) == pytest.approx(1000 * 1000 * 96 / 4096 / 10)


@pytest.mark.parametrize("load", [Load("", 3000, 2.0), Load("", 3000, 2.0, 0.01), Load("", 1000, 0.0, 0.1)])
def test_scale_load_is_full_at_its_limit(load: Load) -> None:
    assert load.at(math.floor(load.full_at)) <= load.limit < load.at(math.floor(load.full_at) + 1)


def test_scale_shares_of_lists() -> None:
    assert scale.shares_of(1, 16) == (16, 16)
    assert scale.shares_of(10, 16)[1] == 2
    assert scale.shares_of(1000, 16) == (0, 1)
    assert scale.shares_of(100, 256)[1] == 3


def test_scale_rates_add_the_body_of_a_real_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "BODY_WRITES", 11.5)
    of_one_thousand = column(scale.rates(MEASURED), 1)
    assert of_one_thousand["write units a second, `versions`"] == "13,500"
    assert of_one_thousand["write units a second, `frontier`"] == "4,100"
    assert of_one_thousand["write units a second, all"] == "19,250"
    assert of_one_thousand["read units a second, all"] == "1,660"
    # 19.25 write units at 0.625 and 1.66 read units at 0.125, a million times.
    assert of_one_thousand["dollars for a million pages"] == "12.24"
    assert of_one_thousand["dollars an hour"] == "44.06"
    assert column(scale.rates(MEASURED), 2)["of the quota of 40,000 for a table, the busiest takes"] == "338%"


def test_scale_storage_and_one_time_reads() -> None:
    stored = scale.storage(MEASURED)
    assert stored[1][1:] == ["1,000,000,000", "612", "612.0", "153.00"]
    assert stored[3][2:4] == ["500", "0.5"]
    proof = scale.once(MEASURED)[-1]
    assert proof[2:] == ["125,000,000", "15.62"]


def test_scale_recovery_takes_the_lease_the_skew_and_a_look() -> None:
    table = scale.recovery(MEASURED)
    assert [row[1] for row in table[1:]] == [
        "62.5 s, its items only",
        "67.5 s, their items only",
        "40 s",
        "0.5 s",
    ]


def test_scale_measurements_are_read_as_they_were_written() -> None:
    assert Measurements.of_figures(json.loads(json.dumps(MEASURED.to_figures()))) == MEASURED
