"""Turns HTML into the content of a page, and a stored page into the passages of a search index."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import dropwhile, takewhile
from math import ceil
from operator import not_
from typing import Any, TypedDict

from html_to_markdown import ConversionOptions, convert
from lxml import etree
from lxml.html import document_fromstring, tostring

from ragcrawl_dynamo import PageVersion
from ragcrawl_dynamo.integrations import Passage, headings_of, text_of

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")

# A passage has several short sections, or a part of a long one, in characters.
LEAST, MOST = 400, 2000

LONGEST_DESCRIPTION = 200

# A heading of these levels always begins a passage.
OWN_PASSAGE = 2


class Content(TypedDict):
    """The content of a page, as `Task.save` takes it."""

    title: str | None
    description: str | None
    markdown: str
    headings_outline: list[dict[str, Any]]
    links: list[str]


def extract(html: str) -> Content:
    """Extracts title, markdown, outline and links of a page."""
    document = document_fromstring(html.replace("&nbsp;", " "))
    links = [str(link) for link in document.xpath("//a/@href")]
    description = next(iter(document.xpath("//meta[@name='description']/@content")), "")
    if document.xpath("//table[@class='heading']"):
        description = description_of_pydoc(document)
        mark_headings_of_pydoc(document)
    # Those without an anchor too: headings are told apart by their order.
    outline = [
        {
            "level": int(heading.tag[1]),
            "text": " ".join(heading.text_content().split()),
            "anchor": anchor_of(heading),
        }
        for heading in document.iter(*HEADINGS)
    ]
    return Content(
        title=document.findtext(".//title"),
        description=" ".join(description.split())[:LONGEST_DESCRIPTION] or None,
        markdown=convert(
            tostring(document, encoding="unicode"), ConversionOptions(extract_metadata=False)
        ).content
        or "",
        headings_outline=outline,
        links=links,
    )


def anchor_of(heading: Any) -> str | None:
    """Returns the anchor of a heading: its own, that of something in it, or of the section that it begins."""
    anchors = heading.xpath("descendant-or-self::*/@id | descendant::a/@name")
    parent = heading.getparent()
    if not anchors and parent is not None and parent[0] is heading:
        anchors = parent.xpath("self::section/@id | self::div/@id")
    return str(anchors[0]) if anchors else None


def description_of_pydoc(document: Any) -> str:
    """Returns the first paragraph of a page of pydoc."""
    code = document.xpath("//body//p/span[@class='code']")
    lines = [line.strip() for line in code[0].itertext()] if code else []
    return " ".join(takewhile(bool, dropwhile(not_, lines)))


def mark_headings_of_pydoc(document: Any) -> None:
    """Marks up the headings on pages of pydoc as headings, and drops the parts that all pages share."""
    for element in document.xpath("//body/div[contains(@style, 'float')] | //td[@class='extra']"):
        element.drop_tree()
    for cell in document.xpath("//td"):
        drop_inherited(cell)
    for title in document.xpath("//strong[@class='title']"):
        title.tag = "h1"
        document.find(".//title").text = title.text_content()
    for section in document.xpath("//strong[@class='bigsection']"):
        section.tag = "h2"
    for anchor in document.xpath("//a[@name]"):
        # Methods such as __init__ stay a part of their class.
        if not anchor.text_content().startswith("__"):
            anchor.tag = "h3" if anchor.getparent().tag == "td" else "h4"
            anchor.set("id", anchor.get("name"))
    for names in document.xpath("//strong[text()='__all__']"):
        # Not an explanation of anything, and still like each question that has one of the names.
        names.tail = ""
        names.drop_tree()
    for code in document.xpath("//span[@class='code']"):
        if code.text_content().strip():
            code.tag = "pre"
            for end in code.iter("br"):
                end.tail = "\n" + (end.tail or "").lstrip("\n")
            etree.strip_tags(code, "a", "br")
        else:
            code.drop_tree()
    # The tables are there for the layout.
    etree.strip_tags(document, "table", "tbody", "tr", "td", "dl", "dt", "dd")


def drop_inherited(cell: Any) -> None:
    """Drops the methods that a class inherits, because the section of the other class has them."""
    inherited = False
    for element in list(cell):
        if element.tag == "hr":
            inherited = "inherited from" in (element.tail or "")
        if inherited:
            cell.remove(element)


def split(version: PageVersion) -> Iterator[Passage]:
    """Splits a page at its headings. Short sections are joined, and long ones are split between lines."""
    text = text_of(version)
    starts = [0]
    for heading in headings_of(version):
        section = text[starts[-1] : heading.start]
        if not has_text(section):
            # Nothing but headings: the passage begins with the innermost one, to which it is linked.
            starts[-1] = heading.start
        elif heading.level <= OWN_PASSAGE or len(section) >= LEAST:
            starts.append(heading.start)
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        if has_text(text[start:end]):
            for passage in lines_of(text, start, end):
                yield replace(passage, metadata={"description": version.description})


def has_text(section: str) -> bool:
    """Returns whether a section has more than headings and rules."""
    return any(line.strip(" -") and not line.startswith("#") for line in section.splitlines())


def lines_of(text: str, start: int, end: int) -> Iterator[Passage]:
    """Splits a part of a text between lines, into passages of about the same size that are not too long."""
    while (parts := ceil((end - start) / MOST)) > 1:
        target = start + (end - start) // parts
        cut = text.rfind("\n", start, target) + 1 or target
        yield Passage(text[start:cut], start)
        start = cut
    yield Passage(text[start:end], start)
