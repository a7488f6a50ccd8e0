"""Packs the body of a version into compressed bytes with a checksum, and unpacks it.

The raw form begins with one line of JSON: the number of bytes of each field, null for None. The fields follow
in UTF-8, texts as they are, lists as JSON. Related texts compress better together than alone; their order is
the one that compressed best (docs/decisions/0016-compress-bodies-with-zstd.md).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

import orjson
import zstandard

from ragcrawl_dynamo.errors import ContentTooLargeError, InvalidValueError

if TYPE_CHECKING:
    from ragcrawl_dynamo._dynamodb.values import Value
    from ragcrawl_dynamo.models import PageVersion

TEXTS = ("markdown", "plain_text", "html")
LISTS = ("outlinks", "headings_outline")

CODEC = "zstd"
FORMAT = 1

# Raw bytes above which packing and unpacking take so long that a thread should do them.
THREAD_BYTES = 16 * 1024

# Raw bytes above which a high level takes seconds and gains a few percent.
_LARGE = 1024 * 1024
_LARGE_LEVEL = 9

# Bytes that are decompressed at once.
_CHUNK = 1024 * 1024


class ContentError(Exception):
    """Stored content differs from what was saved. The caller adds the version that it belongs to."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Describes a version's body, in its head.

    Attributes:
        raw_bytes: Size before compression.
        stored_bytes: Size after compression.
        digest: SHA-256 of the raw form.
        parts: Number of body parts. 0 if the body is in the head itself, 1 if it is in the content bucket.
        location: Beginning of the parts' sort keys. None if it is the first one of the version's own.
        object_key: Key of the body's object, if it is in the content bucket.
    """

    raw_bytes: int
    stored_bytes: int
    digest: bytes
    parts: int = 0
    location: str | None = None
    object_key: str | None = None

    def to_attribute(self) -> Value:
        """Returns the attribute of the head, with the name and version of the codec."""
        members: dict[str, Any] = {
            "codec": {"S": CODEC},
            "format": {"N": str(FORMAT)},
            "raw_bytes": {"N": str(self.raw_bytes)},
            "stored_bytes": {"N": str(self.stored_bytes)},
            "sha256": {"B": self.digest},
            "parts": {"N": str(self.parts)},
        }
        if self.location is not None:
            members["place"] = {"S": self.location}
        if self.object_key is not None:
            members["object_key"] = {"S": self.object_key}
        return {"M": members}

    @classmethod
    def from_attribute(cls, attribute: Mapping[str, Any]) -> Self:
        """Reads the attribute of a head.

        Raises:
            ContentError: It is damaged, or names a codec that this version of the package does not know.
        """
        try:
            members = attribute["M"]
            codec = (members["codec"]["S"], int(members["format"]["N"]))
            if codec != (CODEC, FORMAT):
                raise ContentError(
                    f"its codec {codec[0]} {codec[1]} is unknown here: upgrade ragcrawl-dynamo"
                )
            return cls(
                raw_bytes=int(members["raw_bytes"]["N"]),
                stored_bytes=int(members["stored_bytes"]["N"]),
                digest=bytes(members["sha256"]["B"]),
                parts=int(members["parts"]["N"]),
                location=members.get("place", {}).get("S"),
                object_key=members.get("object_key", {}).get("S"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ContentError(f"its manifest is damaged: {error!r}") from error


def pack(version: PageVersion, *, level: int, max_bytes: int) -> tuple[Manifest, bytes]:
    """Compresses the body of a version.

    Args:
        version: The version.
        level: zstd's level, 1 to 22. It is lowered for large bodies.
        max_bytes: Raw bytes that a body may have.

    Returns:
        The manifest, and the compressed bytes.

    Raises:
        InvalidValueError: A text holds a lone surrogate, or a list cannot be written as JSON.
        ContentTooLargeError: The body has more than `max_bytes`.
    """
    fields = {name: _encoded(name, getattr(version, name)) for name in (*TEXTS, *LISTS)}
    sizes = {name: None if field is None else len(field) for name, field in fields.items()}
    pieces = [orjson.dumps(sizes), b"\n", *(field for field in fields.values() if field)]
    size = sum(map(len, pieces))
    if size > max_bytes:
        raise ContentTooLargeError(size, max_bytes)
    compressor = zstandard.ZstdCompressor(level=min(level, _LARGE_LEVEL) if size > _LARGE else level)
    stream = compressor.compressobj(size=size)
    digest = sha256()
    packed: list[bytes] = []
    for piece in pieces:
        digest.update(piece)
        packed.append(stream.compress(piece))
    packed.append(stream.flush())
    data = b"".join(packed)
    return Manifest(raw_bytes=size, stored_bytes=len(data), digest=digest.digest()), data


def unpack(manifest: Manifest, data: bytes, *, max_bytes: int) -> dict[str, Any]:
    """Returns the fields that `pack` packed; damaged data cannot make it use more memory than `max_bytes`.

    Raises:
        ContentError: The data is not what the manifest describes.
    """
    if manifest.raw_bytes > max_bytes:
        raise ContentError(
            f"it takes {manifest.raw_bytes:,} bytes, more than max_content_bytes = {max_bytes:,}: raise this "
            f"setting to read it"
        )
    if len(data) != manifest.stored_bytes:
        raise ContentError(f"it has {len(data):,} bytes, and {manifest.stored_bytes:,} were saved")
    raw = _decompress(data, manifest.raw_bytes)
    if sha256(raw).digest() != manifest.digest:
        raise ContentError("its checksum is not the one that was saved with it")
    try:
        start = raw.index(b"\n") + 1
        fields: dict[str, Any] = {}
        for name, size in orjson.loads(raw[:start]).items():
            text = None if size is None else raw[start : start + size].decode()
            fields[name] = json.loads(text) if name in LISTS and text is not None else text
            start += size or 0
        return fields
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContentError(f"its form is unknown: {error!r}") from error


def _encoded(name: str, value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        # Not orjson: it refuses integers over 64 bits, and turns a NaN into null.
        text = value if name in TEXTS else json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(
            name,
            f"holds a lone surrogate at position {error.start:,}, which UTF-8 cannot encode: replace it",
            model="PageVersion",
        ) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidValueError(name, f"cannot be stored: {error}", model="PageVersion") from error


def _decompress(data: bytes, size: int) -> bytes:
    """Returns exactly `size` bytes, read in steps, so that no frame header or bomb sets the memory."""
    chunks: list[bytes] = []
    left = size
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=False) as reader:
            while left and (chunk := reader.read(min(_CHUNK, left))):
                chunks.append(chunk)
                left -= len(chunk)
            excess = reader.read(1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise ContentError(f"it cannot be decompressed: {error}") from error
    if left or excess:
        raise ContentError(f"it has {'more' if excess else 'fewer'} than {size:,} bytes after decompression")
    return b"".join(chunks)
