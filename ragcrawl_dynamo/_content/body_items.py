"""Describes stored bodies as pure values: their keys, their items, and what writing them costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ragcrawl_dynamo._content.packing import ContentError, Manifest
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES, item_size
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import body_location, body_part_key, body_users_key, site_entry

# The attribute that names the write of a part.
_WRITER = "writer"

# For sizes: as many significant digits as the seconds since 1970 have until the year 2286.
_ANY_MOMENT = 1_799_999_999


@dataclass(frozen=True, slots=True)
class BodyId:
    """Names one body.

    Attributes:
        head: Key of the version that the body was written for, or of another version that uses it. Only its
            page is part of the keys.
        location: Beginning of the sort keys of the body's items.
    """

    head: Key
    location: str

    @classmethod
    def first_of(cls, head: Key) -> Self:
        """The body that a version has, unless it was saved more than once or shares the body of another."""
        return cls(head, body_location(head))

    def part_key(self, number: int) -> Key:
        """The key of one part, counted from 0."""
        return body_part_key(self.head, self.location, number)

    @property
    def users_key(self) -> Key:
        """The key of the item that lists the versions that share the body."""
        return body_users_key(self.head, self.location)


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A body that has items of its own.

    Attributes:
        id: Names the body.
        parts: Number of its parts.
        object_key: Key of its object, if it is in the content bucket.
        written_at: When it was written, in seconds since 1970; 0 if that was not read.
    """

    id: BodyId
    parts: int
    object_key: str | None
    written_at: int = 0

    @classmethod
    def of_head(cls, head: Key, manifest: Manifest) -> Self:
        """The body that a head's manifest describes."""
        return cls(BodyId(head, location_of(head, manifest)), manifest.parts, manifest.object_key)

    @classmethod
    def of_first_part(cls, body: BodyId, part: Item) -> Self:
        """The body whose first part was read, with or without its data."""
        object_key = part.get("object_key", {}).get("S")
        return cls(body, int(part["parts"]["N"]), object_key, int(part["written_at"]["N"]))

    @property
    def part_keys(self) -> list[Key]:
        """The keys of all parts."""
        return [self.id.part_key(number) for number in range(self.parts)]


def manifest_of(head: Item) -> Manifest | None:
    """Reads the manifest of a stored head; returns None if it has none that can be read."""
    try:
        return Manifest.from_attribute(head.get("body", {}))
    except ContentError:
        return None


def location_of(head: Key, manifest: Manifest) -> str:
    """Returns where the parts of a version's body are stored."""
    return manifest.location or body_location(head)


def used_location(key: Key, head: Item) -> str | None:
    """Returns where the body of a stored head is; None if the head is absent, or its body needs no parts."""
    manifest = manifest_of(head)
    return location_of(key, manifest) if manifest is not None and manifest.parts else None


def writer_token() -> WriteToken:
    """Makes the token of one write of a body.

    It is short: a part's attributes beside the data cost a write unit for every fifth body.
    """
    return WriteToken.new(_WRITER)


def part_items(body: BodyId, data: bytes, token: WriteToken, written_at: int) -> list[Item]:
    """Builds the parts of a body, as large as an item may be.

    Args:
        body: Names the body.
        data: The compressed bytes of the body.
        token: Names the write.
        written_at: Seconds since 1970.
    """
    empty = _part(body, 0, b"", token, written_at)
    # moto counts bytes by their base64 text, a third longer. Write units are the same either way.
    room = (MAX_ITEM_BYTES - item_size(empty)) * 3 // 4 - 3
    count = -(-len(data) // room)
    parts = [
        _part(body, number, data[number * room : (number + 1) * room], token, written_at)
        for number in range(count)
    ]
    return [{**part, "parts": {"N": str(count)}} for part in parts]


def pointer_items(body: BodyId, object_key: str, token: WriteToken, written_at: int) -> list[Item]:
    """Builds the one part of a body in the content bucket, which names its object."""
    return [{**_part(body, 0, b"", token, written_at), "object_key": {"S": object_key}}]


def write_units(head: Key, manifest: Manifest) -> int:
    """Returns the write capacity units of a body's parts, without its entry in the index."""
    body = StoredBody.of_head(head, manifest)
    token = writer_token()
    if body.object_key is not None:
        parts = pointer_items(body.id, body.object_key, token, _ANY_MOMENT)
    else:
        parts = part_items(body.id, bytes(manifest.stored_bytes), token, _ANY_MOMENT)
    return sum(-(-item_size(part) // 1024) for part in parts)


def _part(body: BodyId, number: int, data: bytes, token: WriteToken, written_at: int) -> Item:
    item: Item = {
        **body.part_key(number),
        "data": {"B": data},
        **token.attributes,
        "written_at": {"N": str(written_at)},
        "parts": {"N": "1"},
    }
    return {**item, **site_entry(body.head)} if number == 0 else item
