"""PartiQL statements, and the conditions and updates that they refuse."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    BeginsWith,
    Between,
    Compare,
    Condition,
    Exists,
    Missing,
    Update,
)
from ragcrawl_dynamo._dynamodb.partiql import update_statement
from ragcrawl_dynamo._dynamodb.values import Key

KEY: Key = {"id": {"S": "1"}}


def test_parameters_stand_in_the_order_of_their_placeholders() -> None:
    update = Update(
        put={"a": {"S": "put"}, ("m", "b"): {"S": "nested"}}, increment={"n": {"N": "1"}}, remove=["x"]
    )
    condition = AllOf((Compare("c", "<", {"S": "c"}), AnyOf((Missing("d"), Compare("d", "=", {"S": "d"})))))
    statement = update_statement('t"able', KEY, update, condition)
    assert statement["Statement"] == (
        'UPDATE "t""able" SET "a" = ? SET "m"."b" = ? SET "n" = "n" + ? REMOVE "x" '
        'WHERE "id" = ? AND (("c" < ?) AND (("d" IS MISSING) OR ("d" = ?))) RETURNING ALL NEW *'
    )
    assert statement["Parameters"] == [
        {"S": "put"},
        {"S": "nested"},
        {"N": "1"},
        {"S": "1"},
        {"S": "c"},
        {"S": "d"},
    ]


@pytest.mark.parametrize(
    "condition",
    [Exists("a"), BeginsWith("a", {"S": "x"}), Between("a", {"S": "x"}, {"S": "y"})],
    ids=lambda condition: type(condition).__name__,
)
def test_a_condition_without_partiql_is_a_bug_that_says_so(condition: Condition) -> None:
    with pytest.raises(TypeError, match=type(condition).__name__):
        update_statement("t", KEY, Update(put={"a": {"S": "x"}}), AllOf((condition,)))


@pytest.mark.parametrize(
    "update", [Update(union={"a": {"SS": ["x"]}}), Update(subtract={"a": {"SS": ["x"]}})]
)
def test_an_update_of_a_set_is_a_bug_that_says_so(update: Update) -> None:
    with pytest.raises(TypeError, match="cannot change sets"):
        update_statement("t", KEY, update, Missing("a"))
