"""The pages that are measured: those of the demo's site, each once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from benchmarks import bodies
from tests.support.http_server import http_server


async def test_bodies_corpus_has_a_page_once_however_many_of_its_sections_are_linked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched = []

    async def serve(request: web.Request) -> web.Response:
        fetched.append(request.path)
        links = (
            "<a href='a.html'>a</a> <a href='a.html#x'>x</a> <a href='a.html#y'>y</a> <a href='file:/b'>b</a>"
        )
        return web.Response(text=f"<title>{request.path}</title>{links}", content_type="text/html")

    @asynccontextmanager
    async def small_site() -> AsyncIterator[str]:
        async with http_server(serve) as url:
            yield f"{url}/"

    monkeypatch.setattr(bodies, "pydoc_server", small_site)
    corpus = await bodies.fetch_corpus()
    assert fetched == ["/index.html", "/a.html"]
    assert [page.url.rpartition("/")[2] for _, page in corpus] == ["index.html", "a.html"]
