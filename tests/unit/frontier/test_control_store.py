"""Reads and conditional updates of a run's control; on a client that answers from a script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ragcrawl_dynamo import AmbiguousIdError, FrontierCancelledError, InvalidArgumentError
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.values import Item, moment_text
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.control_store import ControlStore
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._schema.keys import control_key, run_key
from ragcrawl_dynamo._schema.records import RunControl, RunState
from ragcrawl_dynamo._schema.tables import CONTROLS, Tables
from tests.support.fakes import client_error, open_gateway
from tests.support.hosts import at
from tests.support.written import spelled

RULES: dict[str, Any] = {"normalize": "normalize_url", "politeness_key": "host"}
FIRST = RunControl(run="run", site_id="site", buckets=16, host_delay=1.0, host_max_items=9, **RULES)
STORED = FIRST.model_copy(update={"buckets": 4})
WITHOUT_RULES = STORED.model_copy(update=dict.fromkeys(["host_max_items", *RULES]))
OF_OTHER_SITE = STORED.model_copy(update={"site_id": "other"})

Call = Callable[[ControlStore], Awaitable[Any]]


def item_of(control: RunControl, **more: Any) -> Item:
    return {**to_item(CONTROLS, control), **more}


def refused(control: RunControl | None, **more: Any) -> Exception:
    """Returns the error of a write whose condition does not hold for a stored control, or for none."""
    parts: dict[str, Any] = {} if control is None else {"Item": item_of(control, **more)}
    error: Exception = client_error("ConditionalCheckFailedException", **parts)
    return error


class Script:
    """Answers each operation with its own answers, one after the other; the last one again and again."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {operation: list(many) for operation, many in answers.items()}
        self.stores: list[ControlStore] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []

    async def run(self, *calls: Call, rules: LinkRules | None = None) -> Any:
        """Calls the store; returns the result of the last call."""
        result = None
        async with open_gateway(self._answer) as (gateway, client):
            self.requests = client.requests
            store = ControlStore(gateway, Tables.of(""), FIRST, rules or LinkRules())
            self.stores.append(store)
            for call in calls:
                result = await call(store)
        return result

    def sent(self, operation: str) -> list[dict[str, Any]]:
        return [request for name, request in self.requests if name == operation]

    def _answer(self, operation: str, request: dict[str, Any]) -> Any:
        answers = self.answers.get(operation, [{}])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    @property
    def store(self) -> ControlStore:
        return self.stores[-1]


def stored(control: RunControl) -> dict[str, Any]:
    return {"Item": item_of(control)}


# Reads


async def test_control_is_read_by_its_key_and_tells_the_buckets() -> None:
    script = Script(get_item=[stored(STORED)])
    assert await script.run(lambda store: store.read()) == STORED
    (request,) = script.sent("get_item")
    assert (request["Key"], request["ConsistentRead"]) == (control_key("run"), True)
    assert (script.store.key, script.store.run_id, script.store.site_id) == (
        control_key("run"),
        "run",
        "site",
    )
    assert script.store.buckets == 4


async def test_control_that_is_not_stored_is_none_and_leaves_the_buckets_open() -> None:
    script = Script()
    calls: list[Call] = [lambda store: store.read(), lambda store: store.know_buckets()]
    assert await script.run(*calls) is None
    assert script.store.buckets == 16
    # Its own two reads, and once those of the swapped ids.
    assert [request["Key"] for request in script.sent("get_item")] == [
        control_key("run"),
        run_key("run", "site"),
        control_key("site"),
        control_key("run"),
    ]


async def test_buckets_are_read_once_until_they_are_forgotten() -> None:
    script = Script(get_item=[stored(STORED)])
    know: Call = lambda store: store.know_buckets()  # noqa: E731 # it is called three times

    async def forget(store: ControlStore) -> None:
        assert (store.buckets, len(script.requests)) == (4, 1)
        store.forget()
        assert store.buckets == 16

    await script.run(know, know, forget, know)
    assert (script.store.buckets, len(script.requests)) == (4, 2)


async def test_control_of_another_sites_run_is_refused() -> None:
    script = Script(get_item=[stored(OF_OTHER_SITE)])
    with pytest.raises(AmbiguousIdError, match="run_id 'run' is in use by site 'other'"):
        await script.run(lambda store: store.read())


@pytest.mark.parametrize("swapped", ["run", "control"])
async def test_swapped_ids_are_refused_if_nothing_is_stored(swapped: str) -> None:
    of_swapped = RunControl(run="site", site_id="run")
    answers = [{"Item": run_key("run", "site")}] if swapped == "run" else [{}, stored(of_swapped)]
    script = Script(get_item=[{}, *answers])
    with pytest.raises(InvalidArgumentError, match="the two are swapped"):
        await script.run(lambda store: store.read())


async def test_run_of_another_site_with_the_id_of_this_site_is_no_swap() -> None:
    script = Script(get_item=[{}, {}, stored(RunControl(run="site", site_id="third"))])
    assert await script.run(lambda store: store.read()) is None


async def test_run_with_the_id_of_its_site_cannot_be_swapped() -> None:
    script = Script()
    async with open_gateway(script._answer) as (gateway, client):
        first = RunControl(run="same", site_id="same")
        assert await ControlStore(gateway, Tables.of(""), first, LinkRules()).read() is None
    assert [request["Key"] for _, request in client.requests] == [control_key("same")]


# The first control


async def test_first_control_is_stored_without_rules_by_a_process_that_adds_nothing() -> None:
    script = Script()
    without = FIRST.model_copy(update=dict.fromkeys(["host_max_items", *RULES]))
    assert await script.run(lambda store: store.make()) == without
    (request,) = script.sent("put_item")
    assert request["Item"] == item_of(without)
    assert spelled(request, "ConditionExpression") == "attribute_not_exists(run_id)"


async def test_first_control_is_stored_with_rules_by_a_process_that_adds_links() -> None:
    script = Script()
    assert await script.run(lambda store: store.make(with_rules=True)) == FIRST
    assert script.sent("put_item")[0]["Item"] == item_of(FIRST)


async def test_control_that_another_process_stores_first_is_returned() -> None:
    script = Script(put_item=[refused(STORED)])
    assert await script.run(lambda store: store.make()) == STORED
    assert script.store.buckets == 4


async def test_control_that_another_process_stores_first_may_not_be_told() -> None:
    script = Script(put_item=[refused(None)])
    assert await script.run(lambda store: store.make(with_rules=True)) == FIRST


# Admission of links


async def admit(control: RunControl | None, script: Script, rules: LinkRules | None = None) -> RunControl:
    admitted = await script.run(lambda store: store.admit(control), rules=rules)
    assert isinstance(admitted, RunControl)
    return admitted


async def test_links_are_admitted_by_the_control_that_was_read() -> None:
    script = Script()
    assert await admit(STORED, script) == STORED
    assert script.requests == []


async def test_first_links_store_the_control_with_rules() -> None:
    script = Script()
    assert await admit(None, script) == FIRST
    assert script.sent("put_item")[0]["Item"]["normalize"] == {"S": "normalize_url"}


async def test_rules_are_recorded_by_the_first_process_that_adds_links() -> None:
    script = Script()
    recorded = STORED.model_copy(update={"host_max_items": 9})
    assert await admit(WITHOUT_RULES, script) == recorded
    (request,) = script.sent("update_item")
    assert spelled(request, "UpdateExpression") == (
        "SET host_max_items = 9, normalize = normalize_url, politeness_key = host"
    )
    assert spelled(request, "ConditionExpression") == (
        "(attribute_exists(run_id)) AND (site_id = site) AND (attribute_not_exists(normalize))"
    )


async def test_rules_that_another_process_records_first_hold() -> None:
    other = STORED.model_copy(update={"normalize": "module:function"})
    with pytest.raises(InvalidArgumentError, match="uses 'module:function'"):
        await admit(WITHOUT_RULES, Script(update_item=[refused(other)]))
    fewer = STORED.model_copy(update={"host_max_items": 3})
    assert await admit(WITHOUT_RULES, Script(update_item=[refused(fewer)])) == fewer


async def test_links_under_other_rules_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="normalize"):
        await admit(STORED.model_copy(update={"normalize": "module:function"}), Script())


async def test_links_of_a_cancelled_run_are_refused() -> None:
    with pytest.raises(FrontierCancelledError, match="run 'run' was cancelled"):
        await admit(STORED.model_copy(update={"state": RunState.CANCELLED}), Script())
    paused = STORED.model_copy(update={"state": RunState.PAUSED})
    assert await admit(paused, Script()) == paused


@pytest.mark.parametrize("first", ["check_rules", "admit"])
async def test_rules_are_checked_once_until_the_control_is_forgotten(first: str) -> None:
    script = Script(get_item=[stored(STORED)])
    check: Call = lambda store: store.check_rules()  # noqa: E731 # it is called three times

    async def begin(store: ControlStore) -> None:
        await (store.check_rules() if first == "check_rules" else store.admit(STORED))
        script.requests.clear()

    await script.run(begin, check)
    assert script.requests == []

    async def forget(store: ControlStore) -> None:
        store.forget()

    await script.run(begin, forget, check)
    assert len(script.requests) == 1


async def test_rules_are_checked_again_while_no_control_is_stored() -> None:
    other = STORED.model_copy(update={"normalize": "module:function"})
    script = Script(get_item=[{}, {}, {}, stored(other)])
    with pytest.raises(InvalidArgumentError, match="normalize"):
        await script.run(lambda store: store.check_rules(), lambda store: store.check_rules())


# Updates

OWN = "(attribute_exists(run_id)) AND (site_id = site)"
NOT_CANCELLED = "(attribute_not_exists(state)) OR (state <> cancelled)"


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.RUNNING])
async def test_run_that_is_not_cancelled_can_be_paused_and_resumed(state: RunState) -> None:
    script = Script()
    await script.run(lambda store: store.set_state(state))
    (request,) = script.sent("update_item")
    assert request["Key"] == control_key("run")
    assert spelled(request, "UpdateExpression") == f"SET state = {state}"
    assert spelled(request, "ConditionExpression") == f"{OWN} AND ({NOT_CANCELLED})"


async def test_run_can_be_cancelled_twice() -> None:
    script = Script()
    await script.run(lambda store: store.set_state(RunState.CANCELLED))
    (request,) = script.sent("update_item")
    assert spelled(request, "ConditionExpression") == f"{OWN} AND (({NOT_CANCELLED}) OR (state = cancelled))"


async def test_cancelled_run_cannot_be_resumed() -> None:
    script = Script(update_item=[refused(STORED)])
    with pytest.raises(FrontierCancelledError, match="run 'run' was cancelled"):
        await script.run(lambda store: store.set_state(RunState.RUNNING))


async def test_update_of_another_sites_run_is_refused() -> None:
    script = Script(update_item=[refused(OF_OTHER_SITE)])
    with pytest.raises(AmbiguousIdError):
        await script.run(lambda store: store.set_state(RunState.PAUSED))


async def test_update_stores_the_first_control_if_there_is_none() -> None:
    script = Script(update_item=[refused(None), {}])
    await script.run(lambda store: store.set_state(RunState.PAUSED))
    operations = [name for name, _ in script.requests if name != "get_item"]
    assert operations == ["update_item", "put_item", "update_item"]
    first, second = script.sent("update_item")
    assert first == second


async def test_new_limits_change_a_name_that_all_processes_read() -> None:
    script = Script()
    await script.run(lambda store: store.note_new_limits(), lambda store: store.note_new_limits())
    first, second = (spelled(request, "UpdateExpression") for request in script.sent("update_item"))
    assert first.startswith("SET limits_changed_by = ")
    assert first != second
    assert spelled(script.sent("update_item")[0], "ConditionExpression") == OWN


# The proof that the run is finished

TOKEN = WriteToken("verifying", {"S": "proof"})


async def begin(script: Script) -> WriteToken | None:
    token: WriteToken | None = await script.run(lambda store: store.begin_verification(at(100)))
    return token


async def test_proof_begins_unless_another_process_lives_that_does_it() -> None:
    script = Script()
    token = await begin(script)
    assert token is not None
    assert token.path == "verifying"
    (request,) = script.sent("update_item")
    value, now = token.value["S"], moment_text(at(100))
    # With eight bytes.
    assert len(value) == 16
    assert spelled(request, "UpdateExpression") == f"SET verifying = {value}, verifying_since = {now}"
    # It counts as dead after a minute without a sign of life.
    is_free = f"(attribute_not_exists(verifying)) OR (verifying_since < {moment_text(at(40))})"
    assert spelled(request, "ConditionExpression") == f"{OWN} AND ({is_free})"


async def test_proof_does_not_begin_while_another_process_does_it() -> None:
    assert await begin(Script(update_item=[refused(STORED, verifying={"S": "other"})])) is None


async def test_proof_has_begun_if_the_answer_to_its_own_write_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(WriteToken, "new", lambda path, length: TOKEN)
    assert await begin(Script(update_item=[refused(STORED, verifying={"S": "proof"})])) == TOKEN


@pytest.mark.parametrize(("answer", "is_kept"), [({}, True), (refused(STORED), False)])
async def test_proof_is_kept_until_an_item_is_added(answer: Any, *, is_kept: bool) -> None:
    script = Script(update_item=[answer])
    assert await script.run(lambda store: store.keep_verification(TOKEN, at(100))) is is_kept
    (request,) = script.sent("update_item")
    assert spelled(request, "UpdateExpression") == f"SET verifying_since = {moment_text(at(100))}"
    assert spelled(request, "ConditionExpression") == f"{OWN} AND (verifying = proof)"


async def end(script: Script, counts: dict[str, int] | None) -> bool:
    is_finished: bool = await script.run(lambda store: store.end_verification(TOKEN, counts))
    return is_finished


async def test_run_is_finished_by_a_proof_that_holds() -> None:
    script = Script()
    assert await end(script, {"completed": 3}) is True
    (request,) = script.sent("update_item")
    assert spelled(request, "UpdateExpression") == (
        "SET finished_by = proof, final_counts = {'completed': {'N': '3'}} REMOVE verifying, verifying_since"
    )
    assert spelled(request, "ConditionExpression") == f"{OWN} AND (verifying = proof)"


async def test_run_without_items_is_finished_too() -> None:
    assert await end(Script(), {}) is True


async def test_proof_that_failed_ends_without_a_finish() -> None:
    script = Script()
    assert await end(script, None) is False
    (request,) = script.sent("update_item")
    assert spelled(request, "UpdateExpression") == "REMOVE verifying, verifying_since"


async def test_run_is_not_finished_if_an_item_was_added_meanwhile() -> None:
    assert await end(Script(update_item=[refused(STORED)]), {"completed": 3}) is False
    other = {"finished_by": {"S": "other"}}
    assert await end(Script(update_item=[refused(STORED, **other)]), {"completed": 3}) is False


async def test_run_is_finished_if_the_answer_to_its_own_proof_was_lost() -> None:
    proof = {"finished_by": {"S": "proof"}}
    assert await end(Script(update_item=[refused(STORED, **proof)]), {"completed": 3}) is True
    assert await end(Script(update_item=[refused(STORED, **proof)]), None) is False


@pytest.mark.parametrize("proof", [{"verifying": "proof"}, {"finished_by": "proof"}])
async def test_reopened_run_has_no_proof(proof: dict[str, str]) -> None:
    script = Script()
    await script.run(lambda store: store.reopen(STORED.model_copy(update=proof)))
    (request,) = script.sent("update_item")
    assert spelled(request, "UpdateExpression") == "REMOVE verifying, verifying_since, finished_by"
    assert spelled(request, "ConditionExpression") == OWN


@pytest.mark.parametrize("control", [None, STORED])
async def test_run_without_a_proof_is_not_written(control: RunControl | None) -> None:
    script = Script()
    await script.run(lambda store: store.reopen(control))
    assert script.requests == []


FINISHED = STORED.model_copy(update={"finished_by": "proof"})


def run_with(status: str) -> dict[str, Any]:
    return {"Item": {**run_key("site", "run"), "status": {"S": status}}}


async def test_addition_to_a_run_that_has_ended_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(get_item=[run_with("partial")])
    await script.run(*[lambda store: store.warn_of_end(FINISHED)] * 2)
    (request,) = script.sent("get_item")
    assert request["Key"] == run_key("site", "run")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "run 'run' of site 'site' has ended with status partial"
    ]


@pytest.mark.parametrize("run", [{}, run_with("running")])
async def test_addition_to_a_finished_run_that_is_open_is_not_logged(
    run: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    await Script(get_item=[run]).run(lambda store: store.warn_of_end(FINISHED))
    assert caplog.records == []


async def test_addition_to_a_run_that_is_not_finished_does_not_read_the_run() -> None:
    script = Script()
    await script.run(lambda store: store.warn_of_end(STORED))
    assert script.requests == []
