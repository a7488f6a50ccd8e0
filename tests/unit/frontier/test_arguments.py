"""Which arguments the frontier's methods take, and what their errors say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from math import inf, nan
from typing import Any

import pytest

from ragcrawl_dynamo import FrontierItem, InvalidArgumentError
from ragcrawl_dynamo._frontier.arguments import (
    HostLimits,
    check_base_url,
    check_claim_options,
    check_delay,
    check_lease,
    check_limit,
    check_link_options,
    check_links,
    check_new_values,
    error_text,
    link_item,
)
from tests.support.factories import make_item
from tests.support.hosts import at

YEAR = 366 * 86_400


def refused(argument: str) -> Any:
    """Expects an error that names an argument."""
    return pytest.raises(InvalidArgumentError, match=rf"^{argument}: ")


# Limits of hosts.


def test_host_limits_are_none_by_default() -> None:
    assert HostLimits.checked(0, None) == HostLimits(0.0, None, None)


def test_host_limits_may_reach_their_bounds() -> None:
    assert HostLimits.checked(YEAR, 1000, 10**12) == HostLimits(float(YEAR), 1000, 10**12)
    assert HostLimits.checked(0.5, 1, 1) == HostLimits(0.5, 1, 1)


@pytest.mark.parametrize(
    ("limits", "argument"),
    [
        ((-1, None, None), "host_delay"),
        ((YEAR + 1, None, None), "host_delay"),
        (("1", None, None), "host_delay"),
        ((0, 0, None), "host_max_in_flight"),
        ((0, 1001, None), "host_max_in_flight"),
        ((0, None, 0), "host_max_items"),
        ((0, None, 10**12 + 1), "host_max_items"),
    ],
)
def test_host_limits_outside_of_their_bounds_are_refused(limits: tuple[Any, ...], argument: str) -> None:
    with refused(argument):
        HostLimits.checked(*limits)


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        ({"seconds": 2}, {"delay": 2.0}),
        ({"seconds": YEAR}, {"delay": float(YEAR)}),
        ({"count": 1000}, {"max_in_flight": 1000}),
        ({"count": None}, {"max_in_flight": None}),
        ({"until": datetime(2026, 1, 1, 12)}, {"blocked_until": at(43_200)}),
    ],
)
def test_limit_of_a_host_is_a_field_of_its_record(limit: dict[str, Any], field: dict[str, Any]) -> None:
    assert check_limit(**limit) == field


@pytest.mark.parametrize(
    "limit", [{"seconds": -1}, {"seconds": YEAR + 1}, {"count": 0}, {"count": 1001}, {"until": 7}]
)
def test_limit_of_a_host_outside_of_its_bounds_is_refused(limit: dict[str, Any]) -> None:
    (argument,) = limit
    with refused(argument):
        check_limit(**limit)


# Claims.


def test_lease_is_longer_than_clocks_may_differ() -> None:
    assert check_lease(4.001, 2.0) == 4.001
    seconds = check_lease(7 * 86_400, 2.0)
    assert (seconds, type(seconds)) == (604_800.0, float)
    message = "lease_seconds: must be more than 4, twice frontier_max_clock_skew, not 4"
    with pytest.raises(InvalidArgumentError, match=f"^{message}$"):
        check_lease(4, 2.0)


@pytest.mark.parametrize("seconds", [7 * 86_400 + 1, -1, None, True])
def test_lease_outside_of_its_bounds_is_refused(seconds: Any) -> None:
    with refused("lease_seconds"):
        check_lease(seconds, 0.0)


def test_options_of_a_claim_may_reach_their_bounds() -> None:
    assert check_claim_options(10_000, "w" * 256, YEAR) == "w" * 256
    assert check_claim_options(1, None, 0) == ""


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ((0, None, 0), "limit"),
        ((10_001, None, 0), "limit"),
        ((1, "w" * 257, 0), "worker_id"),
        ((1, 7, 0), "worker_id"),
        ((1, None, -1), "wait_seconds"),
        ((1, None, YEAR + 1), "wait_seconds"),
    ],
)
def test_options_of_a_claim_outside_of_their_bounds_are_refused(
    options: tuple[Any, ...], argument: str
) -> None:
    with refused(argument):
        check_claim_options(*options)


def test_delay_of_the_next_attempt_is_up_to_a_year() -> None:
    assert check_delay("retry_in", None) is None
    assert check_delay("retry_in", YEAR) == YEAR
    with refused("retry_in"):
        check_delay("retry_in", YEAR + 1)


# Links.


@pytest.mark.parametrize("links", ["https://a.example/", b"https://a.example/", make_item(), 7, None])
def test_single_link_is_refused(links: Any) -> None:
    message = f"must be a collection, not a {type(links).__name__}: put a single value into a list"
    with pytest.raises(InvalidArgumentError, match=f"^links: {message}$"):
        check_links(links)


def test_links_are_not_read_before_they_are_added() -> None:
    links = iter(["https://a.example/"])
    assert check_links(links) is links
    assert list(links) == ["https://a.example/"]


def test_link_options_are_fields_of_items() -> None:
    zone = timezone(timedelta(hours=2))
    options = check_link_options(3, "https://a.example/", 2, datetime(2026, 1, 1, 2, tzinfo=zone))
    assert options == {
        "depth": 3,
        "referrer_url": "https://a.example/",
        "priority": 2.0,
        "scheduled_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    assert type(options["priority"]) is float


def test_link_options_have_defaults() -> None:
    assert check_link_options(0, None, None, None) == {
        "depth": 0,
        "referrer_url": None,
        "priority": 0.0,
        "scheduled_at": None,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((-1, None, None, None), "depth: must be a whole number of at least 0, not -1"),
        ((True, None, None, None), "depth: must be a whole number of at least 0, not True"),
        ((1.0, None, None, None), "depth: must be a whole number of at least 0, not 1.0"),
        ((0, 7, None, None), "referrer_url: must be text, not int"),
        ((0, None, inf, None), "priority: must be a finite number, not inf"),
        ((0, None, nan, None), "priority: must be a finite number, not nan"),
        ((0, None, True, None), "priority: must be a finite number, not True"),
        ((0, None, "1", None), "priority: must be a finite number, not '1'"),
        ((0, None, None, "now"), "not_before: must be a datetime, not str"),
    ],
)
def test_link_option_outside_of_its_bounds_is_refused(options: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_link_options(*options)
    assert str(caught.value) == message


def test_base_url_is_an_absolute_url() -> None:
    assert check_base_url(None) is None
    assert check_base_url("HTTPS://a.example/x") == "HTTPS://a.example/x"
    with pytest.raises(InvalidArgumentError) as caught:
        check_base_url("/x")
    assert str(caught.value) == "base_url: must be an absolute http or https URL, not '/x'"


def test_link_is_built_with_its_fields() -> None:
    item = link_item(
        {"url": "https://a.example/", "run_id": "run", "site_id": "site", "depth": 2, "payload": "text"}
    )
    assert item == FrontierItem(
        item_id="",
        run_id="run",
        site_id="site",
        url="https://a.example/",
        normalized_url="",
        url_hash="",
        domain="",
        depth=2,
        payload="text",
        discovered_at=item.discovered_at,
    )


@pytest.mark.parametrize(
    ("fields", "argument"), [({"depth": "deep"}, "depth"), ({"colour": "red"}, "colour"), ({"url": 7}, "url")]
)
def test_link_with_a_wrong_field_is_refused(fields: dict[str, Any], argument: str) -> None:
    with refused(argument):
        link_item({"url": "https://a.example/", "run_id": "run", "site_id": "site", **fields})


# Settlements.


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("HTTP 503", "HTTP 503"),
        (ValueError("no HTML"), "ValueError: no HTML"),
        (ValueError(), "ValueError"),
        ("broken: ", "broken: "),
        ("x" * 1001, "x" * 1000),
        (ValueError("x" * 1000), f"ValueError: {'x' * 988}"),
        ("lone \ud800", "lone ?"),
    ],
)
def test_error_is_stored_as_text(error: str | Exception, text: str) -> None:
    assert error_text(error) == text


def test_new_values_of_an_item_are_those_that_are_given() -> None:
    assert check_new_values(None, None) == {}
    assert check_new_values("", 0) == {"payload": "", "priority": 0.0}


@pytest.mark.parametrize(("values", "argument"), [((7, None), "payload"), ((None, "high"), "priority")])
def test_new_value_of_a_wrong_type_is_refused(values: tuple[Any, Any], argument: str) -> None:
    with refused(argument):
        check_new_values(*values)
