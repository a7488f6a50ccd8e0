"""Exports a whole site to a file and imports it, in bounded memory. An interrupted transfer resumes.

A record is `{"kind": "site" | "run" | "page" | "version", "record": {...}}`. The versions of a page come
after the page. With JSON lines, a record is a line. With Parquet, it is a row in a folder of files, and its
Markdown has a column of its own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson
from pydantic import BaseModel, ValidationError

from ragcrawl_dynamo import (
    CrawlRun,
    DynamoDBBackend,
    InvalidArgumentError,
    MissingExtraError,
    NotFoundError,
    Page,
    PageVersion,
    Site,
)
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo._utils.validation import first_of

OnRecord = Callable[[str, float], None]

MODELS: dict[str, type[BaseModel]] = {
    "site": Site,
    "run": CrawlRun,
    "page": Page,
    "version": PageVersion,
}

# The pages of one step of an export, after which it can resume.
_PAGES_PER_STEP = 50

# How many pages have their versions read concurrently, and how many versions one call reads.
_PAGES_AT_ONCE = 8
_VERSIONS_PER_READ = 20

# How many records an import saves at once, at least.
_BATCH = 200


class Sink(Protocol):
    """The target that an export writes to."""

    def write(self, kind: str, record: dict[str, Any]) -> None:
        """Writes a record."""

    def checkpoint(self) -> int:
        """Makes all written records durable; returns the position from which an export can resume."""

    def close(self) -> None:
        """Closes the target."""


class Lines:
    """Reads and writes JSON lines in a file. A position is a number of bytes."""

    def __init__(self, path: Path, position: int) -> None:
        self._file = path.open("r+b" if position else "wb")
        self._file.truncate(position)
        self._file.seek(position)

    def write(self, kind: str, record: dict[str, Any]) -> None:
        """See `Sink`."""
        self._file.write(orjson.dumps({"kind": kind, "record": record}) + b"\n")

    def checkpoint(self) -> int:
        """See `Sink`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """See `Sink`."""
        self._file.close()

    @staticmethod
    def size(path: Path) -> int:
        """Returns the position after the last record."""
        return path.stat().st_size

    @staticmethod
    def read(path: Path, position: int) -> Iterator[tuple[str, Any, int]]:
        """Yields each record as its kind, its fields and the position after it."""
        with path.open("rb") as file:
            file.seek(position)
            for line in file:
                try:
                    content = orjson.loads(line)
                    kind, record = content["kind"], content["record"]
                except (ValueError, KeyError, TypeError) as error:
                    raise InvalidArgumentError(
                        "file", f"{path}: the line at byte {position} is not a record: {error}"
                    ) from None
                position += len(line)
                yield kind, record, position


class ParquetFiles:
    """Reads and writes Parquet files in a folder, one for each step. A position is a number of files."""

    def __init__(self, path: Path, position: int) -> None:
        path.mkdir(exist_ok=True)
        self._path = path
        self._position = position
        self._rows: list[dict[str, Any]] = []
        for file in self._files(path)[position:]:
            file.unlink()

    @staticmethod
    def _files(path: Path) -> list[Path]:
        return sorted(path.glob("part-*.parquet"))

    def write(self, kind: str, record: dict[str, Any]) -> None:
        """See `Sink`."""
        rest = {name: value for name, value in record.items() if name != "markdown"}
        self._rows.append(
            {
                "kind": kind,
                **{name: record.get(name) for name in ("site_id", "page_id", "version_id", "url", "title")},
                "markdown": record.get("markdown"),
                "record": orjson.dumps(rest).decode(),
            }
        )

    def checkpoint(self) -> int:
        """See `Sink`."""
        if self._rows:
            pa, parquet = _pyarrow()
            names = ("kind", "site_id", "page_id", "version_id", "url", "title", "markdown", "record")
            schema = pa.schema([(name, pa.large_string()) for name in names])
            path = self._path / f"part-{self._position:06}.parquet"
            parquet.write_table(pa.Table.from_pylist(self._rows, schema=schema), path, compression="zstd")
            self._rows = []
            self._position += 1
        return self._position

    def close(self) -> None:
        """See `Sink`."""

    @classmethod
    def size(cls, path: Path) -> int:
        """Returns the position after the last record."""
        return len(cls._files(path))

    @classmethod
    def read(cls, path: Path, position: int) -> Iterator[tuple[str, Any, int]]:
        """Yields each record as its kind, its fields and a position, which grows at the end of each file."""
        _, parquet = _pyarrow()
        for file in cls._files(path)[position:]:
            rows = parquet.read_table(file, columns=["kind", "markdown", "record"]).to_pylist()
            for i, row in enumerate(rows, 1):
                record = orjson.loads(row["record"])
                if row["markdown"] is not None:
                    record["markdown"] = row["markdown"]
                yield row["kind"], record, position + (i == len(rows))
            position += 1


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped] # an extra, without types
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise MissingExtraError("Parquet", "parquet") from None
    return pyarrow, parquet


class Progress:
    """Stores the progress of a transfer in a file beside the exported one, until the transfer is done."""

    def __init__(self, path: Path, purpose: str) -> None:
        self._path = path.parent / f"{path.name}.{purpose}"

    def read(self) -> dict[str, Any] | None:
        """Returns the stored progress; None at the beginning."""
        try:
            state: dict[str, Any] = orjson.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replaces the stored progress atomically."""
        new = self._path.with_name(self._path.name + ".new")
        new.write_bytes(orjson.dumps(state))
        new.replace(self._path)

    def end(self) -> None:
        """Deletes the file."""
        self._path.unlink(missing_ok=True)


class Exporter:
    """Exports a site.

    Args:
        backend: The backend to read from.
        site_id: The site.
        path: The file; with the suffix .parquet, a folder.
        on_record: Called after each record with its kind and the share of the work that is done.
    """

    def __init__(self, backend: DynamoDBBackend, site_id: str, path: Path, on_record: OnRecord) -> None:
        self._backend = backend
        self._site_id = site_id
        self._path = path
        self._on_record = on_record
        self._progress = Progress(path, "export")
        self._count = self._pages = self._all_pages = 0

    async def run(self, *, overwrite: bool = False) -> int:
        """Writes the records that are not in the file yet; returns how many records the file has then.

        Args:
            overwrite: Replaces an existing file, and starts from the beginning.

        Raises:
            InvalidArgumentError: The file exists already, or has an unfinished export of another site.
            NotFoundError: The site does not exist.
        """
        state = None if overwrite else self._progress.read()
        if state is None and self._path.exists() and not overwrite:
            raise InvalidArgumentError(
                "file", f"{self._path} exists already: choose another file, or pass --overwrite"
            )
        if not self._path.parent.is_dir():
            raise InvalidArgumentError(
                "file", f"the folder {self._path.parent} does not exist: create it, or choose another file"
            )
        if state is not None and state["site_id"] != self._site_id:
            raise InvalidArgumentError(
                "file",
                f"{self._path} has an unfinished export of site {state['site_id']!r}: "
                f"choose another file, or pass --overwrite",
            )
        state = state or {"position": 0, "stage": "site", "cursor": None, "count": 0, "pages": 0}
        self._count, self._pages = state["count"], state["pages"]
        self._all_pages = await self._backend.count_pages(self._site_id, include_tombstones=True)
        sink: Sink = (ParquetFiles if _is_parquet(self._path) else Lines)(self._path, state["position"])
        try:
            stage, cursor = state["stage"], state["cursor"]
            while stage is not None:
                stage, cursor = await self._step(sink, stage, cursor)
                self._progress.write(
                    {
                        "site_id": self._site_id,
                        "position": sink.checkpoint(),
                        "stage": stage,
                        "cursor": cursor,
                        "count": self._count,
                        "pages": self._pages,
                    }
                )
        finally:
            sink.close()
        self._progress.end()
        return self._count

    async def _step(self, sink: Sink, stage: str, cursor: str | None) -> tuple[str | None, str | None]:
        """Writes the next part; returns the stage and the cursor after it."""
        next_stages: dict[str, str | None] = {"site": "runs", "runs": "pages", "pages": None}
        next_cursor = None
        if stage == "site":
            site = await self._backend.get_site(self._site_id)
            if site is None:
                raise NotFoundError(f"there is no site {self._site_id!r}")
            self._write(sink, "site", site)
        elif stage == "runs":
            runs = await self._backend.list_runs(self._site_id, cursor=cursor)
            for run in runs:
                self._write(sink, "run", run)
            next_cursor = runs.cursor
        else:
            pages = await self._backend.list_pages(
                self._site_id, limit=_PAGES_PER_STEP, cursor=cursor, include_tombstones=True
            )
            for i in range(0, len(pages), _PAGES_AT_ONCE):
                part = pages[i : i + _PAGES_AT_ONCE]
                first_slices = await gather_bounded(self._versions, part, _PAGES_AT_ONCE)
                for page, first_slice in zip(part, first_slices, strict=True):
                    self._write(sink, "page", page)
                    async for version in self._all_versions(page, first_slice):
                        self._write(sink, "version", version)
            next_cursor = pages.cursor
        return (next_stages[stage], None) if next_cursor is None else (stage, next_cursor)

    async def _versions(self, page: Page, cursor: str | None = None) -> Any:
        return await self._backend.list_versions(
            self._site_id, page.page_id, limit=_VERSIONS_PER_READ, cursor=cursor
        )

    async def _all_versions(self, page: Page, first_slice: Any) -> AsyncIterator[PageVersion]:
        versions = first_slice
        while True:
            for version in versions:
                yield version
            if versions.cursor is None:
                return
            versions = await self._versions(page, versions.cursor)

    def _write(self, sink: Sink, kind: str, record: BaseModel) -> None:
        sink.write(kind, record.model_dump(mode="json"))
        self._count += 1
        self._pages += kind == "page"
        self._on_record(kind, self._pages / max(1, self._pages, self._all_pages))


class Importer:
    """Saves the records of an export. They replace stored records, so repeating an import is safe.

    Args:
        backend: The backend to write to.
        path: The file or folder.
        on_record: Called after each record with its kind and the share of the work that is done.
    """

    def __init__(self, backend: DynamoDBBackend, path: Path, on_record: OnRecord) -> None:
        self._backend = backend
        self._path = path
        self._on_record = on_record
        self._progress = Progress(path, "import")

    async def run(self) -> int:
        """Saves the records that an earlier import has not saved yet; returns how many these were.

        Raises:
            InvalidArgumentError: The file does not exist, or is not an export.
            PartialBatchError: Some records were not saved.
        """
        if not self._path.exists():
            raise InvalidArgumentError(
                "file", f"{self._path} does not exist: pass a file that `export` wrote"
            )
        state = self._progress.read() or {"position": 0}
        source = ParquetFiles if _is_parquet(self._path) else Lines
        size = max(1, source.size(self._path))
        batch: dict[str, list[Any]] = {kind: [] for kind in MODELS}
        count = waiting = 0
        position = state["position"]
        for kind, record, after in source.read(self._path, position):
            model = _model(self._path, kind, record)
            batch[kind].append(model)
            waiting += 1
            if waiting >= _BATCH and after != position:
                await self._save(batch, after / size)
                count, waiting = count + waiting, 0
                self._progress.write({"position": after})
            position = after
        await self._save(batch, 1.0)
        self._progress.end()
        return count + waiting

    async def _save(self, batch: dict[str, list[Any]], share: float) -> None:
        for site in batch["site"]:
            await self._backend.save_site(site)
        for run in batch["run"]:
            await self._backend.save_run(run)
        # Versions are saved before pages, so that the current version of a visible page exists.
        if batch["version"]:
            await self._backend.save_versions_bulk(batch["version"], keep_unchanged=True)
        if batch["page"]:
            await self._backend.save_pages_bulk(batch["page"])
        for kind, records in batch.items():
            for _ in records:
                self._on_record(kind, share)
            records.clear()


def _model(path: Path, kind: str, record: Any) -> BaseModel:
    try:
        return MODELS[kind].model_validate(record)
    except KeyError:
        raise InvalidArgumentError(
            "file", f"{path} has a record of kind {str(kind)[:50]!r}; allowed are {', '.join(MODELS)}"
        ) from None
    except ValidationError as error:
        field, why = first_of(error, with_value=False)
        raise InvalidArgumentError("file", f"{path} has an invalid {kind}: {field}: {why}") from None
