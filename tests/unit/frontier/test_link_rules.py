"""The names by which the rules of a run are recorded."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from ragcrawl_dynamo import InvalidArgumentError, normalize_url, registrable_domain
from ragcrawl_dynamo._frontier.link_rules import LinkRules


def by_query(url: str) -> str:
    return normalize_url(url, sort_query=False)


class Rules:
    @classmethod
    def of_class(cls, url: str) -> str:
        return url

    @staticmethod
    def static(url: str) -> str:
        return url

    def of_object(self, url: str) -> str:
        return url


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (None, "normalize_url"),
        (normalize_url, "normalize_url"),
        (registrable_domain, "registrable_domain"),
        (by_query, f"{__name__}:by_query"),
        (Rules.of_class, f"{__name__}:Rules.of_class"),
        (Rules.static, f"{__name__}:Rules.static"),
    ],
)
def test_rule_is_recorded_by_module_and_name(function: Any, name: str) -> None:
    assert LinkRules.checked(function, None).names() == {"normalize": name, "politeness_key": "host"}


@pytest.mark.parametrize(
    "function",
    [lambda url: url, partial(normalize_url, keep_fragment=True), Rules().of_object, "by_query"],
)
def test_rule_that_others_cannot_find_by_its_name_is_refused(function: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="politeness_key: must be a function"):
        LinkRules.checked(None, function)


def test_rule_of_the_program_is_recorded_by_the_name_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    program = ModuleType("__main__")
    program.__file__ = "/srv/jobs/nightly_crawl.py"
    program.__spec__ = None
    exec("def rule(url): return url", program.__dict__)  # noqa: S102 # a program
    monkeypatch.setitem(sys.modules, "__main__", program)
    assert LinkRules.checked(program.rule, None).names()["normalize"] == "nightly_crawl:rule"


def test_rule_that_returns_no_text_fails_for_its_link() -> None:
    rules = LinkRules(normalize=len)  # type: ignore[arg-type] # that is what is tested
    with pytest.raises(InvalidArgumentError, match="normalize: must return text that is not empty, not 11"):
        rules.apply("http://a.ab")


def test_rule_that_raises_is_the_cause_of_the_error_of_its_link() -> None:
    rules = LinkRules(normalize=lambda url: url[1000])
    with pytest.raises(InvalidArgumentError, match="normalize: raised IndexError") as caught:
        rules.apply("http://a.ab")
    # The traceback of the function tells where in it.
    assert isinstance(caught.value.__cause__, IndexError)
