"""Says how the links of a run are compared, and to which host each belongs.

All processes of a run need the same rules. Therefore a rule is a function with a name, which is recorded with
the run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._utils.domains import registrable_domain
from ragcrawl_dynamo._utils.urls import host_of, host_of_url, is_url, normalize_url
from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.errors import InvalidArgumentError

UrlFunction: TypeAlias = Callable[[str], str]

# The recorded names of this package's own rules. They do not change when the functions move.
_OWN_NAMES: dict[UrlFunction, str] = {
    normalize_url: "normalize_url",
    host_of_url: "host",
    registrable_domain: "registrable_domain",
}


@dataclass(frozen=True, slots=True)
class LinkRules:
    """The rules for the links of a run.

    Attributes:
        normalize: Returns the normal form of a link. Links with one normal form are one link.
        politeness_key: Returns the host of a link, or the key that replaces it. It gets the link in the form
            of `normalize_url`.
    """

    normalize: UrlFunction = normalize_url
    politeness_key: UrlFunction = host_of_url

    @classmethod
    def checked(cls, normalize: Any, politeness_key: Any) -> Self:
        """Returns the rules that a caller has given; None means the default.

        Raises:
            InvalidArgumentError: A rule is not a function that other processes can find by its name.
        """
        rules = cls(normalize or normalize_url, politeness_key or host_of_url)
        rules.names()
        return rules

    def names(self) -> dict[str, str]:
        """Returns the names of the rules, as fields of RunControl."""
        return {
            "normalize": _name_of("normalize", self.normalize),
            "politeness_key": _name_of("politeness_key", self.politeness_key),
        }

    def check(self, control: RunControl) -> None:
        """Checks that the run uses these rules. A run that has no rules recorded is not checked.

        Raises:
            InvalidArgumentError: It uses other ones.
        """
        for argument, name in self.names().items():
            recorded = getattr(control, argument)
            if recorded not in (None, name):
                raise InvalidArgumentError(
                    argument,
                    f"run {control.run!r} uses {recorded!r}, and this process {name!r}: pass the same "
                    f"function to backend.frontier() in every process",
                )

    def apply(self, url: str) -> tuple[str, str]:
        """Returns the normal form of a link, and its host.

        Raises:
            InvalidArgumentError: The link is no absolute http(s) URL, or a rule fails for it.
        """
        standard = normalize_url(url)
        normalized = standard
        if self.normalize is not normalize_url:
            normalized = _result("normalize", self.normalize, url)
        if self.politeness_key is host_of_url:
            return normalized, host_of_url(standard)
        return normalized, _result("politeness_key", self.politeness_key, standard)

    def host(self, host_or_url: str) -> str:
        """Returns the host that any spelling of a host or of a URL means.

        With a `politeness_key` of the user, text that is not a URL is taken as the key itself.

        Raises:
            InvalidArgumentError: The text is neither a host nor an absolute http(s) URL.
        """
        if self.politeness_key is host_of_url:
            return host_of(host_or_url)
        check_kind("host", host_or_url, str)
        if self.politeness_key not in _OWN_NAMES and host_or_url and not is_url(host_or_url):
            return host_or_url
        if is_url(host_or_url):
            return _result("politeness_key", self.politeness_key, normalize_url(host_or_url))
        return _result("politeness_key", self.politeness_key, f"http://{host_of(host_or_url)}/")


def _result(argument: str, function: UrlFunction, url: str) -> str:
    try:
        result: Any = function(url)
    except Exception as error:  # the function is the caller's code and may raise anything
        raise InvalidArgumentError(
            argument, f"raised {type(error).__name__} for {url[:200]!r}: {error}"
        ) from error
    if not isinstance(result, str) or not result:
        raise InvalidArgumentError(argument, f"must return text that is not empty, not {result!r}")
    return result


def _name_of(argument: str, function: Any) -> str:
    """Returns the name of a function: its module and its name there.

    Raises:
        InvalidArgumentError: It is not a function, or cannot be found by its name.
    """
    if not callable(function):
        raise InvalidArgumentError(argument, f"must be a function, not {type(function).__name__}")
    if function in _OWN_NAMES:
        return _OWN_NAMES[function]
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    name = getattr(function, "__qualname__", "")
    named: Any = module
    for part in name.split("."):
        named = getattr(named, part, None)
    if module is None or named != function:
        raise InvalidArgumentError(
            argument,
            f"must be a function of a module, so that all processes of the run can compare its name, not a "
            f"lambda, a nested function or an object: {function!r}",
        )
    return f"{_module_name(module.__name__)}:{name}"


def _module_name(name: str) -> str:
    """Returns the name of a module, also of the program that was started."""
    main = sys.modules[name]
    if name not in ("__main__", "__mp_main__"):
        return name
    if (spec := getattr(main, "__spec__", None)) is not None:
        return str(spec.name)
    return Path(getattr(main, "__file__", None) or name).stem
