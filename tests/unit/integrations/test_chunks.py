"""Chunks: their ids, their sections, and links to them."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import InvalidArgumentError, PageVersion
from ragcrawl_dynamo.integrations import Passage, chunk_id, chunks_of, headings_of, text_of
from tests.support.factories import ids, make_version


def headings(markdown: str, *outline: dict[str, Any]) -> list[tuple[int, str, str | None]]:
    version = make_version(markdown=markdown, headings_outline=list(outline))
    return [(heading.level, heading.text, heading.anchor) for heading in headings_of(version)]


def sections(version: PageVersion, *passages: str | Passage) -> list[str]:
    return [" > ".join(chunk.section) for chunk in chunks_of(version, passages)]


def test_headings_of_finds_both_forms_of_markdown() -> None:
    markdown = "Title\n=====\n\nText\n\nPart\n----\n\n### Deep ###\n\n####### seven\n#none\n"
    assert headings(markdown) == [(1, "Title", None), (2, "Part", None), (3, "Deep", None)]


def test_headings_of_leaves_out_code_tables_and_rules() -> None:
    markdown = (
        "# Title\n\n```python\n# a comment\n```\n\n~~~~\n# another\n```\n~~~~\n\n"
        "  ```\n  # in a list\n  ```\n\nText.\n\n---\n\n| a |\n| --- |\n| # b |\n\n```\n# not closed\n"
    )
    assert headings(markdown) == [(1, "Title", None)]


def test_headings_of_reads_lines_that_end_with_carriage_returns() -> None:
    assert headings("# One\r\n\r\nTwo\r\n===\r\n") == [(1, "One", None), (1, "Two", None)]


def test_headings_of_takes_the_anchor_of_a_link_to_itself() -> None:
    markdown = (
        '# json — encoder[¶](#module-json "Link to this heading")\n'
        "## `dumps()` \\_fast\\_[#](https://docs.example/json.html#json.dumps)\n"
        "## [All of it](#all)\n"
        "## See [other](other.html#part)\n"
    )
    assert headings(markdown) == [
        (1, "json — encoder", "module-json"),
        (2, "dumps() _fast_", "json.dumps"),
        (2, "All of it", "all"),
        (2, "See other", None),
    ]


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("raw_decode and raw\\_encode", "raw_decode and raw_encode"),
        ("**__init__**", "__init__"),
        ("`*args`, ``a`b``, `__all__`", "*args, a`b, __all__"),
        ("_One_ __of two__, _**three**_ \\*", "One of two, three *"),
        ("_private and dunder__", "_private and dunder__"),
        ("C:\\dir, `open", "C:\\dir, open"),
    ],
)
def test_headings_of_drops_markup_and_keeps_names(markdown: str, text: str) -> None:
    assert headings(f"# {markdown}\n") == [(1, text, None)]
    # The outline has the text of the HTML.
    assert headings(f"# {markdown}\n", {"text": text, "anchor": "x"}) == [(1, text, "x")]


def test_headings_of_takes_anchors_of_the_outline_in_order() -> None:
    outline: list[dict[str, Any]] = [
        {"level": 1, "text": "Title", "anchor": "title"},
        {"level": 2, "text": "Usage", "id": "usage"},
        {"level": 2, "text": "Not in the text", "anchor": "x"},
        {"level": 2, "text": " usage ", "slug": "#usage-1"},
        {"level": 2, "text": 3, "anchor": "y"},
        {"level": 2},
    ]
    markdown = "# Title\n\n## Usage\n\n## Unknown\n\n## **Usage**\n"
    assert headings(markdown, *outline) == [
        (1, "Title", "title"),
        (2, "Usage", "usage"),
        (2, "Unknown", None),
        (2, "Usage", "usage-1"),
    ]


MARKDOWN = "Intro.\n\n# A\n\nSame.\n\n## B\n\nSame.\n\n### C\n\nDeep.\n\n## D\n\nSame.\n"


def test_chunks_of_knows_the_section_in_which_each_chunk_begins() -> None:
    version = make_version(markdown=MARKDOWN)
    assert sections(version, "Intro.", "Same.", "Same.", "### C\n\nDeep.", "## D", "Same.") == [
        "",
        "A",
        "A > B",
        "A > B > C",
        "A > D",
        "A > D",
    ]


def test_chunks_of_takes_the_position_that_the_splitter_knows() -> None:
    version = make_version(markdown=MARKDOWN)
    last = MARKDOWN.rindex("Same.")
    assert sections(version, Passage("Same.", last)) == ["A > D"]
    # White space before the heading belongs to the section before.
    heading = MARKDOWN.index("## D")
    assert sections(version, Passage("\n\n## D", heading - 2)) == ["A > D"]


def test_chunks_of_a_passage_that_overlaps_or_that_the_splitter_changed() -> None:
    version = make_version(markdown="# A\n\nOne two. Two three.\n\n# B\n\nThree  \nfour.\n\n# C\n")
    passages = ("One two.", "two. Two three.", "Three\nfour.", "Never seen.")
    assert sections(version, *passages) == ["A", "A", "B", "B"]


def test_chunks_of_links_to_the_section() -> None:
    outline: list[Any] = [{"text": "A", "anchor": "a"}]
    version = make_version(
        markdown="Intro.\n\n# A\n\nOne.\n\n## In A\n\nMore.\n\n# B\n\nTwo.\n",
        headings_outline=outline,
        url="https://example.com/p?q=1#top",
        title="The title",
        language="en",
    )
    chunks = chunks_of(version, ["Intro.", "One.", "More.", Passage("Two.", metadata={"k": 1})])
    assert [chunk.anchor_url for chunk in chunks] == [
        "https://example.com/p?q=1#top",
        "https://example.com/p?q=1#a",
        "https://example.com/p?q=1#a",
        "https://example.com/p?q=1#top",
    ]
    assert {(chunk.title, chunk.language, chunk.crawled_at) for chunk in chunks} == {
        ("The title", "en", version.crawled_at)
    }
    assert [chunk.position for chunk in chunks] == [0, 1, 2, 3]
    assert chunks[3].metadata == {"k": 1}


def test_chunks_of_leaves_out_blank_passages() -> None:
    version = make_version(markdown="One.")
    assert [chunk.position for chunk in chunks_of(version, ["", " \n", "One."])] == [0]


def test_text_of_is_the_plain_text_where_there_is_no_markdown() -> None:
    assert text_of(make_version(markdown="", plain_text="Plain.")) == "Plain."
    assert text_of(make_version(markdown="", html="<p>")) == ""


@given(st.lists(st.tuples(ids, ids, ids, st.integers(0, 3)), unique=True, max_size=8))
def test_chunk_id_is_a_uuid_and_differs_for_different_chunks(
    names: list[tuple[str, str, str, int]],
) -> None:
    made = [chunk_id(*name) for name in names]
    assert len(set(made)) == len(names)
    assert all(str(UUID(made_id)) == made_id for made_id in made)
    assert made == [chunk_id(*name) for name in names]


def test_chunk_id_does_not_change() -> None:
    """Indexes keep it."""
    assert chunk_id("site", "page", "v1", 0) == "8552ab15-8e82-5fc0-a806-8bef3dd05084"


@pytest.mark.parametrize(
    "text",
    [
        "`" * 50_000,
        "#" * 50_000,
        "# " + " " * 50_000,
        "a\n" * 25_000 + "=" * 25_000,
        "# [" * 20_000,
        "# _a `" * 20_000,
        "# " + "_a" * 50_000,
    ],
)
def test_headings_of_takes_little_time_for_any_text(text: str) -> None:
    began = time.process_time()
    headings(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("passages", "mistake"), [("text", "a str"), ({"text": 1}, "a dict"), (["text", 1], "a list with a int")]
)
def test_chunks_of_refuses_passages_that_are_no_list_of_texts(passages: Any, mistake: str) -> None:
    """A single text would become a chunk for each character."""
    with pytest.raises(InvalidArgumentError) as raised:
        chunks_of(make_version(markdown="text"), passages)
    assert str(raised.value) == f"passages: must be a list of texts or Passages, not {mistake}"


def test_chunks_of_takes_a_generator() -> None:
    assert [chunk.text for chunk in chunks_of(make_version(), (text for text in ("a", "b")))] == ["a", "b"]
