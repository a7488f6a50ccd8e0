"""Packs large lists and maps into compressed bytes, and unpacks them.

A packed value is JSON in one zstd frame. It takes the place of the list or map, as a binary attribute of its
name: no other field of a model is binary.
"""

from __future__ import annotations

import json
from typing import Any

import zstandard

# Bytes above which a value is packed. Smaller ones stay readable in the AWS console and for other programs.
PACKED_ABOVE = 32 * 1024

# The most bytes of JSON that are packed, or unpacked from any stored frame. More hardly fits into an item.
MAX_RAW_BYTES = 4 * 1024 * 1024

# docs/decisions/0101-compress-large-settings.md
_LEVEL = 3


def pack(value: Any) -> bytes | None:
    """Returns a value of JSON as compressed bytes; None if it has more than `MAX_RAW_BYTES`."""
    # Not orjson: it refuses integers over 64 bits.
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=_LEVEL).compress(raw) if len(raw) <= MAX_RAW_BYTES else None


def unpack(data: bytes) -> Any:
    """Returns the value that `pack` packed.

    Raises:
        ValueError: The bytes are none that `pack` made.
    """
    try:
        size = zstandard.frame_content_size(data)
        if not 0 < size <= MAX_RAW_BYTES:
            raise ValueError(f"a packed value takes 1 to {MAX_RAW_BYTES:,} bytes, not {size:,}")
        return json.loads(zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise ValueError(f"a packed value is damaged: {error}") from error
