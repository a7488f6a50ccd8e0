"""Cursors as opaque text, whatever they hold."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson


def pack(parts: Sequence[Any]) -> str:
    """Parts as text that can stand in a URL."""
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def unpack(cursor: str) -> Any:
    """What was packed; anything that is JSON, where the text is forged.

    Raises:
        ValueError: The text is damaged.
        TypeError: It is none.
    """
    return orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
