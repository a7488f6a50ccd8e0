"""Remembers a bounded number of links that are known to be in the queue."""

from __future__ import annotations

from collections import OrderedDict


class SeenLinks:
    """The item ids that this process has seen last. An id that is missing may still be in the queue."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, item_id: str) -> bool:
        if item_id not in self._ids:
            return False
        self._ids.move_to_end(item_id)
        return True

    def add(self, item_id: str) -> None:
        """Remembers an id. If there are too many, forgets the one that was not seen for the longest time."""
        self._ids[item_id] = None
        self._ids.move_to_end(item_id)
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)

    def clear(self) -> None:
        """Forgets all ids."""
        self._ids.clear()
