"""A web service that serves crawled pages: FastAPI with one backend for its whole life.

    pip install fastapi uvicorn
    RAGCRAWL_DYNAMO_REGION=eu-central-1 uvicorn examples.service:app

Listings come in slices: pass the cursor of the previous answer as `GET /sites/docs/pages?cursor=...`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from ragcrawl_dynamo import (
    InvalidInputError,
    Page,
    ServiceError,
    StorageBackend,
    ThrottledError,
    connect,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the backend in the event loop of the server when it starts, and closes it when it stops.

    The default time-outs are made for crawlers: while DynamoDB is down, a request would wait for a minute.
    """
    async with connect(call_timeout=3.0, connect_timeout=1.0, read_timeout=2.0) as backend:
        app.state.backend = backend
        yield


app = FastAPI(title="Crawled pages", lifespan=lifespan)


def backend_of(request: Request) -> StorageBackend:
    """Returns the backend that all requests share."""
    backend: StorageBackend = request.app.state.backend
    return backend


@app.get("/health")
async def health(request: Request) -> Response:
    """Answers a load balancer within `health_timeout`: 200 if the tables serve requests, 503 otherwise."""
    healthy = await backend_of(request).health_check()
    return JSONResponse({"healthy": healthy}, 200 if healthy else 503)


@app.get("/sites/{site_id}/pages")
async def pages(
    request: Request,
    site_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Returns a slice of a site's pages, and the cursor of the next slice."""
    part = await backend_of(request).list_pages(site_id, limit=limit, cursor=cursor)
    return {"pages": part, "cursor": part.cursor}


@app.get("/sites/{site_id}/page")
async def page(request: Request, site_id: str, url: str) -> Page:
    """Returns a page by its URL."""
    stored_page = await backend_of(request).get_page_by_url(site_id, url)
    if stored_page is None:
        raise HTTPException(404, f"no page {url} in site {site_id}")
    return stored_page


@app.get("/sites/{site_id}/text", response_class=PlainTextResponse)
async def text(request: Request, site_id: str, url: str) -> str:
    """Returns the current content of a page as Markdown."""
    stored_page = await page(request, site_id, url)
    version = await backend_of(request).get_current_version(site_id, stored_page.page_id)
    if version is None:
        raise HTTPException(404, f"no text of {url}")
    return version.markdown


@app.get("/sites/{site_id}/changes")
async def changes(request: Request, site_id: str, cursor: str | None = None) -> dict[str, Any]:
    """Returns the changes since a cursor, for an indexer that keeps the cursor itself."""
    part = await backend_of(request).list_changes(site_id, cursor=cursor)
    page_changes = [{"kind": change.kind, "page": change.page} for change in part]
    return {"changes": page_changes, "cursor": part.cursor, "is_end": part.is_end}


@app.exception_handler(InvalidInputError)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Answers 400 for an invalid argument, such as a damaged cursor or an empty id."""
    return JSONResponse({"error": str(error)}, 400)


@app.exception_handler(ServiceError)
async def give_up(_: Request, error: Exception) -> JSONResponse:
    """Answers 503 if DynamoDB refused a request or was not reached: the client can try again."""
    headers = {"Retry-After": "1"} if isinstance(error, ThrottledError) else None
    return JSONResponse({"error": type(error).__name__}, 503, headers)
