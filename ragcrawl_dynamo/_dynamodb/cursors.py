"""Packs cursors as opaque text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson


def pack(parts: Sequence[Any]) -> str:
    """Packs values as text that can stand in a URL."""
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def unpack(cursor: str) -> Any:
    """Returns the values that were packed; if the text is forged, they can be any JSON.

    Raises:
        ValueError: The text is damaged.
        TypeError: It is not a text.
    """
    return orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
