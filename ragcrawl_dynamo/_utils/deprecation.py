"""Accepts calls with the arguments of an earlier version, and warns of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any, ParamSpec, TypeVar, cast

from ragcrawl_dynamo._utils.validation import check_kind

P = ParamSpec("P")
R = TypeVar("R")


def formerly(*names: str, without_site: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a method be called as in an earlier version, with a DeprecationWarning that says what to write.

    A type checker knows only the present form. Two ids that changed places cannot be told apart here: both
    are text.

    Args:
        *names: The positional parameters of the earlier version, in their order.
        without_site: The call to write instead of one without a site. The method gets None as the site then.
            None if the earlier version needed a site, too.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        present = _Form(method, names, without_site)
        if iscoroutinefunction(method):

            @wraps(method)
            async def call_async(self: Any, *args: Any, **kwargs: Any) -> Any:
                args, kwargs = present.arrange(args, kwargs)
                return await method(self, *args, **kwargs)

            return cast("Callable[P, R]", call_async)

        @wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = present.arrange(args, kwargs)
            return cast("Callable[..., Any]", method)(self, *args, **kwargs)

        return cast("Callable[P, R]", call)

    return decorate


class _Form:
    """The present parameters of a method, and those of the earlier version."""

    def __init__(self, method: Callable[..., Any], former: tuple[str, ...], without_site: str | None) -> None:
        self._name = method.__name__
        self._former = former
        self._without_site = without_site
        parameters = list(signature(method).parameters.values())[1:]
        self._ids = tuple(
            parameter.name for parameter in parameters if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
        )

    def arrange(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments of a call in their present form; those in an unknown form stay."""
        if self._is_present(args, kwargs):
            if self._without_site is not None and args:
                # None would be taken for a call without a site.
                check_kind(self._ids[0], args[0], str)
            return args, kwargs
        arguments = dict(zip(self._former, args, strict=False))
        if len(args) > len(self._former) or arguments.keys() & kwargs.keys():
            return args, kwargs
        arguments |= kwargs
        instead = f"{self._name}({self._written(arguments)})"
        if "site_id" in self._ids and arguments.get("site_id") is None:
            if self._without_site is None:
                return args, kwargs
            instead = self._without_site
            arguments["site_id"] = None
        if not arguments.keys() >= set(self._ids):
            return args, kwargs
        # The caller: the frames of this method and of the wrapper lie between.
        warnings.warn(
            f"{self._name}() was called with the arguments of an earlier version: write {instead}",
            DeprecationWarning,
            stacklevel=3,
        )
        return (), arguments

    def _is_present(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if len(args) > len(self._ids):
            return False
        if self._former[: len(self._ids)] == self._ids:
            # Only what follows the ids has changed.
            return True
        positional = set(self._ids[: len(args)])
        if positional & kwargs.keys() or not positional | kwargs.keys() >= set(self._ids):
            return False
        former = dict(zip(self._former, args, strict=False)) | kwargs
        if former.get("site_id", "") is None:
            return False
        # `list_versions(page_id, limit)`: no id is a number.
        former_options = zip(args, self._former, strict=False)
        return not any(isinstance(value, int) and name not in self._ids for value, name in former_options)

    def _written(self, arguments: dict[str, Any]) -> str:
        options = (f"{name}=..." for name in arguments if name not in self._ids)
        return ", ".join([*self._ids, *options])
