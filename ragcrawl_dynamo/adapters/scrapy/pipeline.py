"""Commits items as pages, as an item pipeline."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Self

from itemadapter import ItemAdapter
from pydantic import ValidationError

from ragcrawl_dynamo import InvalidArgumentError, Page, PageVersion
from ragcrawl_dynamo._utils.urls import comparable_url, link_id
from ragcrawl_dynamo._utils.validation import first_of
from ragcrawl_dynamo.adapters.scrapy.crawl import Crawl
from ragcrawl_dynamo.adapters.scrapy.json_values import json_value

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

# Fields of an item that become fields of the version. All others that the page has not either go into its
# `extra`.
_VERSION_FIELDS = set(PageVersion.model_fields) - {"version_id", "page_id", "site_id", "run_id", "extra"}

# Fields of an item that become fields of the page.
_PAGE_FIELDS = {
    "canonical_url",
    "etag",
    "last_modified",
    "depth",
    "referrer_url",
    "status_code",
    "is_tombstone",
    "redirect_url",
}

_CONTENT_FIELDS = ("markdown", "plain_text", "html")

# Fields that have several values. A list of texts in any other field is joined.
_LIST_FIELDS = {"headings_outline", "outlinks"}

# Fields that decide what `commit_page` stores: an item with a wrong value in one of them is refused.
_DECIDING_FIELDS = {"url", "status_code", "is_tombstone", "redirect_url"}


class PagePipeline:
    """Commits items that have a `url` as pages of the site, by `commit_page`.

    Fields of an item that a version or a page has too are stored there (`title`, `markdown`, `html`,
    `plain_text`, `status_code`, `etag` ...). All others are stored in the version's `extra`, and so are those
    whose value has a wrong type. A list of texts, as `getall()` and item loaders return it, is joined: by
    line breaks in `markdown`, `html` and `plain_text`, by spaces elsewhere.

    Values that JSON does not have are stored in another form: dates and times as ISO 8601 text, durations as
    seconds, Decimal, UUID and paths as text, bytes as text if they are UTF-8 and as base64 if not, sets as
    sorted lists, tuples as lists, infinite numbers as null, items and dataclasses as objects. An item with a
    value of another type, such as a selector, is not stored. Scrapy reports its error, as that of any
    pipeline.

    The content of an item is its `markdown`, `plain_text` and `html`, or the whole item if it has none of
    them. A page gets a new version only if its content has changed. The `status_code` of an item decides what
    is stored of it, as by `commit_page`; it is 200 if the item has none. The item of a redirect needs a
    `redirect_url`.
    """

    def __init__(self, crawl: Crawl) -> None:
        self._crawl = crawl

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Creates it for a crawler."""
        return cls(Crawl.of(crawler))

    async def process_item(self, item: Any, spider: Any = None) -> Any:
        """Commits an item, and returns it. Other values, such as None, are returned unchanged.

        Raises:
            InvalidInputError: The item cannot be stored.
        """
        if not ItemAdapter.is_item(item):
            return item
        fields = dict(ItemAdapter(item))
        if _url_of(fields):
            settings = self._crawl.settings
            page, version = record_of(fields, settings.site_id, settings.run_id)
            backend = await self._crawl.open()
            await backend.commit_page(page, version)
        return item


def record_of(fields: dict[str, Any], site_id: str, run_id: str) -> tuple[Page, PageVersion]:
    """Returns the fields of an item that has a URL as a page and its version.

    Raises:
        InvalidArgumentError: A field cannot be stored.
    """
    plain = {str(name): _json_field(name, value) for name, value in fields.items()}
    known = {
        name: joined
        for name, value in plain.items()
        if name in _VERSION_FIELDS | _PAGE_FIELDS and (joined := _joined(name, value)) is not None
    }
    known["url"] = comparable_url(_url_of(plain) or "")
    extra = {name: value for name, value in plain.items() if name not in _VERSION_FIELDS | _PAGE_FIELDS}
    while True:
        try:
            return _models_of(known, extra, plain, {"site_id": site_id, "run_id": run_id})
        except ValidationError as error:
            field, reason = first_of(error, with_value=False)
            name = field.partition(".")[0]
            if name in _DECIDING_FIELDS or name not in known:
                raise InvalidArgumentError(f"item.{field}", reason) from None
            del known[name]
            extra[name] = plain[name]


def _models_of(
    known: dict[str, Any], extra: dict[str, Any], plain: dict[str, Any], ids: dict[str, str]
) -> tuple[Page, PageVersion]:
    """Returns a page and its version.

    Args:
        known: The fields of the item that they have too.
        extra: The other fields of the item.
        plain: All of its fields.
        ids: Site and run.

    Raises:
        ValidationError: A field has a wrong type.
    """
    content = {name: known[name] for name in _CONTENT_FIELDS if known.get(name)}
    text = json.dumps(content or plain, ensure_ascii=False, sort_keys=True)
    content_hash = _digest(text)
    # An id stands for one content_hash: if the item brings its own one, equal texts can have several.
    version_id = _digest(text + str(known["content_hash"])) if known.get("content_hash") else content_hash
    page_id = link_id(known["url"])
    version = PageVersion.model_validate(
        {
            "status_code": 200,
            "content_hash": content_hash,
            **{name: value for name, value in known.items() if name in _VERSION_FIELDS},
            **ids,
            "page_id": page_id,
            "version_id": version_id[:32],
            "extra": extra,
        }
    )
    page = Page.model_validate(
        {
            **{name: value for name, value in known.items() if name in _PAGE_FIELDS},
            "status_code": version.status_code,
            "site_id": ids["site_id"],
            "page_id": page_id,
            "url": known["url"],
        }
    )
    return page, version


def _url_of(fields: dict[str, Any]) -> str | None:
    """Returns the URL of an item; None if it has none."""
    url = _joined("url", fields.get("url"))
    return url if isinstance(url, str) and url else None


def _json_field(name: Any, value: Any) -> Any:
    try:
        return json_value(value)
    except (TypeError, RecursionError) as error:
        raise InvalidArgumentError(f"item.{name}", f"cannot be stored: {error}") from None


def _joined(name: str, value: Any) -> Any:
    """Returns the value that a list stands for: item loaders put all values into lists.

    A list of texts is joined; the only member of a list is taken out of it; an empty list is no value.
    """
    if name in _LIST_FIELDS or not isinstance(value, list | tuple):
        return value
    if not value:
        return None
    if all(isinstance(member, str) for member in value):
        return ("\n" if name in _CONTENT_FIELDS else " ").join(value)
    return value[0] if len(value) == 1 else value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
