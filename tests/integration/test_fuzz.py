"""Hostile arguments for every public method: a typed error or a result, and no effect on other records."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, RagcrawlDynamoError, StorageBackend
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_item, make_page, make_run, make_site, make_version

TEXTS = [
    "",
    "a",
    "#",
    "#site",
    "lane#",
    "a#b~c",
    "~1",
    "'",
    '"; DROP TABLE pages; --',
    "' OR '1'='1",
    ":v0",
    "#n0",
    "attribute_exists(site_id)",
    "a\x00b",
    "\ud800",
    "\uffff",
    "🕷️" * 300,
    "x" * 1024,
    "x" * 1025,
    "x" * 100_000,
    "https://[",
    "https://\x00.example/",
    "javascript:alert(1)",
    "http://" + "a." * 300 + "example/",
    "https://example.com/" + "%" * 5000,
]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2,
    10**30,
    -(10**400),
    1.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    b"bytes",
    [],
    [None],
    {},
    {"a": {"b": object()}},
    object(),
    ["https://example.com/", 7],
    ("site", "page"),
    range(3),
]

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=30))
hostile = st.one_of(texts, st.sampled_from(VALUES), st.integers(), st.floats(), st.lists(texts, max_size=3))
records = st.sampled_from([make_site(), make_run(), make_page(), make_version(), make_item()])
arguments = st.one_of(hostile, hostile, records, st.lists(records, max_size=2))

# More for a long run.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1500"))

# Methods that open and close, or take no arguments.
LEFT_OUT = {"initialize", "close", "config", "metrics"}
# Methods that return objects to enter instead of awaitables, and attributes that are no verbs.
FRONTIER_VERBS = (
    *("add", "claim", "renew", "complete", "fail", "skip", "release", "stats", "set_host_delay"),
    *("set_host_max_in_flight", "block_host", "worker", "iter_hosts"),
)


def public(of: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(of) if not name.startswith("_") and name not in LEFT_OUT]


async def call(target: Any, name: str, args: list[Any], options: dict[str, Any]) -> None:
    """Calls a method to its end. Its errors must be typed."""
    method = getattr(target, name)
    result = method(*args, **options)
    if inspect.isawaitable(result):
        await result
    elif hasattr(result, "__aiter__"):
        async for _ in result:
            pass


# A hostile call may look like one of an earlier version.
@pytest.mark.filterwarnings("ignore:.* with the arguments of an earlier version:DeprecationWarning")
@on_dynamodb_local
async def test_fuzz_hostile_arguments_get_a_typed_error_or_a_result(dynamodb_config: DynamoDBConfig) -> None:
    tried: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    names = [("backend", name) for name in public(StorageBackend)]
    names += [("frontier", name) for name in FRONTIER_VERBS]
    backend = DynamoDBBackend(dynamodb_config.model_copy(update={"call_timeout": 20.0}))
    untouched = make_page("untouched", "another site")
    runner = asyncio.Runner()

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(st.sampled_from(names), st.data())
    def fuzz(which: tuple[str, str], data: st.DataObject) -> None:
        kind, name = which
        target = backend if kind == "backend" else backend.frontier("site", "fuzz")
        parameters = inspect.signature(getattr(target, name)).parameters.values()
        plain = [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        needed = sum(parameter.default is parameter.empty for parameter in plain)
        args = data.draw(st.lists(arguments, min_size=needed, max_size=len(plain)))
        options = {
            parameter.name: data.draw(arguments)
            for parameter in parameters
            # With these two, the calls really wait.
            if parameter.kind is parameter.KEYWORD_ONLY
            and parameter.name not in ("wait_seconds", "follow")
            and data.draw(st.booleans())
        }
        tried[name] += 1
        try:
            runner.run(call(target, name, args, options))
        except RagcrawlDynamoError as error:
            refused[type(error).__name__] += 1

    def run() -> None:
        with runner:
            runner.run(backend.initialize())
            runner.run(backend.save_page(untouched))
            try:
                fuzz()
                assert runner.run(backend.get_page("another site", "untouched")) == untouched
            finally:
                runner.run(backend.close())

    await asyncio.to_thread(run)
    print(f"{tried.total()} inputs for {len(tried)} methods, refused: {dict(refused)}")
    assert set(tried) >= {name for _, name in names}
