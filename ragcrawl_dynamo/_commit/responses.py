"""Classifies the answers of servers by their meaning for a page: a pure function of the HTTP status."""

from __future__ import annotations

from enum import StrEnum

from ragcrawl_dynamo.errors import InvalidArgumentError

__all__ = ["ResponseKind"]

# RFC 9110, sections 15.4 to 15.6; RFC 6585, section 4 (429); RFC 7725, section 3 (451); RFC 8470, section 5.2
# (425).
_MOVED = frozenset({301, 308})
_REDIRECTED = frozenset({302, 303, 307})
_NOT_MODIFIED = 304
_DENIED = frozenset({401, 403, 451})
_GONE = frozenset({404, 410})
_FAILED = frozenset({408, 425, 429})


class ResponseKind(StrEnum):
    """The meaning of a server's answer for the page.

    Attributes:
        CONTENT: 2xx. The page has the content that came with the answer.
        NOT_MODIFIED: 304. The page has the content that is stored.
        MOVED: 301 and 308. The page is at another URL, for good.
        REDIRECTED: 302, 303 and 307. The page is at another URL, for now.
        GONE: 404 and 410. There is no page.
        DENIED: 401, 403 and 451. There may be a page, but this crawler does not get it.
        FAILED: 408, 425, 429, 5xx, or no answer at all. A later fetch may say more.
    """

    CONTENT = "content"
    NOT_MODIFIED = "not_modified"
    MOVED = "moved"
    REDIRECTED = "redirected"
    GONE = "gone"
    DENIED = "denied"
    FAILED = "failed"

    @classmethod
    def of(cls, status: int | None) -> ResponseKind:
        """Returns the kind of an answer.

        Args:
            status: The HTTP status; None if no answer came, such as after a time-out.

        Raises:
            InvalidArgumentError: The status says nothing that can be stored, such as 400 or 418.
        """
        if status is None or status in _FAILED or 500 <= status <= 599:
            return cls.FAILED
        if 200 <= status <= 299:
            return cls.CONTENT
        if status == _NOT_MODIFIED:
            return cls.NOT_MODIFIED
        kinds = ((_MOVED, cls.MOVED), (_REDIRECTED, cls.REDIRECTED), (_DENIED, cls.DENIED), (_GONE, cls.GONE))
        for statuses, kind in kinds:
            if status in statuses:
                return kind
        raise InvalidArgumentError(
            "status_code",
            f"{status} has no meaning for a page: it must be 2xx, 301-304, 307, 308, 401, 403, 404, "
            f"408, 410, 425, 429, 451 or 5xx; to give {status} a meaning, pass `kind` to commit_page, or "
            f"`kind_of` to crawl",
        )
