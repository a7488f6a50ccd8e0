"""Converts ragcrawl's records to records of this package and back."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from ragcrawl.models import CrawlRun, PageVersion, Site

import ragcrawl_dynamo
from ragcrawl_dynamo.models import MAX_NAMED

M = TypeVar("M", bound=BaseModel)

# Fields of ragcrawl's settings, and HTTP headers, that must not be stored with a site or a run.
_CREDENTIALS = {
    *("aws_access_key_id", "aws_secret_access_key", "aws_profile", "cookies", "proxy"),
    *("authorization", "cookie", "proxy-authorization", "x-api-key"),
}


def to_stored(model: type[M], record: BaseModel) -> M:
    """Returns a record of ragcrawl as a record of this package, of the given class."""
    fields = {name: _as_utc(value) for name, value in record if name in model.model_fields}
    if isinstance(record, CrawlRun):
        fields["stats"] = _bounded(record.stats.model_dump())
        fields["config_snapshot"] = _settings(record.config_snapshot)
    elif isinstance(record, Site):
        fields["config"] = _settings(record.config)
    elif isinstance(record, PageVersion):
        fields["extra"] = to_jsonable_python(record.extra, fallback=str)
    return model.model_validate(fields)


def to_ragcrawl(model: type[M], record: BaseModel) -> M:
    """Returns a record of this package as a record of ragcrawl, of the given class."""
    fields = {name: _as_local(value) for name, value in record if name in model.model_fields}
    if isinstance(record, ragcrawl_dynamo.CrawlRun):
        stats = record.stats.model_dump()
        fields["stats"] = {**stats, "domains_crawled": stats.pop("domains_sample")}
    return model.model_validate(fields)


def to_ragcrawl_or_none(model: type[M], record: BaseModel | None) -> M | None:
    """Like `to_ragcrawl`, and returns None for None."""
    return None if record is None else to_ragcrawl(model, record)


def _bounded(stats: dict[str, Any]) -> dict[str, Any]:
    """Returns stats with a size that does not grow with the hosts of the run.

    The hosts that were crawled are passed as they are: the model keeps their number and a sample.
    """
    names = ("errors_by_type", "errors_by_domain")
    return {**stats, **{name: dict(Counter(stats[name]).most_common(MAX_NAMED)) for name in names}}


def _as_utc(value: Any) -> Any:
    """Returns a naive local datetime as an aware one in UTC, and any other value unchanged."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _as_local(value: Any) -> Any:
    """Returns an aware datetime as a naive local one, and any other value unchanged."""
    return value.astimezone().replace(tzinfo=None) if isinstance(value, datetime) else value


def _settings(value: Any) -> Any:
    """Returns settings as JSON, without credentials."""
    return _without_credentials(to_jsonable_python(value, fallback=str))


def _without_credentials(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_credentials(member)
            for name, member in value.items()
            if name.lower() not in _CREDENTIALS
        }
    if isinstance(value, list):
        return [_without_credentials(member) for member in value]
    return value
