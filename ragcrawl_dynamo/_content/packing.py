"""Packs what grows with a page into bytes, and gets it back: serialized together, compressed, checked.

The raw form is one line of JSON with the number of bytes of each field (null for None), then the fields in
UTF-8, one after the other: texts as they are, lists as JSON. Related texts compress better together than each
alone; their order is the one that compressed best (docs/design.md, "Bodies").
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

# Above, a high level takes seconds for a few percent (docs/design.md, "Bodies").
_LARGE = 1024 * 1024
_LARGE_LEVEL = 9

_CHUNK = 1024 * 1024


class ContentError(Exception):
    """Stored content can not be what was saved; the store adds which version it is of."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version's head item says of its content.

    Attributes:
        raw_bytes: Size before compression.
        stored_bytes: Size after.
        digest: SHA-256 of the raw form.
        parts: Number of body parts; 0 where the content is in the head itself, or in an object.
        place: Beginning of the parts' sort keys; None for the version's own, first place.
        object_key: Key in the content bucket, where it is there.
    """

    raw_bytes: int
    stored_bytes: int
    digest: bytes
    parts: int = 0
    place: str | None = None
    object_key: str | None = None

    def to_attribute(self) -> Value:
        """As it stands in the head item, next to the name and version of the codec."""
        members: dict[str, Any] = {
            "codec": {"S": CODEC},
            "format": {"N": str(FORMAT)},
            "raw_bytes": {"N": str(self.raw_bytes)},
            "stored_bytes": {"N": str(self.stored_bytes)},
            "sha256": {"B": self.digest},
            "parts": {"N": str(self.parts)},
        }
        if self.place is not None:
            members["place"] = {"S": self.place}
        if self.object_key is not None:
            members["object_key"] = {"S": self.object_key}
        return {"M": members}

    @classmethod
    def from_attribute(cls, attribute: Mapping[str, Any]) -> Self:
        """Out of a head item.

        Raises:
            ContentError: It is damaged, or of a codec that this version of the package does not know.
        """
        try:
            members = attribute["M"]
            codec = (members["codec"]["S"], int(members["format"]["N"]))
            if codec != (CODEC, FORMAT):
                raise ContentError(f"its codec is {codec[0]} {codec[1]}, which this version does not know")
            return cls(
                raw_bytes=int(members["raw_bytes"]["N"]),
                stored_bytes=int(members["stored_bytes"]["N"]),
                digest=bytes(members["sha256"]["B"]),
                parts=int(members["parts"]["N"]),
                place=members.get("place", {}).get("S"),
                object_key=members.get("object_key", {}).get("S"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ContentError(f"its manifest is damaged: {error!r}") from error


def pack(version: PageVersion, *, level: int, max_bytes: int) -> tuple[Manifest, bytes]:
    """The content of a version in compressed form.

    Args:
        version: Whose content to pack.
        level: zstd's, 1 to 22; lowered for large content.
        max_bytes: Raw bytes that content may have.

    Raises:
        InvalidValueError: A text holds a lone surrogate.
        ContentTooLargeError: It is over `max_bytes`.
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
    """The fields that `pack` packed. Takes no more memory than `max_bytes`, whatever the data says.

    Raises:
        ContentError: The data is not what the manifest describes.
    """
    if manifest.raw_bytes > max_bytes:
        raise ContentError(f"it takes {manifest.raw_bytes:,} bytes, over max_content_bytes = {max_bytes:,}")
    if len(data) != manifest.stored_bytes:
        raise ContentError(f"{len(data):,} of {manifest.stored_bytes:,} bytes are there")
    raw = _decompress(data, manifest.raw_bytes)
    if sha256(raw).digest() != manifest.digest:
        raise ContentError("its checksum differs")
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
            f"holds a lone surrogate at position {error.start:,}, which UTF-8 can not encode: replace it",
            model="PageVersion",
        ) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidValueError(name, f"can not be stored: {error}", model="PageVersion") from error


def _decompress(data: bytes, size: int) -> bytes:
    """Exactly `size` bytes, read in steps: neither the frame's header nor a bomb sets the memory."""
    chunks: list[bytes] = []
    left = size
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=False) as reader:
            while left and (chunk := reader.read(min(_CHUNK, left))):
                chunks.append(chunk)
                left -= len(chunk)
            excess = reader.read(1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise ContentError(f"it can not be decompressed: {error}") from error
    if left or excess:
        raise ContentError(f"it has {'more' if excess else 'fewer'} than the {size:,} bytes that it should")
    return b"".join(chunks)
