"""Every key string of the five tables; nothing else builds one.

An id may hold any character. In a key it is escaped so that "#" never appears in it; "#" is therefore free
to join the parts of a composite key, and keys that begin with "#" are free for records of the layer itself.
The escapes are those of JSON Pointer (RFC 6901) with "#" in the place of "/": "~" becomes "~0", "#" becomes
"~1". Escaping is injective, so two different ids never share a key.
"""

from __future__ import annotations

from ragcrawl_dynamo._dynamodb.values import Key, escape, unescape
from ragcrawl_dynamo._utils.urls import normalize_url, url_hash
from ragcrawl_dynamo.errors import InvalidKeyError

# Every id is somewhere a sort key, of a table or of an index, and a sort key may take 1,024 bytes
# (AWS: "Quotas in Amazon DynamoDB").
MAX_ID_BYTES = 1024

# What the sort keys of a version's body parts have more than its own; its page_id has one byte more.
_BODY_BYTES = 24

# A host's name is part of its queues' names; DNS allows 253 characters (RFC 1035), a port comes on top.
MAX_HOST_BYTES = 512

# The generation of a version's body, unless a body with that name is there already.
FIRST_GENERATION = "0"


def site_key(site_id: str) -> Key:
    """`{site_id}`: one site by id."""
    return {"site_id": {"S": _id("Site", "site_id", site_id)}}


def run_key(site_id: str, run_id: str) -> Key:
    """`{site_id}` / `{run_id}`: one run by full key."""
    return {
        "site_id": {"S": _id("CrawlRun", "site_id", site_id)},
        "run_id": {"S": _id("CrawlRun", "run_id", run_id)},
    }


def schema_key() -> Key:
    """`#schema` / `#schema`: what all tables of a prefix are; a key never has a site's "#" in it."""
    return {"site_id": {"S": "#schema"}, "run_id": {"S": "#schema"}}


def page_key(site_id: str, page_id: str) -> Key:
    """`{site_id}` / `{page_id}`: one page by full key."""
    return {
        "site_id": {"S": _id("Page", "site_id", site_id)},
        "page_id": {"S": _id("Page", "page_id", page_id)},
    }


def version_key(page_id: str, version_id: str, site_id: str) -> Key:
    """`{page_id}` / `{version_id}#{site_id}#`: one version by full key.

    The site is part of it because two sites that crawl one URL share its page_id, and can share a
    version_id too: neither may overwrite the other.
    """
    sort_key = version_prefix(version_id) + version_suffix(site_id)[1:]
    if len(sort_key.encode()) > MAX_ID_BYTES - _BODY_BYTES:
        raise InvalidKeyError(
            "version_id",
            f"version_id and site_id together may take {MAX_ID_BYTES - _BODY_BYTES - 2:,} bytes",
            model="PageVersion",
        )
    partition = _id("PageVersion", "page_id", page_id, limit=MAX_ID_BYTES - 1)
    return {"page_id": {"S": partition}, "version_key": {"S": sort_key}}


def version_prefix(version_id: str) -> str:
    """`{version_id}#`: begins the sort key of every version of that id, one per site."""
    return _id("PageVersion", "version_id", version_id) + "#"


def version_suffix(site_id: str) -> str:
    """`#{site_id}#`: ends the sort key of every version of that site, and is nowhere else in one."""
    return "#" + _id("PageVersion", "site_id", site_id) + "#"


def body_location(head: Key, generation: str = FIRST_GENERATION) -> str:
    """`{version_id}#{site_id}#{generation}#`: begins the sort keys of one body, in the version's own name."""
    return f"{head['version_key']['S']}{generation}#"


def body_part_key(head: Key, location: str, number: int) -> Key:
    """`#{page_id}` / `{location}{number}`: one part of a body, in a partition beside the page's versions."""
    return {"page_id": {"S": "#" + head["page_id"]["S"]}, "version_key": {"S": f"{location}{number:05}"}}


def body_users_key(head: Key, location: str) -> Key:
    """`#{page_id}` / `{location}users`: which versions share a body."""
    return {"page_id": {"S": "#" + head["page_id"]["S"]}, "version_key": {"S": f"{location}users"}}


def body_entry(key: Key) -> tuple[Key, str] | None:
    """The version that a body part was written for, and the body's location; None for a version's own key."""
    if not is_body_partition(key["page_id"]["S"]):
        return None
    version_id, site_id, generation, _ = key["version_key"]["S"].split("#")
    head: Key = {
        "page_id": {"S": key["page_id"]["S"][1:]},
        "version_key": {"S": f"{version_id}#{site_id}#"},
    }
    return head, body_location(head, generation)


def is_body_partition(partition: str) -> bool:
    """Whether a partition of the versions table holds bodies: no escaped id begins with "#"."""
    return partition.startswith("#")


def version_ids(head: Key) -> tuple[str, str, str]:
    """page_id, version_id and site_id of a version's key."""
    version_id, site_id, _ = head["version_key"]["S"].split("#")
    return unescape(head["page_id"]["S"]), unescape(version_id), unescape(site_id)


def changes_partition(site_id: str) -> str:
    """`#{site_id}`: partition of a site's shards of the change log, and of its consumers' cursors."""
    return "#" + site_partition(site_id)


# Begin the sort keys of all shards of the change log, and of all consumers, of a site. The text is older than
# the name.
CHANGE_SHARD_PREFIX = "lane#"
CONSUMER_PREFIX = "consumer#"


def change_shard_key(site_id: str, shard: str) -> Key:
    """`#{site_id}` / `lane#{shard}`: who numbers the changes of a shard of the change log."""
    return {"site_id": {"S": changes_partition(site_id)}, "page_id": {"S": CHANGE_SHARD_PREFIX + shard}}


def change_shard_of(key: Key) -> str:
    """The shard of a shard's key."""
    return key["page_id"]["S"].removeprefix(CHANGE_SHARD_PREFIX)


def consumer_key(site_id: str, consumer: str) -> Key:
    """`#{site_id}` / `consumer#{consumer}`: how far a consumer of the changes has come."""
    name = _id("Change", "consumer", consumer, limit=MAX_ID_BYTES - len(CONSUMER_PREFIX))
    return {"site_id": {"S": changes_partition(site_id)}, "page_id": {"S": CONSUMER_PREFIX + name}}


def change_shard_partition(site_id: str, shard: str) -> str:
    """`#{site_id}#{shard}`: partition of the changes of a shard."""
    return f"{changes_partition(site_id)}#{shard}"


def change_key(site_id: str, shard: str, sequence_number: int) -> Key:
    """`#{site_id}#{shard}` / `{sequence_number}`: one change, in the order of its shard."""
    partition = change_shard_partition(site_id, shard)
    return {"site_id": {"S": partition}, "page_id": {"S": sequence_text(sequence_number)}}


def sequence_text(sequence_number: int) -> str:
    """`000000000001`: fixed width, so that it sorts by number."""
    return f"{sequence_number:012}"


# In by_site, bodies sort between these two: "$" is the character after "#".
BODY_PARTITIONS = ("#", "$")


def frontier_key(run_id: str, item_id: str) -> Key:
    """`{run_id}` / `{item_id}`: one frontier item by full key."""
    return {
        "run_id": {"S": _id("FrontierItem", "run_id", run_id)},
        "item_id": {"S": _id("FrontierItem", "item_id", item_id)},
    }


def control_key(run_id: str) -> Key:
    """`#{run_id}` / `control`: what a run's workers share; beside the partition of the run's items."""
    return {"run_id": {"S": records_partition(run_id)}, "item_id": {"S": "control"}}


def host_key(run_id: str, host: str) -> Key:
    """`#{run_id}` / `host#{host}`: one host's limits, leases in flight and turn."""
    return {"run_id": {"S": records_partition(run_id)}, "item_id": {"S": HOST_PREFIX + host_name(host)}}


# Begin the sort keys of all hosts, counters and processes of a run.
HOST_PREFIX = "host#"
COUNTER_PREFIX = "count#"
MEMBER_PREFIX = "member#"


def counter_key(run_id: str, number: int) -> Key:
    """`#{run_id}` / `count#{number}`: one of the places in which a run's items are counted."""
    return {"run_id": {"S": records_partition(run_id)}, "item_id": {"S": f"{COUNTER_PREFIX}{number}"}}


def member_key(run_id: str, process: str) -> Key:
    """`#{run_id}` / `member#{process}`: a process that claims of the run."""
    return {"run_id": {"S": records_partition(run_id)}, "item_id": {"S": MEMBER_PREFIX + process}}


def host_of(key: Key) -> str:
    """The host of a host record's key."""
    return unescape(key["item_id"]["S"].removeprefix(HOST_PREFIX))


def records_partition(run_id: str) -> str:
    """`#{run_id}`: partition of a run's control, host records and counters."""
    return "#" + run_partition(run_id)


def due_list(run_id: str) -> str:
    """`#{run_id}`: in by_queue, the hosts of a run that have work, in the order in which they are due."""
    return "#" + run_partition(run_id)


def host_queue(run_id: str, host: str, shard: int) -> str:
    """`{run_id}#{host}#{shard}`: in by_queue, a share of a host's open items."""
    return f"{run_partition(run_id)}#{host_name(host)}#{shard}"


def shard_of(queue: str) -> int:
    """The shard of a host's queue."""
    return int(queue.rpartition("#")[2])


def host_name(host: str) -> str:
    """A host as it stands in a key.

    Raises:
        InvalidKeyError: It is too long, or no UTF-8.
    """
    return "" if host == "" else _id("FrontierItem", "domain", host, limit=MAX_HOST_BYTES)


def url_key(url: str) -> str:
    """SHA-256 of the normalized URL, in hexadecimal: finds a page by a URL of any length."""
    return url_hash(normalize_url(url))


def site_partition(site_id: str) -> str:
    """`{site_id}`: partition of a site's runs, pages and, in their by_site index, versions."""
    return _id("Site", "site_id", site_id)


def page_partition(page_id: str) -> str:
    """`{page_id}`: partition of a page's versions, of every site that has the page."""
    return _id("Page", "page_id", page_id)


def run_partition(run_id: str) -> str:
    """`{run_id}`: partition of a run's frontier, and of the run in its by_run_id index."""
    return _id("CrawlRun", "run_id", run_id)


def site_entry(head: Key) -> Key:
    """`{site_id}`: lists a version under its site, by its first body part or, without parts, its head."""
    return {"indexed_site": {"S": head["version_key"]["S"].split("#")[1]}}


def _id(model: str, field: str, value: str, *, limit: int = MAX_ID_BYTES) -> str:
    if not isinstance(value, str):
        raise InvalidKeyError(field, f"must be text, not {type(value).__name__}", model=model)
    if not value:
        raise InvalidKeyError(field, "must not be empty", model=model)
    if value.isascii() and len(value) <= limit and "~" not in value and "#" not in value:
        return value
    escaped = escape(value)
    try:
        size = len(escaped.encode())
    except UnicodeEncodeError:
        raise InvalidKeyError(
            field, "holds a lone surrogate, which UTF-8 can not encode", model=model
        ) from None
    if size > limit:
        raise InvalidKeyError(
            field, f"takes {size:,} bytes, an id may take {limit:,}: use a hash of it", model=model
        )
    return escaped
