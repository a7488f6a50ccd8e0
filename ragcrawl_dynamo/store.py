"""The way in for programs that crawl: `connect` opens a store, and `Store.crawl` crawls a site."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any

from pydantic import ValidationError

from ragcrawl_dynamo._commit.responses import ResponseKind
from ragcrawl_dynamo._crawl.crawl import Crawl
from ragcrawl_dynamo._crawl.settings import CrawlSettings
from ragcrawl_dynamo._dynamodb.client import ClientOptions
from ragcrawl_dynamo._dynamodb.metrics import Observer
from ragcrawl_dynamo._dynamodb.session import AwsSession, ClientConfig
from ragcrawl_dynamo._frontier.claim import LeaseObserver
from ragcrawl_dynamo._utils.urls import host_of, host_of_url, normalize_url
from ragcrawl_dynamo._utils.validation import (
    check_amount,
    check_callable,
    check_kind,
    check_several,
    first_of,
)
from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import Site

__all__ = ["Store", "connect"]


class Store(DynamoDBBackend):
    """A backend on DynamoDB, with `crawl`, which replaces many calls of its other methods."""

    def crawl(
        self,
        site_id: str,
        *,
        seeds: Iterable[str],
        name: str | None = None,
        config: dict[str, Any] | None = None,
        run_id: str | None = None,
        sitemap: Iterable[str] = (),
        allowed_domains: Iterable[str] | None = None,
        allowed_subdomains: bool = True,
        follow: Callable[[str], bool] | None = None,
        max_depth: int | None = None,
        priority: Callable[[str], float] | None = None,
        delete_unseen: bool = False,
        kind_of: Callable[[int | None], ResponseKind] = ResponseKind.of,
        host_delay: float = 0.0,
        host_max_in_flight: int | None = None,
        host_max_items: int | None = None,
        normalize: Callable[[str], str] | None = None,
        politeness_key: Callable[[str], str] | None = None,
    ) -> Crawl:
        """Returns a crawl of a site. Use it in `async with`.

        It saves the site as `ensure_site` does. It resumes the site's latest run if this run is open, and
        begins the next one otherwise. Processes that begin a run at the same time begin the same run. From
        the second run of a site on, a crawl is a sync: it begins with all known pages too, and fetches them
        conditionally. An open run that `start_run` or `save_run` began gets what a new run begins with.

        Args:
            site_id: The site.
            seeds: The URLs to begin with.
            name: The name of the site; its id by default.
            config: Any JSON to store with the site.
            run_id: The run to begin or to resume, instead of the site's latest one.
            sitemap: The URLs that the site's sitemaps list. They are added to the frontier, and the known
                pages of them are marked as seen.
            allowed_domains: The hosts of the links to follow, with the port if it is not the default one. By
                default those of the seeds.
            allowed_subdomains: Whether to follow links to subdomains of these hosts too.
            follow: Returns whether to follow the absolute URL of a link. It replaces `allowed_domains`.
            max_depth: How many links may lie between a seed and a page; None for any number.
            priority: Returns the priority of an absolute URL; URLs with a higher one are fetched sooner. It
                holds for seeds, the sitemap, known pages and links; without it, all have priority 0. Give
                all processes of a run the same function.
            delete_unseen: Marks the pages as gone that a completed sync has not seen. More than
                `max_deleted_share` of the site raise a `MassDeletionError`. Of 100,000 or more, none is
                deleted, and an error is logged. Pages in scope that `host_max_items` left out are not
                deleted either.
            kind_of: Returns the meaning of an HTTP status for a page, if it is not that of
                `ResponseKind.of`.
            host_delay: See `frontier`.
            host_max_in_flight: See `frontier`.
            host_max_items: See `frontier`.
            normalize: See `frontier`.
            politeness_key: See `frontier`.

        Raises:
            InvalidArgumentError: A seed is no absolute http(s) URL, one of `allowed_domains` is no host, or
                another argument has a wrong type or value. The error names the argument.
        """
        urls = check_several("seeds", seeds, str)
        if not urls:
            raise InvalidArgumentError(
                "seeds", "must have at least one URL: pass the URL at which the crawl begins"
            )
        check_amount("max_depth", max_depth)
        check_callable("follow", follow)
        check_callable("priority", priority)
        check_callable("kind_of", kind_of)
        hosts = _hosts(urls, allowed_domains)
        try:
            site = Site(
                site_id=site_id,
                name=site_id if name is None else name,
                seeds=urls,
                allowed_domains=sorted(hosts),
                allowed_subdomains=allowed_subdomains,
                config={} if config is None else config,
            )
        except ValidationError as error:
            raise InvalidArgumentError(*first_of(error)) from None
        settings = CrawlSettings(
            seeds=urls,
            sitemap=check_several("sitemap", sitemap, str),
            run_id=run_id,
            follow=follow,
            max_depth=max_depth,
            priority=priority,
            delete_unseen=delete_unseen,
            kind_of=kind_of,
            limits={
                "host_delay": host_delay,
                "host_max_in_flight": host_max_in_flight,
                "host_max_items": host_max_items,
                "normalize": normalize,
                "politeness_key": politeness_key,
            },
        )
        return Crawl(self, site, settings)


def _hosts(seeds: list[str], allowed_domains: Iterable[str] | None) -> set[str]:
    """Returns the hosts of the links to follow, in the form in which they are compared.

    Raises:
        InvalidArgumentError: A seed is no absolute http(s) URL, or a domain is no host.
    """
    try:
        hosts = {host_of_url(normalize_url(seed)) for seed in seeds}
    except InvalidArgumentError as error:
        raise InvalidArgumentError("seeds", error.reason) from None
    if allowed_domains is None:
        return hosts
    try:
        return {host_of(domain) for domain in check_several("allowed_domains", allowed_domains, str)}
    except InvalidArgumentError as error:
        raise InvalidArgumentError("allowed_domains", error.reason) from None


def connect(
    config: DynamoDBConfig | None = None,
    *,
    on_request: Observer | None = None,
    on_lease_lost: LeaseObserver | None = None,
    session: AwsSession | None = None,
    client_config: ClientConfig | None = None,
    **settings: Any,
) -> Store:
    """Returns a store; `async with` opens it, and creates missing tables.

    Args:
        config: The settings. By default they are read from the environment, as by `DynamoDBConfig.from_env`.
        on_request: Called after every request; see DynamoDBBackend.
        on_lease_lost: Called with each claim whose lease was lost; see DynamoDBBackend.
        session: One's own session of AWS, for one's own credentials; see ClientOptions.
        client_config: Options of botocore, such as proxies; see ClientOptions.
        **settings: Fields of DynamoDBConfig, which replace those of `config` or of the environment.

    Raises:
        InvalidArgumentError: A setting is unknown or not allowed; or `config` is no DynamoDBConfig; or
            `session` or `client_config` contradicts the settings, or is something else.
    """
    check_kind("config", config, DynamoDBConfig, NoneType)
    try:
        if config is None:
            config = DynamoDBConfig.from_env(**settings)
        elif settings:
            config = DynamoDBConfig.model_validate({**dict(config), **settings})
    except ValidationError as error:
        # A value can be a secret.
        field, reason = first_of(error, with_value=False)
        raise InvalidArgumentError(field or "settings", reason) from None
    clients = ClientOptions(session=session, client_config=client_config)
    return Store(config, on_request=on_request, on_lease_lost=on_lease_lost, **clients)
