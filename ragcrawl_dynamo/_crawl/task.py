"""Defines the task of a handler: one URL to fetch, and how its answer is stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from pydantic import ValidationError

from ragcrawl_dynamo._commit.decision import CommitOutcome, CommitResult, error_of
from ragcrawl_dynamo._commit.responses import ResponseKind
from ragcrawl_dynamo._crawl.headers import header, retry_after
from ragcrawl_dynamo._frontier.arguments import error_text
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.outage import while_leased
from ragcrawl_dynamo._utils.clock import SystemClock
from ragcrawl_dynamo._utils.urls import is_encodable, join_url, link_id
from ragcrawl_dynamo._utils.validation import check_several, first_of
from ragcrawl_dynamo.errors import InvalidArgumentError, LeaseLostError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus, Page, PageVersion, utc_now
from ragcrawl_dynamo.storage import StorageBackend

__all__ = ["Task"]

logger = logging.getLogger(__name__)

_PERMANENT = frozenset({301, 308})

# RFC 9110, section 15.3.5: the answer has no content.
_NO_CONTENT = 204


class Scope(Protocol):
    """The part of a crawl that its tasks use."""

    @property
    def backend(self) -> StorageBackend:
        """The backend."""
        ...

    def normalized(self, url: str) -> str:
        """Returns the form by which the run compares URLs."""
        ...

    def follows(self, url: str, depth: int) -> bool:
        """Returns whether the crawl follows a link at a depth."""
        ...

    def reaches(self, depth: int) -> bool:
        """Returns whether the crawl follows links at a depth at all."""
        ...

    def to_add(self, urls: Sequence[str], depth: int, referrer_url: str) -> Sequence[str | FrontierItem]:
        """Returns links to add to the frontier, with their priorities."""
        ...

    def kind_of(self, status: int | None) -> ResponseKind:
        """Returns the meaning of an HTTP status for a page."""
        ...


class Task:
    """One URL to fetch. The handler fetches it and calls `save`.

    Attributes:
        claim: The claim of the frontier item. `save` settles it.
        page: The page as an earlier run has stored it; None if it is new.
    """

    def __init__(self, crawl: Scope, claim: Claim, page: Page | None) -> None:
        self._crawl = crawl
        self.claim = claim
        self.page = page
        self._started = time.perf_counter()

    @property
    def url(self) -> str:
        """The URL to fetch."""
        return self.claim.item.url

    @property
    def depth(self) -> int:
        """The number of links between a seed and this URL."""
        return self.claim.item.depth

    @property
    def conditional_headers(self) -> dict[str, str]:
        """The headers that let the server answer 304 if the page has not changed; none for a new page."""
        page = self.page
        if page is None or page.is_tombstone or page.current_version_id is None:
            return {}
        values = {"If-None-Match": page.etag, "If-Modified-Since": page.last_modified}
        return {name: value for name, value in values.items() if value}

    async def save(
        self,
        status: int | None,
        *,
        headers: Mapping[str, str] | None = None,
        url: str | None = None,
        redirects: Sequence[int] = (),
        html: str | None = None,
        markdown: str | None = None,
        text: str | None = None,
        title: str | None = None,
        links: Iterable[str] = (),
        error: str | BaseException | None = None,
        fetch_seconds: float | None = None,
        **fields: Any,
    ) -> CommitResult:
        """Stores the result of a fetch, and settles the claim; see `StorageBackend.commit_page`.

        The status decides what is stored. After 2xx the content is stored if its hash has changed. After
        304 the page is fresh, and the links of its stored version are followed as those of new content are.
        After 404 and 410 it is a tombstone. After a redirect the target is added to the queue. After 401, 403
        and 451 the item is skipped. After 408, 425, 429, 5xx and errors it is tried again, and the header
        Retry-After blocks its host.

        `PageVersion.of` derives the ids, the hash of the content and the counts.

        Args:
            status: The HTTP status; None if no answer came.
            headers: The headers of the answer, for ETag, Last-Modified, Content-Type, Location and
                Retry-After.
            url: The URL that the answer came from, if the HTTP client has followed redirects. The content is
                stored as the page of this URL.
            redirects: The statuses of the redirects that the client has followed. If all of them are
                permanent (301, 308), the page of the task's URL is gone.
            html: The content as HTML. After 2xx, one of this, `markdown` and `text` is needed. An empty text
                is content: the page is empty. After 204, none means that.
            markdown: The content as markdown.
            text: The content as text.
            title: The title of the page.
            links: The links of the page, absolute or relative. The crawl follows those in its scope. After
                304, none means those of the stored version; passing them saves the read of its body.
            error: Why no answer came, or why the answer cannot be used.
            fetch_seconds: How long the fetch took. By default the time since the handler was called.
            **fields: More fields of PageVersion, such as `language`, `description` and `extra`.

        Raises:
            InvalidArgumentError: The status is no whole number, says nothing that can be stored, or does not
                go with the content; or a field is not one of PageVersion, or has a wrong type; or the task is
                saved already.
            LeaseLostError: The lease was lost; the page was not changed.
            CorruptContentError: The links of an unchanged page cannot be read. Pass `links` to do without.
        """
        headers = {} if headers is None else headers
        if isinstance(status, bool) or not isinstance(status, int | None):
            raise InvalidArgumentError("status", f"must be a whole number or None, not {status!r:.100}")
        kind = self._crawl.kind_of(status)
        links = check_several("links", links, str)
        if self.claim.lost:
            raise LeaseLostError([self.claim])
        if self.claim.ended:
            raise InvalidArgumentError("task", "is saved already: call save() once for each task")
        item = self.claim.item
        page = Page(
            page_id=page_id_of(self.claim),
            site_id=item.site_id,
            url=item.normalized_url,
            depth=item.depth,
            referrer_url=item.referrer_url,
            status_code=status,
            etag=header(headers, "etag"),
            last_modified=header(headers, "last-modified"),
            last_error=error_text(error) if error is not None and kind is ResponseKind.FAILED else None,
        )
        backend = self._crawl.backend
        match kind:
            case ResponseKind.CONTENT:
                if html is None and markdown is None and text is None and status != _NO_CONTENT:
                    raise InvalidArgumentError(
                        "html", f"is missing, but status {status} needs content: pass html, markdown or text"
                    )
                return await self._save_content(
                    page,
                    url or item.url,
                    redirects,
                    headers,
                    links,
                    fetch_seconds,
                    markdown=markdown or "",
                    html=html,
                    plain_text=text,
                    title=title,
                    **fields,
                )
            case ResponseKind.MOVED | ResponseKind.REDIRECTED:
                location = header(headers, "location")
                if location is None:
                    raise InvalidArgumentError(
                        "headers",
                        f"have no Location, but status {status} needs one: pass all headers of the answer",
                    )
                page.redirect_url = join_url(url or item.url, location)
                depth = item.depth + 1
                targets = [page.redirect_url] if self._is_in_scope(page.redirect_url, depth) else []
                discovered = self._crawl.to_add(targets, depth, page.url)
                return await backend.commit_page(
                    page, claim=self.claim, discovered=discovered, kind=kind, follow_redirect=False
                )
            case ResponseKind.NOT_MODIFIED:
                given = _absolute(url or item.url, links)
                discovered = self._followed(given or await self._stored_links(), page.url)
                return await backend.commit_page(page, claim=self.claim, discovered=discovered, kind=kind)
            case _:
                result = await backend.commit_page(
                    page, claim=self.claim, kind=kind, retry_after=retry_after(headers, utc_now())
                )
        if result.outcome is CommitOutcome.FAILED:
            # The worker logs an item that is given up, at level error.
            is_dead = self.claim.settled_as is FrontierStatus.FAILED
            fate = "which was the last one" if is_dead else "and will be tried again"
            logger.warning(
                "the fetch of %s failed in attempt %d, %s: %s",
                *(item.url, item.attempt, fate, error_of(page, status)),
            )
        return result

    async def _save_content(
        self,
        page: Page,
        url: str,
        redirects: Sequence[int],
        headers: Mapping[str, str],
        links: Iterable[str],
        fetch_seconds: float | None,
        **content: Any,
    ) -> CommitResult:
        """Stores the content of the page, or that of the page to which it redirects."""
        crawl, item, backend = self._crawl, self.claim.item, self._crawl.backend
        also: list[str] = []
        target = crawl.normalized(url)
        if target != item.normalized_url:
            is_permanent = bool(redirects) and all(status in _PERMANENT for status in redirects)
            alias = page.model_copy(
                update={
                    "status_code": 301 if is_permanent else 302,
                    "redirect_url": target,
                    "etag": None,
                    "last_modified": None,
                }
            )
            if not self._is_in_scope(url, item.depth):
                return await backend.commit_page(alias, claim=self.claim, follow_redirect=False)
            # If the process is killed before the claim ends, both are stored again.
            commit_alias = partial(backend.commit_page, alias, follow_redirect=False)
            await while_leased([self.claim], SystemClock(), 0.0, commit_alias)
            page = page.model_copy(update={"page_id": link_id(target), "url": target})
            also.append(target)
        outlinks = _absolute(url, links)
        seconds = time.perf_counter() - self._started if fetch_seconds is None else fetch_seconds
        derived = {
            "outlinks": outlinks,
            "content_type": header(headers, "content-type"),
            "fetch_latency_ms": 1000 * seconds,
        }
        try:
            version = PageVersion.of(page, item.run_id, **{**derived, **content})
        except ValidationError as error:
            raise InvalidArgumentError(*first_of(error, with_value=False)) from None
        discovered = self._followed(outlinks, page.url, but=target if also else None)
        return await backend.commit_page(
            page, version, claim=self.claim, discovered=discovered, also=also, kind=ResponseKind.CONTENT
        )

    async def _stored_links(self) -> list[str]:
        """Returns the links of the page's current version; none if retention has removed it."""
        item, backend = self.claim.item, self._crawl.backend
        if not self._crawl.reaches(item.depth + 1):
            return []

        async def read() -> PageVersion | None:
            # A run that is no sync has not read the page.
            page = self.page or await backend.get_page(item.site_id, page_id_of(self.claim))
            if page is None or page.current_version_id is None:
                return None
            return await backend.get_version(item.site_id, page.page_id, page.current_version_id)

        version = await while_leased([self.claim], SystemClock(), 0.0, read)
        return [] if version is None else _absolute(version.url, version.outlinks)

    def _followed(
        self, links: Sequence[str], page_url: str, *, but: str | None = None
    ) -> Sequence[str | FrontierItem]:
        """Returns those links of the page to add that the crawl follows.

        Args:
            links: The links, absolute.
            page_url: The URL of the page.
            but: The normal form of a link to leave out. A link of a redirect's target to itself would be
                fetched before its item is completed.
        """
        crawl, depth = self._crawl, self.claim.item.depth + 1
        followed = [link for link in links if crawl.follows(link, depth)]
        if but is not None:
            followed = [link for link in followed if crawl.normalized(link) != but]
        return crawl.to_add(followed, depth, page_url)

    def _is_in_scope(self, target: str, depth: int) -> bool:
        """Returns whether the crawl follows the target of a redirect; logs if it does not."""
        is_followed = self._crawl.follows(target, depth)
        if not is_followed:
            # A seed that leads elsewhere is a mistake, such as www.example.org for example.org.
            level = logging.INFO if self.depth else logging.WARNING
            reason = "which is not in the scope of the crawl: see allowed_domains and follow"
            logger.log(level, "%s redirects to %s, %s", self.url, target, reason)
        return is_followed


def page_id_of(claim: Claim) -> str:
    """Returns the id of the page of a claim. If the item has a `unique_key`, the item has another id."""
    return link_id(claim.item.normalized_url)


def _absolute(base_url: str, links: Iterable[str]) -> list[str]:
    """Returns the absolute forms of links, without duplicates."""
    joined = (join_url(base_url, link) for link in links)
    # Text that UTF-8 cannot encode is no URL, and could not be stored.
    return list(dict.fromkeys(link for link in joined if is_encodable(link)))
