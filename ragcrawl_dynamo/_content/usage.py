"""Measures the storage and the write units of a site's versions."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from ragcrawl_dynamo._content.body_items import manifest_of, used_location, write_units
from ragcrawl_dynamo._content.site_index import SiteListing
from ragcrawl_dynamo._dynamodb.batching import key_values, read_all
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo.models import PageVersion

__all__ = ["ContentUsage"]


@dataclass(frozen=True, slots=True)
class ContentUsage:
    """The storage that a site's versions take.

    Attributes:
        versions: Number of versions.
        shared: How many of them use the body of another version.
        raw_bytes: Bytes of their content before compression, that of each version counted.
        stored_bytes: Bytes of their content after compression, without that of shared bodies.
        write_units: Write capacity units of storing them, by DynamoDB's rule: one for each 1 KB of an item,
            and one for the entry in the site's index.
    """

    versions: int = 0
    shared: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    write_units: int = 0

    def __add__(self, other: ContentUsage) -> ContentUsage:
        """The usage of two sets of versions together."""
        return ContentUsage(
            versions=self.versions + other.versions,
            shared=self.shared + other.shared,
            raw_bytes=self.raw_bytes + other.raw_bytes,
            stored_bytes=self.stored_bytes + other.stored_bytes,
            write_units=self.write_units + other.write_units,
        )


class UsageMeter:
    """Measures usage from the heads of versions."""

    def __init__(self, gateway: Gateway, table: Table[PageVersion]) -> None:
        self._gateway = gateway
        self._table = table
        self._listing = SiteListing(gateway, table)

    async def measure(self, site_id: str) -> ContentUsage:
        """Measures a site; see StorageBackend.get_content_usage."""
        usage = ContentUsage()
        async with aclosing(self._listing.chunks(site_id)) as chunks:
            async for listed in chunks:
                heads = await read_all(self._gateway, self._table, listed.version_keys)
                by_key = {key_values(self._table, head): head for head in heads}
                # A version is listed once: itself, or by the one body that it uses.
                listed_keys = [key_values(self._table, key) for key in listed.heads]
                counted = [key for key in listed_keys if key in by_key]
                used = {(key, used_location(self._key(head), head)) for key, head in by_key.items()}
                for body in listed.bodies:
                    key = key_values(self._table, body.head)
                    if (key, body.location) in used:
                        counted.append(key)
                for key in counted:
                    usage += usage_of(self._key(by_key[key]), by_key[key])
        return usage

    def _key(self, head: Item) -> Key:
        return {name: head[name] for name in self._table.primary_key}


def usage_of(key: Key, head: Item) -> ContentUsage:
    """Returns the usage of one version, given its head."""
    manifest = manifest_of(head)
    if manifest is None:
        return ContentUsage(versions=1)
    # The head of a version that has a body of its own is not in the index: the body is.
    is_shared = manifest.parts > 0 and "indexed_site" in head
    units = -(-item_size(head) // 1024) + 1
    if manifest.parts and not is_shared:
        units += write_units(key, manifest)
    return ContentUsage(
        versions=1,
        shared=int(is_shared),
        raw_bytes=manifest.raw_bytes,
        stored_bytes=0 if is_shared else manifest.stored_bytes,
        write_units=units,
    )
