"""Claims: their fencing tokens, which arguments are claims of a run, and the calls after a lost lease."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import Claim, InvalidArgumentError
from ragcrawl_dynamo._frontier.claim import check_claim, check_claims, guarded, note_lost
from tests.support.factories import make_item
from tests.support.hosts import at


def make_claim(run_id: str = "run", attempt: int = 1) -> Claim:
    return Claim(make_item(run_id=run_id, attempt=attempt, lease_token=f"t{attempt}"), "w", at(30))


def test_token_of_a_later_claim_of_an_item_is_greater_as_text() -> None:
    tokens = [make_claim(attempt=attempt).token for attempt in (1, 9, 10, 123_456_789, 1_234_567_890)]
    assert tokens == sorted(tokens)
    assert tokens[0] == "0000000001.t1"


def test_claim_has_ended_only_when_it_was_settled_or_lost() -> None:
    claim = make_claim()
    assert (claim.ended, claim.lost, claim.settled_as) == (False, False, None)
    assert (claim.has_slot, claim.deadline) == (False, 0.0)
    # Those two are of no use to callers.
    assert "slot" not in repr(claim)
    assert "deadline" not in repr(claim)


def test_lost_lease_is_reported_unless_the_claim_has_ended() -> None:
    lost: list[Claim] = []
    claim, settled = make_claim(), make_claim()
    settled.ended = True
    for noted in (claim, settled, claim):
        note_lost(noted, lost.append)
    assert lost == [claim]
    assert (claim.ended, claim.lost, settled.lost) == (True, True, False)


def test_errors_of_an_observer_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    def observe(claim: Claim) -> None:
        raise ValueError("a bug")

    guarded(observe)(make_claim())
    assert "on_lease_lost raised an error for item item" in caplog.text
    assert "ValueError: a bug" in caplog.text


def test_observer_gets_the_claim() -> None:
    lost: list[Claim] = []
    claim = make_claim()
    guarded(lost.append)(claim)
    guarded(None)(claim)
    assert lost == [claim]


def test_one_claim_or_several_are_taken_as_a_list() -> None:
    claim, other = make_claim(), make_claim()
    assert check_claims(claim, "run") == [claim]
    assert check_claims((claim, other), "run") == [claim, other]
    assert check_claims([], "run") == []
    assert check_claim(claim, "run") is claim


@pytest.mark.parametrize("claims", [make_claim("other"), [make_claim(), make_claim("other")]])
def test_claims_of_another_run_are_refused(claims: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^claims: must be claims of run 'run'"):
        check_claims(claims, "run")


@pytest.mark.parametrize("claims", ["text", 7, [make_item()]])
def test_what_is_no_claim_is_refused(claims: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^claims: must be a"):
        check_claims(claims, "run")


def test_several_claims_are_not_one_claim() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^claim: must be a Claim, not list"):
        check_claim([make_claim()], "run")  # type: ignore[arg-type] # that is what is tested
    with pytest.raises(InvalidArgumentError, match=r"^claims: must be claims of run"):
        check_claim(make_claim("other"), "run")
