"""The pages of the demo of a search index (examples/demo_pages.py), and the questions that it measures."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from examples import demo_pages
from ragcrawl_dynamo import Page, PageVersion
from ragcrawl_dynamo.integrations import chunks_of, headings_of

QUESTIONS: dict[str, Any] = json.loads(
    (Path(demo_pages.__file__).parent / "demo_questions.json").read_text(encoding="utf-8")
)

PYDOC = """<html><head><title>Pydoc: module shop</title></head><body>
<div style='float:left'>Python 3</div><div>
<table class="heading"><tr><td class="title"><strong class="title">shop</strong></td>
<td class="extra"><a href=".">index</a><br><a href="file:/usr/lib/shop.py">/usr/lib/shop.py</a></td></tr>
</table>
<p><span class="code">Sells&nbsp;things<br>\nby&nbsp;post.<br>\n&nbsp;<br>\nSee&nbsp;below.</span></p>
<table class="section"><tr><td><strong class="bigsection">Classes</strong></td></tr><tr><td>
<table class="section"><tr><td><a name="Shop">class <strong>Shop</strong></a>(object)</td></tr><tr><td>
<dl><dt><a name="Shop-__init__"><strong>__init__</strong></a>(self)</dt></dl>
<dl><dt><a name="Shop-shop"><strong>shop</strong></a>(self)</dt></dl>
<dl><dt><a name="Shop-sell_all"><strong>sell_all</strong></a>(self)</dt>
<dd><span class="code">Sells&nbsp;it.</span></dd></dl>
<hr>Methods inherited from <a href="x.html">Base</a>:<br>
<dl><dt><a name="Shop-close"><strong>close</strong></a>(self)</dt>
<dd><span class="code">Closes.</span></dd></dl>
<hr>Data descriptors defined here:<br><dl><dt><strong>owner</strong></dt></dl>
</td></tr></table></td></tr></table>
<table class="section"><tr><td><strong class="bigsection">Data</strong></td></tr>
<tr><td><strong>__all__</strong> = ['Shop']</td></tr></table>
</div></body></html>"""


def version_of(html: str) -> PageVersion:
    content: dict[str, Any] = {**demo_pages.extract(html)}
    del content["links"]
    page = Page(page_id="p", site_id="s", url="https://docs.example.org/p.html", status_code=200)
    return PageVersion.of(page, "run", **content)


def test_demo_pages_makes_headings_with_anchors_of_a_page_of_pydoc() -> None:
    version = version_of(PYDOC)
    assert (version.title, version.description) == ("shop", "Sells things by post.")
    assert [(heading.level, heading.text, heading.anchor) for heading in headings_of(version)] == [
        (1, "shop", None),
        (2, "Classes", None),
        (3, "class Shop", "Shop"),
        (4, "shop", "Shop-shop"),
        (4, "sell_all", "Shop-sell_all"),
        (2, "Data", None),
    ]
    for text in ("Sells it.", "by post.", "__init__", "owner"):
        assert text in version.markdown
    for text in ("Closes.", "/usr/lib", "Python 3", "['Shop']"):
        assert text not in version.markdown


def test_demo_pages_takes_the_anchors_of_any_page() -> None:
    version = version_of(
        "<title>Guide</title><meta name=description content='How to  use it'><h1>Guide</h1><p>Intro.</p>"
        "<section id=install><h2>Install</h2><p>One.</p></section><h2 id=use>Use</h2><p>Two.</p>"
        "<h2><a name=end></a>The end</h2><p>Three.</p>"
    )
    assert (version.title, version.description) == ("Guide", "How to use it")
    assert [heading.anchor for heading in headings_of(version)] == [None, "install", "use", "end"]


def test_demo_pages_splits_at_headings_and_joins_short_sections() -> None:
    text = "word " * 100
    version = PageVersion.of(
        Page(page_id="p", site_id="s", url="https://docs.example.org/p.html"),
        "run",
        description="About",
        markdown=f"# One\n## Two\n{text}\n### Three\nShort.\n### Four\nShort.\n## Five\nShort.\n## Six\n",
    )
    chunks = chunks_of(version, demo_pages.split(version))
    # "One" has no text of its own, and "Six" none at all.
    assert [" > ".join(chunk.section) for chunk in chunks] == ["One > Two", "One > Two > Three", "One > Five"]
    assert "Four" in chunks[1].text
    assert {chunk.metadata["description"] for chunk in chunks} == {"About"}


@given(st.text("ab \n", max_size=9000))
def test_demo_pages_loses_no_text_and_makes_no_passage_too_long(text: str) -> None:
    page = Page(page_id="p", site_id="s", url="https://docs.example.org/p.html")
    version = PageVersion.of(page, "run", markdown=f"# Title\n\nx{text}")
    passages = list(demo_pages.split(version))
    assert "".join(passage.text for passage in passages) == version.markdown
    assert all(len(passage.text) <= demo_pages.MOST for passage in passages)
    assert all(version.markdown.startswith(passage.text, passage.start or 0) for passage in passages)


def test_demo_questions_are_thirty_and_others_than_those_for_tuning() -> None:
    measured = {question["question"] for question in QUESTIONS["measured"]}
    assert len(measured) == len(QUESTIONS["measured"]) == 30
    assert measured.isdisjoint(question["question"] for question in QUESTIONS["tuning"])
