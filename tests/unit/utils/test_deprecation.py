from __future__ import annotations

import asyncio
import re
import warnings
from inspect import iscoroutinefunction
from typing import Any

import pytest

from ragcrawl_dynamo._utils.deprecation import formerly
from ragcrawl_dynamo.errors import InvalidArgumentError


class Store:
    @formerly("run_id", "site_id", without_site="find(run_id)")
    async def get(self, site_id: str | None, run_id: str) -> tuple[Any, ...]:
        return site_id, run_id

    @formerly("run_id", "site_id")
    def queue(self, site_id: str, run_id: str, *, delay: float = 0.0) -> tuple[Any, ...]:
        return site_id, run_id, delay

    @formerly("page_id", "limit", "cursor", without_site="listing(site_id, page_id)")
    def listing(
        self, site_id: str | None, page_id: str, *, limit: int = 9, cursor: str | None = None
    ) -> tuple[Any, ...]:
        return site_id, page_id, limit, cursor

    @formerly("site_id", "run_id", "status")
    def end(self, site_id: str, run_id: str, *, status: str = "done") -> tuple[Any, ...]:
        return site_id, run_id, status


async def result_of(method: str, *args: Any, **kwargs: Any) -> Any:
    result = getattr(Store(), method)(*args, **kwargs)
    return await result if asyncio.iscoroutine(result) else result


PRESENT = [
    ("get", ("s", "r"), {}, ("s", "r")),
    ("get", (), {"run_id": "r", "site_id": "s"}, ("s", "r")),
    ("get", ("s",), {"run_id": "r"}, ("s", "r")),
    ("queue", ("s", "r"), {"delay": 1.0}, ("s", "r", 1.0)),
    ("listing", ("s", "p"), {"limit": 5}, ("s", "p", 5, None)),
    ("listing", ("s", None), {}, ("s", None, 9, None)),
    ("end", ("s", "r"), {"status": "failed"}, ("s", "r", "failed")),
    ("end", ("s", None), {}, ("s", None, "done")),
]


@pytest.mark.parametrize(("method", "args", "kwargs", "result"), PRESENT)
async def test_the_present_form_warns_of_nothing(
    method: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: tuple[Any, ...]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert await result_of(method, *args, **kwargs) == result
    assert caught == []


FORMER = [
    ("get", ("r",), {}, (None, "r"), "write find(run_id)"),
    ("get", ("r", None), {}, (None, "r"), "write find(run_id)"),
    ("get", (), {"run_id": "r"}, (None, "r"), "write find(run_id)"),
    ("get", (), {"run_id": "r", "site_id": None}, (None, "r"), "write find(run_id)"),
    ("get", ("r",), {"site_id": "s"}, ("s", "r"), "write get(site_id, run_id)"),
    ("queue", ("r",), {"site_id": "s"}, ("s", "r", 0.0), "write queue(site_id, run_id)"),
    ("queue", ("r",), {"site_id": "s", "delay": 1.0}, ("s", "r", 1.0), "queue(site_id, run_id, delay=...)"),
    ("listing", ("p",), {}, (None, "p", 9, None), "write listing(site_id, page_id)"),
    ("listing", ("p", 5), {}, (None, "p", 5, None), "write listing(site_id, page_id)"),
    (
        "listing",
        ("p", 5),
        {"site_id": "s"},
        ("s", "p", 5, None),
        "listing(site_id, page_id, limit=...)",
    ),
    ("listing", ("p", 5, "c"), {"site_id": "s"}, ("s", "p", 5, "c"), "limit=..., cursor=..."),
    ("listing", ("p",), {"site_id": "s"}, ("s", "p", 9, None), "write listing(site_id, page_id)"),
    ("end", ("s", "r", "failed"), {}, ("s", "r", "failed"), "write end(site_id, run_id, status=...)"),
]


@pytest.mark.parametrize(("method", "args", "kwargs", "result", "instead"), FORMER)
async def test_a_former_form_works_and_the_warning_names_the_present_form(
    method: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: tuple[Any, ...], instead: str
) -> None:
    with pytest.warns(DeprecationWarning, match=re.escape(instead)):
        assert await result_of(method, *args, **kwargs) == result


async def test_the_warning_names_the_line_of_the_caller() -> None:
    store: Any = Store()
    with pytest.warns(DeprecationWarning, match="queue") as of_queue:
        store.queue("r", site_id="s")
    with pytest.warns(DeprecationWarning, match="get") as of_get:
        await store.get("r")
    assert [warning.filename for warning in (*of_queue, *of_get)] == [__file__, __file__]


@pytest.mark.parametrize(
    ("method", "args", "kwargs"),
    [
        ("get", (), {}),
        ("get", ("r", "s", "more"), {}),
        ("queue", ("r",), {}),
        ("queue", (), {"run_id": "r"}),
        ("listing", (), {"site_id": "s"}),
        ("end", ("s",), {}),
        ("end", ("s", "r", "failed", "more"), {}),
        ("end", ("s", "r", "failed"), {"status": "failed"}),
    ],
)
async def test_a_call_of_no_form_raises_as_python_does(
    method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=rf"{method}\(\)"):
        await result_of(method, *args, **kwargs)


@pytest.mark.parametrize(("method", "id_name"), [("get", "r"), ("listing", "p")])
async def test_none_as_the_first_id_is_refused(method: str, id_name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="site_id: must be a str, not NoneType"):
        await result_of(method, None, id_name)


def test_a_coroutine_function_stays_one() -> None:
    assert iscoroutinefunction(Store.get)
    assert not iscoroutinefunction(Store.queue)
