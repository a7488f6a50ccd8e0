"""Keeps the metadata of storages: their names, and when they were created, read and changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


class StorageTimes:
    """The times in a storage's metadata. A process notes when it last read and changed the storage."""

    def __init__(self, created_at: datetime) -> None:
        self.created_at = created_at
        self.accessed_at: datetime = datetime.now(UTC)
        self.modified_at: datetime = self.accessed_at

    def note_access(self) -> None:
        """Notes that the storage is read now."""
        self.accessed_at = datetime.now(UTC)

    def note_change(self) -> None:
        """Notes that the storage is read and changed now."""
        self.accessed_at = self.modified_at = datetime.now(UTC)

    def fields(self) -> dict[str, datetime]:
        """Returns the times, as fields of Crawlee's metadata."""
        return {
            "created_at": self.created_at,
            "accessed_at": self.accessed_at,
            "modified_at": self.modified_at,
        }


def storage_name(config: Mapping[str, Any]) -> str | None:
    """Returns the name of a storage from the configuration that is stored with its run or site."""
    name = config.get("name")
    return name if isinstance(name, str) else None
