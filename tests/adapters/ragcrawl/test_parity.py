"""The asynchronous contract and our models have all that ragcrawl's interface and models have."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
import ragcrawl.models
from ragcrawl.models.crawl_run import CrawlStats
from ragcrawl.storage.backend import StorageBackend as RagcrawlInterface

import ragcrawl_dynamo
from ragcrawl_dynamo import StorageBackend

if TYPE_CHECKING:
    from pydantic import BaseModel

# Parameters of ragcrawl's methods that ours lack: (method, parameter), and why.
DROPPED = {
    ("list_runs", "offset"): "an offset reads what it skips: a cursor takes its place",
    ("list_pages", "offset"): "likewise",
}

# Parameters that ours have in addition, before those of ragcrawl: (method, parameter), and why.
ADDED = {
    ("get_run", "site_id"): "a read by its key; find_run(run_id) takes the run's id alone",
    ("get_page", "site_id"): "two sites can have pages with one id",
    ("get_version", "site_id"): "likewise",
    ("get_version", "page_id"): "a read by its key; find_version(site_id, version_id) takes the version's id",
    ("get_current_version", "site_id"): "two sites can have pages with one id",
    ("list_versions", "site_id"): "likewise",
    ("update_frontier_status", "run_id"): "a write by its key",
}

MODELS = [
    *(CrawlStats, ragcrawl.models.Site, ragcrawl.models.CrawlRun, ragcrawl.models.Page),
    *(ragcrawl.models.PageVersion, ragcrawl.models.FrontierItem),
]

METHODS = sorted(RagcrawlInterface.__abstractmethods__)


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }


def required(function: Any) -> list[str]:
    return [name for name, parameter in parameters(function).items() if parameter.default is parameter.empty]


@pytest.mark.parametrize("name", METHODS)
def test_contract_has_each_method_of_ragcrawl_with_its_parameters(name: str) -> None:
    ours, theirs = getattr(StorageBackend, name), getattr(RagcrawlInterface, name)
    kept = [parameter for parameter in parameters(theirs) if (name, parameter) not in DROPPED]
    added = [parameter for (method, parameter) in ADDED if method == name]
    assert [parameter for parameter in parameters(ours) if parameter in (*kept, *added)] == [*added, *kept]
    assert required(ours) == [*added, *required(theirs)]
    for parameter in kept:
        assert parameters(ours)[parameter].default == parameters(theirs)[parameter].default, parameter


def test_contract_lists_of_differences_hold_nothing_else() -> None:
    for method, parameter in DROPPED:
        assert parameter in parameters(getattr(RagcrawlInterface, method))
        assert parameter not in parameters(getattr(StorageBackend, method))
    for method, parameter in ADDED:
        assert parameter not in parameters(getattr(RagcrawlInterface, method))
        assert parameter in parameters(getattr(StorageBackend, method))
    assert {"find_run", "find_version"} <= StorageBackend.__abstractmethods__


def own_members(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the public methods and properties that a model defines itself."""
    return {
        name: member
        for name, member in vars(model).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }


@pytest.mark.parametrize("theirs", MODELS, ids=lambda model: str(model.__name__))
def test_models_have_each_field_and_method_of_ragcrawl(theirs: type[BaseModel]) -> None:
    ours = getattr(ragcrawl_dynamo, theirs.__name__)
    assert theirs.model_fields.keys() <= ours.model_fields.keys()
    for name, member in own_members(theirs).items():
        if isinstance(member, property):
            assert isinstance(getattr(ours, name), property)
        else:
            their_parameters = [(p.name, p.default) for p in parameters(member).values()]
            assert [(p.name, p.default) for p in parameters(getattr(ours, name)).values()] == their_parameters


@pytest.mark.parametrize("name", ["RunStatus", "FrontierStatus"])
def test_statuses_are_those_of_ragcrawl(name: str) -> None:
    theirs: type[Enum] = getattr(ragcrawl.models, name)
    assert [status.value for status in getattr(ragcrawl_dynamo, name)] == [status.value for status in theirs]
