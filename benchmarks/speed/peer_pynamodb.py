"""Measures PynamoDB with its models, in threads as an asyncio program has to call it."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from peer_aiopynamodb import model_of
from pynamodb.attributes import BooleanAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.models import Model
from subject import as_text


def versions() -> str:
    """Names the library and its version."""
    return f"pynamodb {version('pynamodb')}"


class Peer:
    """Calls the methods of its models, each call in one of 64 threads."""

    def __init__(self, model: Any, threads: ThreadPoolExecutor) -> None:
        self._model = model
        self._threads = threads

    prepare = staticmethod(as_text)

    async def _in_thread(self, call: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def save(self, page: dict[str, Any]) -> None:
        """Makes a model and saves it."""
        await self._in_thread(lambda: self._model(**page).save())

    async def get(self, key: tuple[str, str]) -> Any:
        """Reads a model."""
        return await self._in_thread(lambda: self._model.get(*key, consistent_read=True))

    async def save_many(self, pages: list[dict[str, Any]]) -> None:
        """Saves batches of 25, one after the other."""

        def save() -> None:
            with self._model.batch_write() as batch:
                for page in pages:
                    batch.save(self._model(**page))

        await self._in_thread(save)

    async def get_many(self, keys: list[tuple[str, str]]) -> int:
        """Reads models in batches."""
        count: int = await self._in_thread(
            lambda: len(list(self._model.batch_get(keys, consistent_read=True)))
        )
        return count

    async def list_all(self) -> int:
        """Lists all models."""
        count: int = await self._in_thread(lambda: len(list(self._model.query("docs"))))
        return count


@asynccontextmanager
async def open_peer(endpoint: str, table: str) -> AsyncIterator[Peer]:
    """Binds a model to the endpoint."""
    with ThreadPoolExecutor(64) as threads:
        model = model_of(Model, endpoint, table, UnicodeAttribute, NumberAttribute, BooleanAttribute)
        yield Peer(model, threads)
