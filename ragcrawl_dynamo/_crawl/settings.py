"""Defines the settings of a crawl."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ragcrawl_dynamo._commit.responses import ResponseKind


@dataclass(frozen=True, slots=True)
class CrawlSettings:
    """The settings of a crawl; see `Store.crawl`."""

    seeds: list[str]
    sitemap: list[str] = field(default_factory=list)
    run_id: str | None = None
    follow: Callable[[str], bool] | None = None
    max_depth: int | None = None
    priority: Callable[[str], float] | None = None
    delete_unseen: bool = False
    kind_of: Callable[[int | None], ResponseKind] = ResponseKind.of
    limits: dict[str, Any] = field(default_factory=dict)
