"""The simulation of AWS follows its settings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from tests.support.aws import Lag, Settings, simulated_aws
from tests.support.aws.process import run_simulated_aws
from tests.support.aws.raw import RawTable, Time, code_of, item, raw_table, simulation

pytestmark = pytest.mark.aws

# Every write is as late as every other one.
LATE = Lag(5.0, 5.0)


def put(table: RawTable) -> Awaitable[Any]:
    return table.put("p", "new", place="a", rank="1")


def batch_write(table: RawTable) -> Awaitable[Any]:
    request = {"PutRequest": {"Item": item("p", "new", place="a", rank="1")}}
    return table.client.batch_write_item(RequestItems={table.name: [request]})  # type: ignore[no-any-return]


def transact(table: RawTable, s: str = "new", token: str = "") -> Awaitable[Any]:
    write = {"TableName": table.name, "Item": item("p", s, place="a", rank="1")}
    return table.client.transact_write_items(  # type: ignore[no-any-return]
        TransactItems=[{"Put": write}],
        ClientRequestToken=f"{table.name}{token}",
    )


def statement(table: RawTable, s: str = "new", p: str = "p") -> dict[str, Any]:
    return {
        "Statement": f"INSERT INTO \"{table.name}\" VALUE {{'p': ?, 's': ?, 'place': ?, 'rank': ?}}",
        "Parameters": [{"S": p}, {"S": s}, {"S": "a"}, {"S": "1"}],
    }


def insert(table: RawTable) -> Awaitable[Any]:
    return table.client.batch_execute_statement(Statements=[statement(table)])  # type: ignore[no-any-return]


@pytest.mark.parametrize("write", [put, batch_write, transact, insert])
async def test_index_shows_a_write_after_its_lag(
    engine: str, write: Callable[[RawTable], Awaitable[Any]]
) -> None:
    time = Time()
    async with simulation(engine, Settings(index_lag=LATE), time) as (_, table):
        await write(table)
        assert await table.get("p", "new") == item("p", "new", place="a", rank="1")
        time.now += 4.9
        assert await table.listed("a") == []
        time.now += 0.1
        assert await table.listed("a") == ["new"]


async def test_index_shows_an_entry_at_its_old_place_until_the_move_arrives(engine: str) -> None:
    time = Time()
    async with simulation(engine, Settings(index_lag=LATE), time) as (_, table):
        await put(table)
        time.now += 5
        await table.move("p", "new", "b")
        text = 'UPDATE "{}" SET "rank" = ? WHERE "p" = ? AND "s" = ? AND ("place" = ?) RETURNING ALL NEW *'
        parameters = [{"S": text_value} for text_value in ("2", "p", "new", "b")]
        await table.client.batch_execute_statement(
            Statements=[{"Statement": text.format(table.name), "Parameters": parameters}]
        )
        assert (await table.listed("a"), await table.listed("b")) == (["new"], [])
        time.now += 5
        assert await table.listed("a") == []
        (entry,) = (await table.query_index("b"))["Items"]
        assert entry == item("p", "new", place="b", rank="2")


@pytest.mark.parametrize("is_removed", [False, True])
async def test_index_shows_a_deleted_item_until_the_deletion_arrives(engine: str, is_removed: bool) -> None:
    time = Time()
    async with simulation(engine, Settings(index_lag=LATE), time) as (_, table):
        await put(table)
        time.now += 5
        key = {"TableName": table.name, "Key": item("p", "new")}
        if is_removed:
            await table.client.update_item(**key, UpdateExpression="REMOVE place")
        else:
            await table.client.delete_item(**key)
        assert await table.listed("a") == ["new"]
        time.now += 5
        assert await table.listed("a") == []


async def test_index_copies_items_that_were_there_before_the_simulation(engine: str) -> None:
    async with raw_table(engine) as table:
        await put(table)
        async with (
            simulated_aws(engine, Settings(index_lag=LATE), Time()) as aws,
            raw_table(aws.url) as other,
        ):
            seen = RawTable(other.client, table.name)
            await seen.put("p", "newer", place="a", rank="2")
            assert await seen.listed("a") == ["new"]


async def test_index_of_torn_moves_shows_entries_twice_and_not_at_all(engine: str) -> None:
    time = Time()
    async with simulation(engine, Settings(index_lag=Lag(), torn_moves=True), time) as (_, table):
        for i in range(10):
            await table.put("p", f"{i}", place="a", rank=f"{i}")
        time.now += 10
        for i in range(10):
            await table.move("p", f"{i}", "b")
        time.now += 1
        old, new = await table.listed("a"), await table.listed("b")
        assert {*old} & {*new}
        assert {f"{i}" for i in range(10)} - {*old} - {*new}
        time.now += 9
        assert (await table.listed("a"), len(await table.listed("b"))) == ([], 10)


async def test_index_shows_the_places_of_an_item_in_their_order(engine: str) -> None:
    time = Time()
    async with simulation(engine, Settings(index_lag=Lag(), torn_moves=True), time) as (_, table):
        names = [f"{i}" for i in range(10)]
        for rank in "1234":
            for name in names:
                await table.put("p", name, place="a", rank=rank)
        newest = dict.fromkeys(names, "0")
        for _ in range(50):
            time.now += 0.2
            shown: dict[str, list[str]] = {}
            for entry in (await table.query_index("a"))["Items"]:
                shown.setdefault(entry["s"]["S"], []).append(entry["rank"]["S"])
            for name, ranks in shown.items():
                # An old place and the next one, at most, and none that is older than what was shown before.
                assert int(max(ranks)) - int(min(ranks)) <= 1
                assert max(ranks) >= newest[name]
                newest[name] = max(ranks)
        assert newest == dict.fromkeys(names, "4")


async def test_index_is_read_page_by_page_with_keys_of_the_table(engine: str) -> None:
    time = Time()
    async with simulation(engine, Settings(index_lag=LATE), time) as (_, table):
        for i in range(5):
            await table.put("p", f"{i}", place="a", rank="same")
        time.now += 5
        seen: list[str] = []
        options: dict[str, Any] = {}
        while True:
            answer = await table.query_index("a", Limit=2, ReturnConsumedCapacity="TOTAL", **options)
            assert answer["ConsumedCapacity"]["TableName"] == table.name
            seen += [entry["s"]["S"] for entry in answer["Items"]]
            if (last := answer.get("LastEvaluatedKey")) is None:
                break
            assert last == item("p", seen[-1], place="a", rank="same")
            options = {"ExclusiveStartKey": last}
        assert sorted(seen) == ["0", "1", "2", "3", "4"]


async def test_repeated_transaction_is_done_once_for_the_index_too(engine: str) -> None:
    time = Time()
    async with simulation(engine, Settings(index_lag=LATE), time) as (_, table):
        await transact(table)
        await table.move("p", "new", "b")
        await transact(table)
        time.now += 5
        assert (await table.listed("a"), await table.listed("b")) == ([], ["new"])


async def history(engine: str, seed: int) -> list[tuple[list[str], list[str]]]:
    """Returns what an index shows, step by step."""
    time = Time()
    shown: list[tuple[list[str], list[str]]] = []
    async with simulation(engine, Settings(seed, index_lag=Lag(), torn_moves=True), time) as (_, table):
        # In any order: the draws do not depend on it.
        await asyncio.gather(*(table.put("p", f"{i}", place="a", rank=f"{i}") for i in range(8)))
        for i in range(8):
            time.now += 1
            await table.move("p", f"{i}", "b")
            shown.append((await table.listed("a"), await table.listed("b")))
    return shown


async def test_runs_with_one_seed_repeat(engine: str) -> None:
    first, again, other = [await history(engine, seed) for seed in (1, 1, 2)]
    assert first == again
    assert first != other


async def test_eventually_consistent_reads_show_the_past_at_times(engine: str) -> None:
    time = Time()
    async with simulation(engine, Settings(read_lag=LATE), time) as (_, table):
        await table.put("p", "s", value="old")
        time.now += 5
        await table.put("p", "s", value="new")
        new, old = item("p", "s", value="new"), item("p", "s", value="old")
        request = {
            "TableName": table.name,
            "KeyConditionExpression": "p = :p",
            "ExpressionAttributeValues": {":p": {"S": "p"}},
        }

        async def read(consistent: bool) -> list[Any]:
            got = await table.get("p", "s", consistent=consistent)
            queried = await table.client.query(**request, ConsistentRead=consistent)
            keys = {"Keys": [item("p", "s")], "ConsistentRead": consistent}
            batch = await table.client.batch_get_item(RequestItems={table.name: keys})
            scanned = await table.client.scan(TableName=table.name, ConsistentRead=consistent)
            return [got, *queried["Items"], *batch["Responses"][table.name], *scanned["Items"]]

        for _ in range(5):
            assert await read(True) == [new] * 4
        seen = [await read(False) for _ in range(20)]
        for kind in range(4):
            answers = [row[kind] for row in seen]
            assert old in answers
            assert new in answers
        time.now += 5
        assert [answer for _ in range(10) for answer in await read(False)] == [new] * 40


@pytest.mark.parametrize(("fault", "is_written"), [("errors_before", False), ("errors_after", True)])
async def test_internal_error_comes_before_or_after_the_write(
    engine: str, fault: str, is_written: bool
) -> None:
    async with simulation(engine, Settings()) as (aws, table):
        aws.settings = replace(Settings(), **{fault: 1.0})  # type: ignore[arg-type]
        assert await code_of(put(table)) == "InternalServerError"
        aws.settings = Settings()
        assert (await table.get("p", "new") is not None) == is_written
        assert aws.events[fault] == 1


async def test_cut_connection_hides_a_write_that_was_done(engine: str) -> None:
    async with simulation(engine, Settings()) as (aws, table):
        aws.settings = Settings(cuts_after=1.0)
        with pytest.raises(HTTPClientError):
            await put(table)
        aws.settings = Settings()
        assert await table.get("p", "new") is not None


async def test_share_of_errors_is_that_of_the_settings(engine: str) -> None:
    async with simulation(engine, Settings(errors_before=0.3)) as (aws, table):
        await asyncio.gather(*(table.get("p", "s") for _ in range(100)), return_exceptions=True)
        assert 20 <= aws.events["errors_before"] <= 40


async def test_transactions_that_meet_on_an_item_are_cancelled(engine: str) -> None:
    async with simulation(engine, Settings()) as (aws, table):
        calls = [transact(table, token=f"{i}") for i in range(10)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, ClientError)]
        assert 1 <= len(errors) <= 9
        for error in errors:
            assert error.response["Error"]["Code"] == "TransactionCanceledException"
            reasons: Any = error.response["CancellationReasons"]
            assert [reason["Code"] for reason in reasons] == ["TransactionConflict"]
        assert aws.events["TransactionConflict"] == len(errors)


async def test_single_write_that_meets_a_transaction_is_refused(engine: str) -> None:
    async with simulation(engine, Settings()) as (_, table):
        calls = [call for i in range(10) for call in (transact(table, token=f"{i}"), put(table))]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        codes = {answer.response["Error"]["Code"] for answer in answers if isinstance(answer, ClientError)}
        assert codes == {"TransactionCanceledException", "TransactionConflictException"}


async def test_single_writes_of_one_item_wait_for_each_other(engine: str) -> None:
    async with simulation(engine, Settings()) as (_, table):
        request = {
            "TableName": table.name,
            "Key": item("p", "count"),
            "UpdateExpression": "ADD #n :one",
            "ExpressionAttributeNames": {"#n": "n"},
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
        answers = await asyncio.gather(*(table.client.update_item(**request) for _ in range(20)))
        assert [answer.get("Attributes") for answer in answers] == [None] * 20
        assert (await table.get("p", "count") or {})["n"] == {"N": "20"}


async def test_conflicts_are_drawn_too(engine: str) -> None:
    async with simulation(engine, Settings(conflicts=1.0)) as (_, table):
        assert await code_of(put(table)) == "TransactionConflictException"
        assert await code_of(transact(table)) == "TransactionCanceledException"
        await batch_write(table)
        assert await table.get("p", "new") is not None


async def test_simulation_in_a_process_of_its_own_can_be_changed(engine: str) -> None:
    with run_simulated_aws(engine, Settings(index_lag=Lag())) as aws:
        async with raw_table(aws.url) as table:
            aws.configure(Settings(index_lag=Lag(), errors_before=1.0))
            assert await code_of(put(table)) == "InternalServerError"
            assert aws.events()["errors_before"] == 1
            aws.configure(Settings(index_lag=Lag()))
