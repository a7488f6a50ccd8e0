"""Measures aiopynamodb with its models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from aiopynamodb.attributes import BooleanAttribute, NumberAttribute, UnicodeAttribute
from aiopynamodb.models import Model
from subject import as_text

NUMBERS = ("depth", "status_code", "error_count", "version_count")


def versions() -> str:
    """Names the library and its version."""
    return f"aiopynamodb {version('aiopynamodb')}"


def model_of(base: Any, endpoint: str, table: str, text: Any, number: Any, boolean: Any) -> Any:
    """Returns a model of the pages; datetimes are text, as for the others."""
    names = (
        *(
            "url",
            "canonical_url",
            "current_version_id",
            "content_hash",
            "etag",
            "last_modified",
            "first_seen",
        ),
        *("last_seen", "last_crawled", "last_changed", "referrer_url", "markdown"),
    )
    meta = type(
        "Meta",
        (),
        {
            "table_name": table,
            "host": endpoint,
            "region": "us-east-1",
            "aws_access_key_id": "local",
            "aws_secret_access_key": "local",
            "max_pool_connections": 64,
        },
    )
    fields = {
        "Meta": meta,
        "site_id": text(hash_key=True),
        "page_id": text(range_key=True),
        "is_tombstone": boolean(null=True),
        **{name: text(null=True) for name in names},
        **{name: number(null=True) for name in NUMBERS},
        # Of the stored items only.
        "url_key": text(null=True),
    }
    return type("PageModel", (base,), fields)


class Peer:
    """Calls the methods of its models; it splits batches by itself."""

    def __init__(self, model: Any) -> None:
        self._model = model

    prepare = staticmethod(as_text)

    async def save(self, page: dict[str, Any]) -> None:
        """Makes a model and saves it."""
        await self._model(**page).save()

    async def get(self, key: tuple[str, str]) -> Any:
        """Reads a model."""
        return await self._model.get(*key, consistent_read=True)

    async def save_many(self, pages: list[dict[str, Any]]) -> None:
        """Saves batches of 25, one after the other."""
        async with self._model.batch_write() as batch:
            for page in pages:
                await batch.save(self._model(**page))

    async def get_many(self, keys: list[tuple[str, str]]) -> int:
        """Reads models in batches."""
        return len([page async for page in self._model.batch_get(keys, consistent_read=True)])

    async def list_all(self) -> int:
        """Lists all models."""
        return len([page async for page in self._model.query("docs")])


@asynccontextmanager
async def open_peer(endpoint: str, table: str) -> AsyncIterator[Peer]:
    """Binds a model to the endpoint."""
    model = model_of(Model, endpoint, table, UnicodeAttribute, NumberAttribute, BooleanAttribute)
    yield Peer(model)
    await model.close_connection()
