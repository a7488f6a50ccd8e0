"""Turns a version into chunks, each with its id, its section and a link to it."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from ragcrawl_dynamo._dynamodb.values import escape
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import PageVersion

__all__ = ["Chunk", "Heading", "Passage", "chunk_id", "chunks_of", "headings_of", "text_of"]

# A heading of Markdown: "## Text", or a line of text with "===" or "---" below it. Fences of code come first,
# because a comment in code looks like a heading.
_BLOCK = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=fence)[`~]*\s*?$|\Z)"
    r"|^ {0,3}(?P<marks>#{1,6})[ \t]+(?P<text>[^\n]+?)\s*?(?:#+\s*?)?$"
    r"|^ {0,3}(?P<underlined>[^\s#>|*+-][^\n]*)\n {0,3}(?P<line>=+|-{2,})\s*?$",
    re.MULTILINE | re.DOTALL,
)

# The link of a heading to itself, as documentation generators write it: [¶](#anchor "Link to this heading").
# Or all of the heading is such a link.
_OWN_LINK = re.compile(
    r"\[(?P<text>[^\]\w]*)\]\([^)\s]*#(?P<anchor>[^)\s]+)[^)]*\)|^\[[^\]]*\]\(#(?P<whole>[^)\s]+)\)$"
)
_LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\([^)]*\)")

# Code, an escaped character, emphasis by underscores, or a mark.
_MARKUP = re.compile(
    r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)"
    r"|\\(?P<escaped>[^a-zA-Z0-9\s])"
    r"|(?<!\w)(?P<line>__?)(?=[^\s_])(?P<emphasis>.+?)(?<=[^\s_\\])(?P=line)(?!\w)"
    r"|[*`¶]"
)
_MARKS = re.compile(r"[*_`\\¶]")

# The most characters of a heading that are read, since the search for links takes quadratic time.
_LONGEST_HEADING = 1000

# The names that outlines have for the anchor of a heading.
_ANCHOR_FIELDS = ("anchor", "id", "slug")


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a version's text, as a splitter returns it.

    Attributes:
        text: The text to embed.
        start: The position of the passage in the text of the version, in characters; None to search for it.
        metadata: The metadata that the splitter gives it.
    """

    text: str
    start: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a version.

    Attributes:
        start: The position of the heading in the text of the version, in characters.
        level: From 1 to 6.
        text: The text of the heading, without markup.
        anchor: The text after "#" in a link to it; None if it is not known.
    """

    start: int
    level: int
    text: str
    anchor: str | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a page, as an index stores it.

    Attributes:
        id: A UUID, the same for the same site, page, version and position.
        text: The text to embed.
        site_id: The site.
        page_id: The page.
        version_id: The version of the page.
        position: The number of the chunk in its version, from 0.
        url: The URL of the page.
        anchor_url: A link to the section of the chunk, `url#anchor`, or to the innermost section around it
            whose anchor is known; `url` if there is none.
        title: The title of the page.
        section: The headings above the beginning of the chunk, from the outermost one to its own.
        language: The language of the page.
        crawled_at: When the version was fetched.
        metadata: The metadata that the splitter gave it.
    """

    id: str
    text: str
    site_id: str
    page_id: str
    version_id: str
    position: int
    url: str
    anchor_url: str
    title: str | None
    section: tuple[str, ...]
    language: str | None
    crawled_at: datetime
    metadata: dict[str, Any] = field(default_factory=dict)


def chunk_id(site_id: str, page_id: str, version_id: str, position: int) -> str:
    """Returns the id of a chunk. It is a UUID (version 5), because some stores take no other ids."""
    name = "#".join(map(escape, (site_id, page_id, version_id)))
    return str(uuid5(NAMESPACE_URL, f"{name}#{position}"))


def text_of(version: PageVersion) -> str:
    """Returns the text of a version that splitters split: its Markdown, or else its plain text."""
    return version.markdown or version.plain_text or ""


def headings_of(version: PageVersion) -> list[Heading]:
    """Returns the headings in the text of a version, with the anchors that are known.

    The anchor of a heading is that of the entry with the same text in `headings_outline`, from the fields
    `anchor`, `id` or `slug`; or else that of a link in the heading to itself.
    """
    outline = list(_outline(version))
    headings = []
    passed = 0
    for block in _BLOCK.finditer(text_of(version)):
        if block["fence"]:
            continue
        level = len(block["marks"]) if block["marks"] else (1 if block["line"][0] == "=" else 2)
        raw = (block["text"] or block["underlined"]).strip()[:_LONGEST_HEADING]
        link = _OWN_LINK.search(raw)
        anchor = (link["anchor"] or link["whole"]) if link else None
        text = _plain(raw.replace(link[0], "") if link and link["anchor"] else raw)
        comparable = _comparable(text)
        for i in range(passed, len(outline)):
            if outline[i][0] == comparable:
                passed = i + 1
                anchor = outline[i][1] or anchor
                break
        headings.append(Heading(block.start(), level, text, anchor))
    return headings


def chunks_of(version: PageVersion, passages: Iterable[str | Passage]) -> list[Chunk]:
    """Returns the chunks of a version, one for each passage that is not blank, in their order.

    Raises:
        InvalidArgumentError: The passages are something else than texts or Passages, such as one text.
    """
    passages = listed(passages)
    if mistake := mistake_in(passages):
        raise InvalidArgumentError("passages", f"must be a list of texts or Passages, not {mistake}")
    text, headings = text_of(version), headings_of(version)
    chunks: list[Chunk] = []
    start = -1
    for text_or_passage in passages:
        passage = Passage(text_or_passage) if isinstance(text_or_passage, str) else text_or_passage
        if not passage.text.strip():
            continue
        # A passage that is not found, because the splitter changed it, gets the position of the one before.
        start = max(_locate(text, passage, start), start)
        path = _path(headings, start)
        anchor = next((heading.anchor for heading in reversed(path) if heading.anchor), None)
        chunks.append(
            Chunk(
                id=chunk_id(version.site_id, version.page_id, version.version_id, len(chunks)),
                text=passage.text,
                site_id=version.site_id,
                page_id=version.page_id,
                version_id=version.version_id,
                position=len(chunks),
                url=version.url,
                anchor_url=version.url if anchor is None else f"{version.url.partition('#')[0]}#{anchor}",
                title=version.title,
                section=tuple(heading.text for heading in path),
                language=version.language,
                crawled_at=version.crawled_at,
                metadata=passage.metadata,
            )
        )
    return chunks


def listed(passages: Any) -> Any:
    """Returns passages as a list; other values as they are. A generator runs here."""
    if isinstance(passages, Coroutine):
        # Otherwise Python warns that it was never awaited.
        passages.close()
    is_one = isinstance(passages, str | bytes | Mapping) or not isinstance(passages, Iterable)
    return passages if is_one else list(passages)


def mistake_in(passages: Any) -> str | None:
    """Returns which value is no list of texts or Passages; None if there is none."""
    if not isinstance(passages, list):
        return "None" if passages is None else f"a {type(passages).__name__}"
    for passage in passages:
        if not isinstance(passage, str | Passage):
            return f"a list with a {type(passage).__name__}"
        if isinstance(passage, Passage) and not isinstance(passage.text, str):
            return f"a Passage whose text is a {type(passage.text).__name__}"
        if isinstance(passage, Passage) and not isinstance(passage.start, int | None):
            return f"a Passage whose start is a {type(passage.start).__name__}"
    return None


def _outline(version: PageVersion) -> Iterable[tuple[str, str | None]]:
    """Yields the texts of a version's outline, to compare, and their anchors."""
    for entry in version.headings_outline:
        text = entry.get("text")
        anchors = [entry.get(name) for name in _ANCHOR_FIELDS]
        anchor = next((anchor for anchor in anchors if isinstance(anchor, str) and anchor), None)
        if isinstance(text, str):
            yield _comparable(_LINK.sub(r"\g<text>", text)), anchor and anchor.removeprefix("#")


def _plain(markdown: str) -> str:
    """Returns the text of a heading without markup, with single spaces."""
    return " ".join(_MARKUP.sub(_content, _LINK.sub(r"\g<text>", markdown)).split())


def _content(markup: re.Match[str]) -> str:
    """Returns the text of a piece of markup."""
    if markup["code"] or markup["escaped"]:
        return markup["code"] or markup["escaped"]
    emphasis = markup["emphasis"] or ""
    # Converters do not escape names such as __init__.
    return markup[0] if markup["line"] == "__" and emphasis.isidentifier() else _plain(emphasis)


def _comparable(text: str) -> str:
    """Returns the text of a heading in a form that does not depend on markup, case and white space."""
    return " ".join(_MARKS.sub("", text).split()).casefold()


def _locate(text: str, passage: Passage, after: int) -> int:
    """Returns where a passage begins to have text; -1 if that is not found."""
    blank = len(passage.text) - len(passage.text.lstrip())
    if passage.start is not None:
        return passage.start + blank
    stripped = passage.text.strip()
    start = text.find(stripped, after + 1)
    # A splitter may change the white space between lines.
    return start if start >= 0 else text.find(stripped.partition("\n")[0].rstrip(), after + 1)


def _path(headings: Sequence[Heading], start: int) -> list[Heading]:
    """Returns the headings above a position, from the outermost one to the last one before it."""
    path: list[Heading] = []
    for heading in headings:
        if heading.start > start:
            break
        while path and path[-1].level >= heading.level:
            path.pop()
        path.append(heading)
    return path
