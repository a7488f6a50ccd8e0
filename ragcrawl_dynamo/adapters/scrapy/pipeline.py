"""The item pipeline: it commits items as pages."""

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


class PagePipeline:
    """Commits items that have a `url` as pages of the site, by `commit_page`.

    Fields of an item that a version or a page has too are stored there (`title`, `markdown`, `html`,
    `plain_text`, `status_code`, `etag` ...). All others are stored in the version's `extra`, and must be
    JSON. The content of an item is its `markdown`, `plain_text` and `html`, or the whole item if it has none
    of them. A page gets a new version only if its content has changed. The `status_code` of an item decides
    what is stored of it, as by `commit_page`; it is 200 if the item has none. The item of a redirect needs a
    `redirect_url`.
    """

    def __init__(self, crawl: Crawl) -> None:
        self._crawl = crawl

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Creates it for a crawler."""
        return cls(Crawl.of(crawler))

    async def process_item(self, item: Any, spider: Any = None) -> Any:
        """Commits an item, and returns it.

        Raises:
            InvalidInputError: The item cannot be stored.
        """
        fields = dict(ItemAdapter(item).asdict())
        if isinstance(fields.get("url"), str) and fields["url"]:
            settings = self._crawl.settings
            page, version = record_of(fields, settings.site_id, settings.run_id)
            backend = await self._crawl.open()
            await backend.commit_page(page, version)
        return item


def record_of(fields: dict[str, Any], site_id: str, run_id: str) -> tuple[Page, PageVersion]:
    """Returns the fields of an item as a page and its version.

    Raises:
        InvalidArgumentError: A field has a wrong type, or cannot be encoded as JSON.
    """
    stored_fields = {name: value for name, value in fields.items() if value is not None}
    version_fields = {name: value for name, value in stored_fields.items() if name in _VERSION_FIELDS}
    page_fields = {name: value for name, value in stored_fields.items() if name in _PAGE_FIELDS}
    extra = {name: value for name, value in fields.items() if name not in _VERSION_FIELDS | _PAGE_FIELDS}
    content = {
        name: version_fields[name] for name in ("markdown", "plain_text", "html") if version_fields.get(name)
    }
    try:
        text = json.dumps(content or fields, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError("item", f"cannot be encoded as JSON: {error}") from error
    content_hash = _digest(text)
    # An id stands for one content_hash: if the item brings its own one, equal texts can have several.
    version_id = _digest(text + str(fields["content_hash"])) if fields.get("content_hash") else content_hash
    url = comparable_url(fields["url"])
    ids = {"page_id": link_id(url), "site_id": site_id}
    try:
        version = PageVersion.model_validate(
            {
                "status_code": 200,
                "content_hash": content_hash,
                **version_fields,
                **ids,
                "version_id": version_id[:32],
                "run_id": run_id,
                "extra": extra,
            }
        )
        page = Page.model_validate(
            {
                "status_code": version.status_code,
                **page_fields,
                **ids,
                "url": url,
            }
        )
    except ValidationError as error:
        field, reason = first_of(error, with_value=False)
        raise InvalidArgumentError(f"item.{field}", reason) from None
    return page, version


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
