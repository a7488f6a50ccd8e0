"""Conditional writes under faults, on a scripted client and with lost answers on DynamoDB Local."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import (
    AccessDeniedError,
    ConflictError,
    RagcrawlDynamoError,
    RequestRejectedError,
    ThrottledError,
)
from ragcrawl_dynamo._dynamodb.coalescing import CoalescedWrites
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    ConditionalInsert,
    ConditionalUpdate,
    conditional_writes,
)
from ragcrawl_dynamo._dynamodb.expressions import Compare, Update
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Refused, is_throttled
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import frontier_key
from ragcrawl_dynamo._schema.tables import FRONTIER
from tests.support.fakes import ATTEMPTS, FAST, FakeClient, client_error, open_gateway

PARTIQL = FAST.model_copy(update={"conditional_batches": "partiql"})
AUTO = FAST.model_copy(update={"conditional_batches": "auto"})


def insert(item_id: str, token: str = "mine") -> ConditionalInsert:
    return ConditionalInsert(
        {**frontier_key("run", item_id), "writer": {"S": token}}, WriteToken("writer", {"S": token})
    )


def claim(item_id: str) -> ConditionalUpdate:
    update = Update(put={"writer": {"S": "mine"}})
    return ConditionalUpdate(
        frontier_key("run", item_id),
        update,
        Compare("status", "=", {"S": "pending"}),
        WriteToken("writer", {"S": "mine"}),
    )


def error(code: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": f"message of {code}"}}


def item_id(statement: Any) -> str:
    return str(statement["Parameters"][1]["S"])


def sent(client: FakeClient) -> list[list[str]]:
    return [
        [item_id(statement) for statement in request["Statements"]]
        for operation, request in client.requests
        if operation == "batch_execute_statement"
    ]


async def test_conditional_writes_send_25_statements_a_request() -> None:
    def answer(operation: str, request: Any) -> Any:
        return {"Responses": [{} for _ in request["Statements"]]}

    async with open_gateway(answer, PARTIQL) as (gateway, client):
        outcomes = await conditional_writes(gateway, FRONTIER).run([insert(f"{i}") for i in range(60)])
    assert outcomes == [Applied()] * 60
    assert sorted(map(len, sent(client))) == [10, 25, 25]


@pytest.mark.parametrize(
    "code",
    ["ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded", "TransactionConflict"],
)
async def test_conditional_writes_retry_only_transient_errors(code: str) -> None:
    def answer(operation: str, request: Any) -> Any:
        if operation == "batch_get_item":
            return {"Responses": {"frontier": []}}
        first = len(request["Statements"]) == 4
        answers = [{}, error(code), error("DuplicateItem"), error("ValidationError")]
        return {"Responses": answers if first else [{}]}

    async with open_gateway(answer, PARTIQL) as (gateway, client):
        outcomes = await conditional_writes(gateway, FRONTIER).run([insert(name) for name in "abcd"])
    assert [type(outcome) for outcome in outcomes] == [Applied, Applied, Refused, Failed]
    assert sent(client) == [["a", "b", "c", "d"], ["b"]]
    failed = outcomes[3]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, RequestRejectedError)
    assert "message of ValidationError" in str(failed.error)


@pytest.mark.parametrize(
    ("code", "kind"), [("ThrottlingError", ThrottledError), ("TransactionConflict", ConflictError)]
)
async def test_conditional_writes_that_stay_throttled_or_in_conflict_fail_alone(
    code: str, kind: type[RagcrawlDynamoError]
) -> None:
    def answer(operation: str, request: Any) -> Any:
        stuck = [error(code) if item_id(statement) == "b" else {} for statement in request["Statements"]]
        return {"Responses": stuck}

    async with open_gateway(answer, PARTIQL) as (gateway, client):
        outcomes = await conditional_writes(gateway, FRONTIER).run([insert(name) for name in "abc"])
    assert [type(outcome) for outcome in outcomes] == [Applied, Failed, Applied]
    assert isinstance(outcomes[1], Failed)
    assert isinstance(outcomes[1].error, kind)
    assert len(sent(client)) == 1 + ATTEMPTS


@pytest.mark.parametrize("batches", ["partiql", "item"])
async def test_conditional_writes_that_are_sent_once_do_not_wait_for_throttled_ones(batches: str) -> None:
    def answer(operation: str, request: Any) -> Any:
        if operation == "put_item":
            if request["Item"]["item_id"]["S"] == "b":
                raise client_error("ProvisionedThroughputExceededException")
            return {}
        stuck = [
            error("ThrottlingError") if item_id(statement) == "b" else {}
            for statement in request["Statements"]
        ]
        return {"Responses": stuck}

    slow = FAST.model_copy(
        update={"conditional_batches": batches, "retry_base_delay": 1e6, "retry_max_delay": 1e6}
    )
    async with open_gateway(answer, slow) as (gateway, _):
        outcomes = await conditional_writes(gateway, FRONTIER).run(
            [insert(name) for name in "abc"], once=True
        )
    assert [type(outcome) for outcome in outcomes] == [Applied, Failed, Applied]
    assert is_throttled(outcomes[1])
    assert not outcomes[1].may_be_applied


@pytest.mark.parametrize("batches", ["partiql", "item"])
async def test_conditional_write_may_be_applied_if_an_answer_was_lost_before_it_was_throttled(
    batches: str,
) -> None:
    answers = iter(
        [EndpointConnectionError(endpoint_url="lost"), client_error("ProvisionedThroughputExceededException")]
    )

    def answer(operation: str, request: Any) -> Any:
        raise next(answers)

    config = FAST.model_copy(update={"conditional_batches": batches})
    async with open_gateway(answer, config) as (gateway, _):
        (outcome,) = await conditional_writes(gateway, FRONTIER).run([insert("a")], once=True)
    assert is_throttled(outcome)
    assert outcome.may_be_applied


@pytest.mark.parametrize("batches", ["partiql", "item"])
async def test_conditional_write_that_was_sent_before_may_be_applied_although_it_is_throttled(
    batches: str,
) -> None:
    def answer(operation: str, request: Any) -> Any:
        raise client_error("ProvisionedThroughputExceededException")

    config = FAST.model_copy(update={"conditional_batches": batches})
    async with open_gateway(answer, config) as (gateway, _):
        again = replace(insert("a"), may_be_applied=True)
        (outcome,) = await conditional_writes(gateway, FRONTIER).run([again], once=True)
    assert is_throttled(outcome)
    assert outcome.may_be_applied


async def test_conditional_write_that_found_no_permit_in_time_has_not_been_done() -> None:
    async with open_gateway(lambda *_: {}, PARTIQL) as (gateway, client):
        for _ in range(PARTIQL.max_connections):
            gateway._window("frontier")._held += 1
        (outcome,) = await conditional_writes(gateway, FRONTIER).run([insert("a")], seconds=0.01)
    assert isinstance(outcome, Failed)
    assert "no permit within 0.01 s" in str(outcome.error)
    assert not outcome.may_be_applied
    assert client.requests == []


async def test_coalesced_writes_that_are_throttled_do_not_hold_the_others() -> None:
    served: list[str] = []
    throttled = {"hot": 2}

    def answer(operation: str, request: Any) -> Any:
        responses = []
        for name in map(item_id, request["Statements"]):
            if throttled.get(name, 0) > 0:
                throttled[name] -= 1
                responses.append(error("ThrottlingError"))
            else:
                served.append(name)
                responses.append({})
        return {"Responses": responses}

    pauses: list[tuple[int, float]] = []
    config = PARTIQL.model_copy(update={"retry_base_delay": 0.05})
    async with open_gateway(answer, config) as (gateway, client):
        writes = CoalescedWrites(gateway, FRONTIER, conditional_writes(gateway, FRONTIER))
        hot = asyncio.create_task(
            writes.run([insert("hot")], on_throttled=lambda i, pause: pauses.append((i, pause)))
        )
        assert await writes.run([insert("a"), insert("b")]) == [Applied(), Applied()]
        # The throttled write waits for no permit and for no batch, and later writes of its key wait for it.
        assert not hot.done()
        later = asyncio.create_task(writes.run([insert("hot", "later")]))
        assert await hot == [Applied()]
        assert await later == [Applied()]
        await writes.close()
    assert sorted(sent(client)[0]) == ["a", "b", "hot"]
    assert sorted(served) == ["a", "b", "hot", "hot"]
    assert [i for i, _ in pauses] == [0, 0]


async def test_coalesced_write_that_stays_throttled_fails() -> None:
    def answer(operation: str, request: Any) -> Any:
        return {"Responses": [error("ThrottlingError") for _ in request["Statements"]]}

    async with open_gateway(answer, PARTIQL) as (gateway, client):
        writes = CoalescedWrites(gateway, FRONTIER, conditional_writes(gateway, FRONTIER))
        with pytest.raises(ThrottledError):
            await writes.run([insert("a")])
        await writes.close()
    assert len(client.requests) == ATTEMPTS


@pytest.mark.parametrize("batches", ["partiql", "item"])
async def test_coalesced_write_that_is_throttled_after_its_answer_was_lost_is_sent_again(
    batches: str,
) -> None:
    attempts: list[str] = []

    def answer(operation: str, request: Any) -> Any:
        if operation == "batch_get_item":
            return {"Responses": {"frontier": [insert("a").item]}}
        attempts.append(operation)
        if len(attempts) == 1:  # it is done
            raise EndpointConnectionError(endpoint_url="lost")
        is_throttled = len(attempts) <= 3
        if operation == "batch_execute_statement":
            return {"Responses": [error("ThrottlingError" if is_throttled else "DuplicateItem")]}
        if is_throttled:
            raise client_error("ProvisionedThroughputExceededException")
        raise client_error("ConditionalCheckFailedException", Item=insert("a").item)

    config = FAST.model_copy(update={"conditional_batches": batches})
    async with open_gateway(answer, config) as (gateway, _):
        writes = CoalescedWrites(gateway, FRONTIER, conditional_writes(gateway, FRONTIER))
        assert await writes.run([insert("a")]) == [Applied()]
        await writes.close()
    assert len(attempts) == 4


async def test_write_token_recognizes_a_statement_whose_answer_was_lost() -> None:
    stored = {"a": "mine", "b": "another's"}

    def answer(operation: str, request: Any) -> Any:
        if operation == "batch_get_item":
            names = [key["item_id"]["S"] for key in request["RequestItems"]["frontier"]["Keys"]]
            items = [{**frontier_key("run", name), "writer": {"S": stored[name]}} for name in names]
            return {"Responses": {"frontier": items}}
        if not calls:
            calls.append(operation)
            raise EndpointConnectionError(endpoint_url="lost")
        return {"Responses": [error("ConditionalCheckFailed") for _ in request["Statements"]]}

    calls: list[str] = []
    async with open_gateway(answer, PARTIQL) as (gateway, _):
        changes = [
            ConditionalUpdate(change.key, change.update, change.condition, change.token)
            for change in map(claim, "ab")
        ]
        outcomes = await conditional_writes(gateway, FRONTIER).run(changes)
    assert [type(outcome) for outcome in outcomes] == [Applied, Refused]
    assert isinstance(outcomes[0], Applied)
    assert outcomes[0].item is not None
    assert outcomes[0].item["writer"] == {"S": "mine"}


async def test_write_token_recognizes_a_single_write_whose_answer_was_lost() -> None:
    def answer(operation: str, request: Any) -> Any:
        stored = request.get("Item", {"writer": {"S": "another's"}})
        raise client_error("ConditionalCheckFailedException", Item=stored)

    single = FAST.model_copy(update={"conditional_batches": "item"})
    async with open_gateway(answer, single) as (gateway, _):
        outcomes = await conditional_writes(gateway, FRONTIER).run([insert("a"), claim("b")])
    assert [type(outcome) for outcome in outcomes] == [Applied, Refused]


@pytest.mark.parametrize("whole", [True, False], ids=["whole call", "statement"])
async def test_conditional_batches_auto_falls_back_to_single_requests_and_warns_once(
    caplog: pytest.LogCaptureFixture, whole: bool
) -> None:
    def answer(operation: str, request: Any) -> Any:
        if operation != "batch_execute_statement":
            return {}
        if whole:
            raise client_error("AccessDeniedException")
        return {"Responses": [error("AccessDenied") for _ in request["Statements"]]}

    with caplog.at_level(logging.WARNING, "ragcrawl_dynamo"):
        async with open_gateway(answer, AUTO) as (gateway, client):
            writes = conditional_writes(gateway, FRONTIER)
            for _ in range(3):
                assert await writes.run([insert(name) for name in "ab"]) == [Applied(), Applied()]
    assert len(sent(client)) == 1
    assert len(caplog.records) == 1
    assert "Allow dynamodb:PartiQLInsert" in caplog.text


async def test_conditional_batches_auto_falls_back_at_once_where_partiql_seems_unsupported() -> None:
    """moto answers 500, without a name for the error."""

    def answer(operation: str, request: Any) -> Any:
        if operation == "batch_execute_statement":
            raise client_error("500", 500)
        return {}

    slow = AUTO.model_copy(update={"retry_base_delay": 60.0})
    async with open_gateway(answer, slow) as (gateway, client):
        writes = conditional_writes(gateway, FRONTIER)
        async with asyncio.timeout(1):
            assert await writes.run([insert(name) for name in "ab"]) == [Applied(), Applied()]
            assert await writes.run([insert("c")]) == [Applied()]
    assert len(sent(client)) == 1


@pytest.mark.parametrize("way", ["auto", "partiql"])
async def test_conditional_batches_are_sent_again_after_a_nameless_fault_where_partiql_is_served(
    way: str,
) -> None:
    fault = client_error("500", 500)
    faults = [None, fault, None] if way == "auto" else [fault, None]

    def answer(operation: str, request: Any) -> Any:
        assert operation == "batch_execute_statement"
        if (error := faults.pop(0)) is not None:
            raise error
        return {"Responses": [{} for _ in request["Statements"]]}

    config = FAST.model_copy(update={"conditional_batches": way})
    async with open_gateway(answer, config) as (gateway, _):
        writes = conditional_writes(gateway, FRONTIER)
        while faults:
            assert await writes.run([insert("a")]) == [Applied()]


async def test_conditional_batches_partiql_fails_where_partiql_is_denied() -> None:
    def answer(operation: str, request: Any) -> Any:
        raise client_error("AccessDeniedException")

    async with open_gateway(answer, PARTIQL) as (gateway, _):
        (outcome,) = await conditional_writes(gateway, FRONTIER).run([insert("a")])
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, AccessDeniedError)
