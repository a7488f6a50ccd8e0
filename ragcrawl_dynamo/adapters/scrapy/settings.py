"""Reads the settings of a crawl from Scrapy's settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from ragcrawl_dynamo import DynamoDBConfig, InvalidArgumentError, StorageConfig
from ragcrawl_dynamo._frontier.arguments import MAX_CLAIMED, MAX_IN_FLIGHT, MAX_LEASE_SECONDS
from ragcrawl_dynamo._utils.validation import MAX_DELAY_SECONDS, check_count, check_seconds, first_of
from ragcrawl_dynamo.adapters._runs import run_name

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings

_PREFIX = "RAGCRAWL_DYNAMO_"

# Requests that are claimed ahead if CONCURRENT_REQUESTS sets no limit.
_PREFETCH_WITHOUT_LIMIT = 64

# More attempts after errors than `frontier_max_attempts` can allow, so that this setting alone ends them.
_MAX_ERROR_ATTEMPTS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlSettings:
    """The settings whose names begin with `RAGCRAWL_DYNAMO_`.

    Attributes:
        config: Settings of the backend.
        site_id: The site that is crawled.
        run_id: The run, as `{site}/{run}`.
        lease_seconds: Seconds after which others get the requests of a killed process.
        error_attempts: How often a request is crawled that ends with an error.
        host_delay: Seconds between requests to a host, by all processes together.
        slot_delays: The same for the hosts that DOWNLOAD_SLOTS names, by host name without a port.
        host_max_in_flight: Requests to a host at a time, by all processes together; None for no limit.
        prefetch: Requests that are claimed ahead.
    """

    config: DynamoDBConfig
    site_id: str
    run_id: str
    lease_seconds: float
    error_attempts: int
    host_delay: float
    slot_delays: dict[str, float]
    host_max_in_flight: int | None
    prefetch: int

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Reads the settings of a crawler. They may be text, as the command line sets them.

        Raises:
            InvalidArgumentError: The run id is missing, or a setting has a value that is not allowed.
        """
        settings = crawler.settings
        run_id = settings.get(f"{_PREFIX}RUN_ID")
        if run_id is None or run_id == "":
            raise InvalidArgumentError(
                f"{_PREFIX}RUN_ID", "must be set: processes with the same run id share one crawl"
            )
        spider = crawler.spider or crawler.spidercls
        site_id = str(settings.get(f"{_PREFIX}SITE_ID") or getattr(spider, "name", "default"))
        return cls(
            config=_config(settings.get(f"{_PREFIX}CONFIG")),
            site_id=site_id,
            run_id=run_name(site_id, str(run_id)),
            lease_seconds=_seconds(settings, "LEASE_SECONDS", 60.0, MAX_LEASE_SECONDS),
            error_attempts=_count(settings, "ERROR_ATTEMPTS", 1, _MAX_ERROR_ATTEMPTS),
            host_delay=_seconds(settings, "HOST_DELAY", _download_delay(crawler), MAX_DELAY_SECONDS),
            slot_delays=_slot_delays(settings),
            host_max_in_flight=_count(settings, "HOST_MAX_IN_FLIGHT", None, MAX_IN_FLIGHT),
            prefetch=_count(settings, "PREFETCH", _default_prefetch(settings), MAX_CLAIMED),
        )


def keeps_host_delay(settings: BaseSettings) -> bool:
    """Returns whether the frontier spaces the requests to a host, and not each process by itself."""
    host_delay = _number(settings.get(f"{_PREFIX}HOST_DELAY"), float)
    return host_delay != 0 and not settings.getbool("AUTOTHROTTLE_ENABLED")


def _config(value: Any) -> DynamoDBConfig:
    """Returns the settings of the backend: from the environment if there are none, or from a dict or JSON."""
    name = f"{_PREFIX}CONFIG"
    if isinstance(value, DynamoDBConfig):
        return value
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidArgumentError(name, f"must be a JSON object if it is text: {error}") from None
    if value is None or value == "":
        return StorageConfig.from_env().backend
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise InvalidArgumentError(name, f"must be a DynamoDBConfig, a dict or a JSON object, not {kind}")
    try:
        return DynamoDBConfig.model_validate(value)
    except ValidationError as error:
        field, reason = first_of(error, with_value=False)
        raise InvalidArgumentError(".".join(filter(None, (name, field))), reason) from None


def _seconds(settings: BaseSettings, name: str, default: float, most: float) -> float:
    value = settings.get(_PREFIX + name)
    return check_seconds(_PREFIX + name, default if value is None else _number(value, float), most)


def _count(settings: BaseSettings, name: str, default: Any, most: int) -> Any:
    """Returns a whole number; None if that is the default and nothing is set."""
    value = settings.get(_PREFIX + name)
    if value is None and default is None:
        return None
    return check_count(_PREFIX + name, default if value is None else _number(value, int), most)


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    """Converts text to a number; returns other values unchanged, even if they are not numbers."""
    if not isinstance(value, str):
        return value
    try:
        return kind(value)
    except ValueError:
        return value


def _download_delay(crawler: Crawler) -> float:
    """Returns the delay that Scrapy's own downloader keeps."""
    spider_delay = getattr(crawler.spider, "download_delay", None)
    return crawler.settings.getfloat("DOWNLOAD_DELAY") if spider_delay is None else float(spider_delay)


def _slot_delays(settings: BaseSettings) -> dict[str, float]:
    slots = settings.getdict("DOWNLOAD_SLOTS")
    return {
        name: check_seconds(
            f"DOWNLOAD_SLOTS[{name!r}]['delay']", _number(slot["delay"], float), MAX_DELAY_SECONDS
        )
        for name, slot in slots.items()
        if slot.get("delay") is not None
    }


def _default_prefetch(settings: BaseSettings) -> int:
    concurrency = settings.getint("CONCURRENT_REQUESTS")
    return min(2 * concurrency, MAX_CLAIMED) if concurrency > 0 else _PREFETCH_WITHOUT_LIMIT
