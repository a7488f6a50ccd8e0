"""Prevents a process from overwriting the crawler state that another one saved in a key-value store."""

from __future__ import annotations

import logging

from crawlee.storages import KeyValueStore

logger: logging.Logger = logging.getLogger(__name__)

# How the keys begin under which Crawlee keeps statistics, `use_state` and the session pool.
_PREFIXES = ("__CRAWLER_STATISTICS_", "CRAWLEE_STATE_", "CRAWLEE_SESSION_POOL_STATE")


class CrawlerState:
    """Remembers the values that Crawlee reads once, keeps in memory, and saves again and again.

    If two processes did this under one key, each would undo the changes of the other, which cannot be merged.
    """

    def __init__(self, store_id: str) -> None:
        self._store_id = store_id
        # By key: the hash of the value that this process has read or stored last, None if there was none.
        self._hashes: dict[str, str | None] = {}
        self._refused: set[str] = set()

    def has(self, key: str) -> bool:
        """Returns whether Crawlee keeps the value of a key in memory."""
        auto_saved = KeyValueStore._autosaved_values.get(self._store_id, {})
        return key.startswith(_PREFIXES) or key in auto_saved

    def note(self, key: str, content_hash: str | None) -> None:
        """Notes the value that this process has read or stores."""
        if self.has(key):
            self._hashes[key] = content_hash

    def is_own(self, key: str, content_hash: str) -> bool:
        """Returns whether a stored value is the one that this process knows; if not, logs it once a key.

        A process that has never read the value knows none, and may store its own.
        """
        if self._hashes.get(key, content_hash) == content_hash:
            return True
        if key not in self._refused:
            self._refused.add(key)
            logger.error(
                "%r of key-value store %r is not stored: another process has stored its own since this one "
                "read it. Give the crawler of each process its own `id`, and its statistics their own "
                "`persist_state_key`",
                *(key, self._store_id),
            )
        return False
