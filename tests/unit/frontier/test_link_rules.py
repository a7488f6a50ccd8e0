"""The names by which the rules of a run are recorded."""

from __future__ import annotations

import sys
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from ragcrawl_dynamo import InvalidArgumentError, normalize_url, registrable_domain
from ragcrawl_dynamo._frontier import link_rules
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._schema.records import RunControl


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
    [lambda url: url, partial(normalize_url, keep_fragment=True), Rules().of_object, "by_query", str.lower],
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


def lower(url: str) -> str:
    return normalize_url(url).lower()


def by_path(url: str) -> str:
    return url.split("/")[3] or "none"


def by_domain(url: str) -> str:
    return url.split("/")[2]


def test_defaults_are_the_normal_form_and_the_host() -> None:
    rules = LinkRules.checked(None, None)
    assert rules == LinkRules()
    assert rules.apply("HTTPS://A.example:8080/b#x") == ("https://a.example:8080/b", "a.example:8080")


def test_rules_of_a_run_are_those_that_are_given() -> None:
    rules = LinkRules.checked(lower, by_path)
    assert rules.names() == {"normalize": f"{__name__}:lower", "politeness_key": f"{__name__}:by_path"}
    # The politeness key gets the link in its normal form, and not the result of `normalize`.
    assert rules.apply("HTTPS://A.example/B#x") == ("https://a.example/b", "B")


def test_link_is_refused_before_the_rules_get_it() -> None:
    seen: list[str] = []

    def normalize(url: str) -> str:
        seen.append(url)
        return url

    rules = LinkRules(normalize=normalize)
    with pytest.raises(InvalidArgumentError, match=r"^url: "):
        rules.apply("mailto:a@a.ab")
    assert seen == []


def test_politeness_key_that_fails_is_named_with_its_link() -> None:
    rules = LinkRules(politeness_key=lambda url: url[1000])
    with pytest.raises(InvalidArgumentError) as caught:
        rules.apply(f"http://a.ab/{'x' * 300}")
    url = f"http://a.ab/{'x' * 188}"
    assert str(caught.value) == f"politeness_key: raised IndexError for {url!r}: string index out of range"


@pytest.mark.parametrize("result", ["", None])
def test_politeness_key_must_be_a_text(result: Any) -> None:
    rules = LinkRules(politeness_key=lambda url: result)
    with pytest.raises(InvalidArgumentError, match=r"^politeness_key: must return text that is not empty"):
        rules.apply("http://a.ab")


@pytest.mark.parametrize("spelling", ["A.ab", "a.ab:80", "http://a.ab/x", "HTTPS://A.ab./"])
def test_host_is_meant_by_any_of_its_spellings(spelling: str) -> None:
    assert LinkRules().host(spelling) == "a.ab"


def test_text_that_is_no_url_is_a_politeness_key_of_the_user() -> None:
    rules = LinkRules(politeness_key=by_path)
    assert rules.host("Shop") == "Shop"
    assert rules.host("HTTPS://a.ab/shop#x") == "shop"


@pytest.mark.parametrize("host", ["a.ab", "http://a.ab/"])
def test_politeness_key_that_fails_for_a_host_is_named(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> str:
        raise ValueError(url)

    monkeypatch.setitem(link_rules._OWN_NAMES, fail, "fail")
    with pytest.raises(InvalidArgumentError, match=r"^politeness_key: raised ValueError for 'http://a.ab/'"):
        LinkRules(politeness_key=fail).host(host)


def test_host_is_taken_as_a_url_by_a_rule_of_this_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(link_rules._OWN_NAMES, by_domain, "by_domain")
    rules = LinkRules(politeness_key=by_domain)
    assert [rules.host(text) for text in ("A.ab", "https://A.ab/x")] == ["a.ab", "a.ab"]


@pytest.mark.parametrize(("host", "argument"), [(7, "host"), ("", "host")])
def test_host_that_is_no_text_is_refused_with_a_politeness_key_too(host: Any, argument: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{argument}: "):
        LinkRules(politeness_key=by_path).host(host)


def control(**names: str | None) -> RunControl:
    return RunControl(run="run", site_id="site", **names)  # type: ignore[arg-type] # names of rules


@pytest.mark.parametrize(
    "names",
    [{}, {"normalize": "normalize_url", "politeness_key": "host"}, {"politeness_key": "host"}],
    ids=["none recorded", "the same", "one recorded"],
)
def test_run_with_the_same_rules_is_accepted(names: dict[str, str]) -> None:
    LinkRules().check(control(**names))


@pytest.mark.parametrize(("argument", "mine"), [("normalize", "normalize_url"), ("politeness_key", "host")])
def test_run_with_other_rules_is_refused(argument: str, mine: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        LinkRules().check(control(**{argument: "jobs:rule"}))
    assert caught.value.field == argument
    # The message names both rules.
    assert "'jobs:rule'" in str(caught.value)
    assert repr(mine) in str(caught.value)


def test_rule_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        LinkRules.checked(7, None)
    assert str(caught.value) == "normalize: must be a function, not int"


def test_rule_that_its_module_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = LinkRules.checked(lower, None).normalize
    monkeypatch.setattr(sys.modules[__name__], "lower", by_path)
    with pytest.raises(InvalidArgumentError, match=r"^normalize: must be a function of a module"):
        LinkRules.checked(rule, None)


@pytest.mark.parametrize("module", [None, "no.such.module", ""])
def test_rule_of_no_module_is_refused(module: str | None) -> None:
    def rule(url: str) -> str:
        return url

    rule.__module__, rule.__qualname__ = module, "rule"  # type: ignore[assignment] # as C code may have it
    with pytest.raises(InvalidArgumentError, match=r"^normalize: must be a function of a module"):
        LinkRules.checked(rule, None)


@pytest.mark.parametrize("name", ["__main__", "__mp_main__"])
@pytest.mark.parametrize(
    ("spec", "file", "recorded"),
    [
        (ModuleSpec("jobs.nightly", None), "/srv/other.py", "jobs.nightly"),
        (None, "/srv/jobs/nightly.py", "nightly"),
        (None, None, None),
    ],
    ids=["python -m", "a file", "typed in"],
)
def test_rule_of_the_program_is_recorded_as_other_processes_import_it(
    name: str,
    spec: ModuleSpec | None,
    file: str | None,
    recorded: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = ModuleType(name)
    if spec is None:
        del program.__spec__
    else:
        program.__spec__ = spec
    if file is not None:
        program.__file__ = file
    exec("def rule(url): return url", program.__dict__)  # noqa: S102 # a program
    monkeypatch.setitem(sys.modules, name, program)
    assert LinkRules.checked(program.rule, None).names()["normalize"] == f"{recorded or name}:rule"
