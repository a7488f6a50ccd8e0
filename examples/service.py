"""A web service that answers from what was crawled: FastAPI, one backend for its whole life.

    pip install fastapi uvicorn
    RAGCRAWL_DYNAMO_REGION=eu-central-1 uvicorn examples.service:app

Listings go by cursor: `GET /sites/docs/pages?cursor=...` with what the answer before says.
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
    StorageConfig,
    ThrottledError,
    create_storage_backend,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the backend when the server starts, in its event loop, and closes it when that ends."""
    async with create_storage_backend(StorageConfig.from_env()) as backend:
        app.state.backend = backend
        yield


app = FastAPI(title="What was crawled", lifespan=lifespan)


def backend_of(request: Request) -> StorageBackend:
    """The one that all requests share."""
    backend: StorageBackend = request.app.state.backend
    return backend


@app.get("/health")
async def health(request: Request) -> Response:
    """For a load balancer: 200 if the tables serve, 503 otherwise; never longer than `health_timeout`."""
    healthy = await backend_of(request).health_check()
    return JSONResponse({"healthy": healthy}, 200 if healthy else 503)


@app.get("/sites/{site_id}/pages")
async def pages(
    request: Request,
    site_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """A slice of a site's pages, and the cursor of the next one."""
    part = await backend_of(request).list_pages(site_id, limit, cursor)
    return {"pages": part, "cursor": part.cursor}


@app.get("/sites/{site_id}/page")
async def page(request: Request, site_id: str, url: str) -> Page:
    """A page by its URL."""
    found = await backend_of(request).get_page_by_url(site_id, url)
    if found is None:
        raise HTTPException(404, f"no page {url} in site {site_id}")
    return found


@app.get("/sites/{site_id}/text", response_class=PlainTextResponse)
async def text(request: Request, site_id: str, url: str) -> str:
    """What a page says at present, as Markdown."""
    found = await page(request, site_id, url)
    version = await backend_of(request).get_current_version(site_id, found.page_id)
    if version is None:
        raise HTTPException(404, f"no text of {url}")
    return version.markdown


@app.get("/sites/{site_id}/changes")
async def changes(request: Request, site_id: str, cursor: str | None = None) -> dict[str, Any]:
    """What has changed since a cursor: for an indexer that keeps the cursor itself."""
    part = await backend_of(request).list_changes(site_id, cursor=cursor)
    found = [{"kind": each.kind, "page": each.page} for each in part]
    return {"changes": found, "cursor": part.cursor, "is_end": part.is_end}


@app.exception_handler(InvalidInputError)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """A damaged cursor, an empty id: the caller's fault."""
    return JSONResponse({"error": str(error)}, 400)


@app.exception_handler(ServiceError)
async def give_up(_: Request, error: Exception) -> JSONResponse:
    """DynamoDB's fault, or that of the way to it: worth another try."""
    headers = {"Retry-After": "1"} if isinstance(error, ThrottledError) else None
    return JSONResponse({"error": type(error).__name__}, 503, headers)
