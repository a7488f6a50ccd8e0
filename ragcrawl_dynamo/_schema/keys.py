"""Builds and reads all keys of the five tables; no other module joins or splits key text.

An id may hold any character. In a key it is escaped, so that it never contains "#". "#" is therefore free to
join the parts of a composite key, and keys that begin with "#" are free for the package's own records. The
escapes are those of JSON Pointer (RFC 6901) with "#" instead of "/": "~" becomes "~0", "#" becomes "~1".
Different ids have different escaped forms, so they never share a key.

A partition key may have digits and a "#" before an id; decoding the id leaves them out.

The docstring of each function gives the key pattern, a partition key and a sort key divided by " / ", and the
access that the key serves. tables.py lists what lies in each table.
"""

from __future__ import annotations

from hashlib import sha256
from zlib import crc32

from ragcrawl_dynamo._dynamodb.values import Key, escape, unescape
from ragcrawl_dynamo._utils.urls import comparable_url, url_hash
from ragcrawl_dynamo.errors import InvalidKeyError

# Every id is a sort key somewhere, of a table or of an index. A sort key may take 1,024 bytes (AWS: "Quotas
# in Amazon DynamoDB").
MAX_ID_BYTES = 1024

# By how much the sort key of a body part may be longer than that of its version. The partition key is longer
# by one byte.
_BODY_BYTES = 24

# A host's name is a part of its queues' names. DNS allows 253 characters (RFC 1035), and a port is added.
MAX_HOST_BYTES = 512

# The generation of a version's body, unless a body of that generation is stored already.
FIRST_GENERATION = "0"

# In by_site, the partition keys of bodies sort between these two: "$" is the character after "#".
BODY_PARTITIONS = ("#", "$")

# The beginnings of the sort keys of a site's records: the shards of its change log, its consumers, those that
# keep an index, and the chunks of pages in each index. Stored logs say "lane" for a shard.
CHANGE_SHARD_PREFIX = "lane#"
CONSUMER_PREFIX = "consumer#"
INDEX_PREFIX = "index#"
CHUNKS_PREFIX = "chunks#"

# The characters of a page's id in the key of a chunk record: an id itself may take the whole key.
_HASH_CHARACTERS = 64

# Over how many partition keys the items of a run are spread. It is a part of the layout of the table.
_ITEM_PARTITIONS = 16

# The beginnings of the sort keys of a run's records: its hosts with their budgets, its counters, and the
# processes that claim.
HOST_PREFIX = "host#"
COUNTER_PREFIX = "count#"
MEMBER_PREFIX = "member#"
BUDGET_PREFIX = "budget#"


# Sites and runs


def site_key(site_id: str) -> Key:
    """`{site_id}`: reads and writes one site."""
    return {"site_id": {"S": _id("Site", "site_id", site_id)}}


def site_partition(site_id: str) -> str:
    """`{site_id}`: lists a site's runs, its pages and, in by_site, its versions."""
    return _id("Site", "site_id", site_id)


def run_key(site_id: str, run_id: str) -> Key:
    """`{site_id}` / `{run_id}`: reads and writes one run."""
    return {
        "site_id": {"S": _id("CrawlRun", "site_id", site_id)},
        "run_id": {"S": _id("CrawlRun", "run_id", run_id)},
    }


def run_partition(run_id: str) -> str:
    """`{run_id}`: in by_run_id, finds a run without its site. Version 1 has a run's frontier items there."""
    return _id("CrawlRun", "run_id", run_id)


def schema_key() -> Key:
    """`#schema` / `#schema`: reads and writes the schema record, one for all tables of a prefix."""
    return {"site_id": {"S": "#schema"}, "run_id": {"S": "#schema"}}


# Pages


def page_key(site_id: str, page_id: str) -> Key:
    """`{site_id}` / `{page_id}`: reads and writes one page."""
    return {
        "site_id": {"S": _id("Page", "site_id", site_id)},
        "page_id": {"S": _id("Page", "page_id", page_id)},
    }


def url_key(url: str) -> str:
    """`{SHA-256 of the normalized URL, in hexadecimal}`: in by_url, finds a page by a URL of any length."""
    return url_hash(comparable_url(url))


# The change log, in the pages table


def changes_partition(site_id: str) -> str:
    """`#{site_id}`: lists a site's shards of the change log, its consumers' cursors and chunk records."""
    return "#" + site_partition(site_id)


def change_shard_key(site_id: str, shard: str) -> Key:
    """`#{site_id}` / `lane#{shard}`: reads and writes the record of the process that holds a shard."""
    return {"site_id": {"S": changes_partition(site_id)}, "page_id": {"S": CHANGE_SHARD_PREFIX + shard}}


def change_shard_of(key: Key) -> str:
    """Returns the shard of a key `#{site_id}` / `lane#{shard}`."""
    return key["page_id"]["S"].removeprefix(CHANGE_SHARD_PREFIX)


def consumer_key(site_id: str, consumer: str) -> Key:
    """`#{site_id}` / `consumer#{consumer}`: reads and writes the cursor of one consumer."""
    name = _id("Change", "consumer", consumer, limit=MAX_ID_BYTES - len(CONSUMER_PREFIX))
    return {"site_id": {"S": changes_partition(site_id)}, "page_id": {"S": CONSUMER_PREFIX + name}}


def index_key(site_id: str, consumer: str) -> Key:
    """`#{site_id}` / `index#{consumer}`: reads and writes the lease and the cursor of an index."""
    return {
        "site_id": {"S": changes_partition(site_id)},
        "page_id": {"S": INDEX_PREFIX + _index_name(consumer)},
    }


def chunks_prefix(consumer: str) -> str:
    """`chunks#{consumer}#`: lists the chunk records of an index in the partition of its site."""
    return f"{CHUNKS_PREFIX}{_index_name(consumer)}#"


def chunks_key(site_id: str, consumer: str, page_id: str) -> Key:
    """`#{site_id}` / `chunks#{consumer}#{SHA-256 of the page_id}`: reads and writes one chunk record."""
    page_hash = sha256(_id("Page", "page_id", page_id).encode()).hexdigest()
    return {
        "site_id": {"S": changes_partition(site_id)},
        "page_id": {"S": chunks_prefix(consumer) + page_hash},
    }


def _index_name(consumer: str) -> str:
    longest = MAX_ID_BYTES - len(CHUNKS_PREFIX) - 1 - _HASH_CHARACTERS
    return _id("Change", "consumer", consumer, limit=longest)


def change_shard_partition(site_id: str, shard: str) -> str:
    """`#{site_id}#{shard}`: lists the log entries of a shard by sequence number."""
    return f"{changes_partition(site_id)}#{shard}"


def change_key(site_id: str, shard: str, sequence_number: int) -> Key:
    """`#{site_id}#{shard}` / `{sequence_number}`: writes one log entry."""
    partition = change_shard_partition(site_id, shard)
    return {"site_id": {"S": partition}, "page_id": {"S": sequence_text(sequence_number)}}


def sequence_text(sequence_number: int) -> str:
    """`000000000001`: a fixed width, so that log entries sort by number."""
    return f"{sequence_number:012}"


# Versions and their bodies


def version_key(page_id: str, version_id: str, site_id: str) -> Key:
    """`{page_id}` / `{version_id}#{site_id}#`: reads and writes the head of one version.

    The site is a part of the key because two sites that crawl one URL share its page_id, and can share a
    version_id too. Neither site may overwrite the version of the other one.
    """
    sort_key = version_prefix(version_id) + version_suffix(site_id)[1:]
    if len(sort_key.encode()) > MAX_ID_BYTES - _BODY_BYTES:
        raise InvalidKeyError(
            "version_id",
            f"takes {len(sort_key.encode()) - 2:,} bytes together with site_id, and both may take "
            f"{MAX_ID_BYTES - _BODY_BYTES - 2:,}: use a hash of it",
            model="PageVersion",
        )
    partition = _id("PageVersion", "page_id", page_id, limit=MAX_ID_BYTES - 1)
    return {"page_id": {"S": partition}, "version_key": {"S": sort_key}}


def version_prefix(version_id: str) -> str:
    """`{version_id}#`: finds the versions of that id in a page's partition, one for each site."""
    return _id("PageVersion", "version_id", version_id) + "#"


def version_suffix(site_id: str) -> str:
    """`#{site_id}#`: ends the sort key of every version of that site, and occurs nowhere else in it."""
    return "#" + _id("PageVersion", "site_id", site_id) + "#"


def version_ids(head: Key) -> tuple[str, str, str]:
    """Returns page_id, version_id and site_id of a key `{page_id}` / `{version_id}#{site_id}#`."""
    version_id, site_id, _ = head["version_key"]["S"].split("#")
    return unescape(head["page_id"]["S"]), unescape(version_id), unescape(site_id)


def page_partition(page_id: str) -> str:
    """`{page_id}`: lists a page's versions, those of all sites that have the page."""
    return _id("Page", "page_id", page_id)


def body_location(head: Key, generation: str = FIRST_GENERATION) -> str:
    """`{version_id}#{site_id}#{generation}#`: begins the sort keys of all items of one body."""
    return f"{head['version_key']['S']}{generation}#"


def body_part_key(head: Key, location: str, number: int) -> Key:
    """`#{page_id}` / `{location}{number}`: reads and writes one body part.

    Bodies have a partition beside that of their page's versions, so that listing versions reads no body.
    """
    return {"page_id": {"S": "#" + head["page_id"]["S"]}, "version_key": {"S": f"{location}{number:05}"}}


def body_users_key(head: Key, location: str) -> Key:
    """`#{page_id}` / `{location}users`: reads and writes the list of the versions that share a body."""
    return {"page_id": {"S": "#" + head["page_id"]["S"]}, "version_key": {"S": f"{location}users"}}


def body_entry(key: Key) -> tuple[Key, str] | None:
    """Returns which body a key `#{page_id}` / `{version_id}#{site_id}#{generation}#{part}` belongs to.

    Returns:
        The key of the version that the body was written for, and the location of the body; None for the key
        of a version.
    """
    if not is_body_partition(key["page_id"]["S"]):
        return None
    version_id, site_id, generation, _ = key["version_key"]["S"].split("#")
    head: Key = {
        "page_id": {"S": key["page_id"]["S"][1:]},
        "version_key": {"S": f"{version_id}#{site_id}#"},
    }
    return head, body_location(head, generation)


def is_body_partition(partition: str) -> bool:
    """Returns whether a partition key is `#{page_id}`, that of bodies: no escaped id begins with "#"."""
    return partition.startswith("#")


def site_entry(head: Key) -> Key:
    """`{site_id}`: lists a version in by_site, by its first body part or, if it has none, by its head."""
    return {"indexed_site": {"S": head["version_key"]["S"].split("#")[1]}}


# The frontier


def frontier_key(run_id: str, item_id: str) -> Key:
    """`{digit}#{run_id}` / `{item_id}`: reads and writes one frontier item.

    The digit is a hash of the item's id. So a new run begins on as many partitions of DynamoDB as there are
    digits, instead of on one.
    """
    item = _id("FrontierItem", "item_id", item_id)
    return {"run_id": {"S": _items_partition(run_id, crc32(item.encode()))}, "item_id": {"S": item}}


def items_partitions(run_id: str) -> list[str]:
    """`{digit}#{run_id}` for each digit: lists a run's frontier items."""
    return [_items_partition(run_id, digit) for digit in range(_ITEM_PARTITIONS)]


def _items_partition(run_id: str, number: int) -> str:
    return f"{number % _ITEM_PARTITIONS:x}#{_id('FrontierItem', 'run_id', run_id)}"


def records_partition(run_id: str) -> str:
    """`#{run_id}`: lists a run's control and counters."""
    return "#" + run_partition(run_id)


def control_key(run_id: str) -> Key:
    """`#{run_id}` / `control`: reads and writes the control of a run, which all its workers share."""
    return {"run_id": {"S": records_partition(run_id)}, "item_id": {"S": "control"}}


def bucket_of(host: str, buckets: int) -> int:
    """Returns the bucket of a host, from 0 to `buckets` - 1."""
    return crc32(host.encode("utf-8", "surrogatepass")) % buckets


def hosts_partition(run_id: str, bucket: int) -> str:
    """`#{run_id}#{bucket}`: lists the host records of a bucket and, in by_queue, its hosts that have work."""
    return f"{records_partition(run_id)}#{bucket}"


def host_key(run_id: str, host: str, bucket: int) -> Key:
    """`#{run_id}#{bucket}` / `host#{host}`: a host's record: its limits and its counts."""
    return {
        "run_id": {"S": hosts_partition(run_id, bucket)},
        "item_id": {"S": HOST_PREFIX + host_name(host)},
    }


def host_of(key: Key) -> str:
    """Returns the host of a key `#{run_id}#{bucket}` / `host#{host}`."""
    return unescape(key["item_id"]["S"].removeprefix(HOST_PREFIX))


def counter_key(run_id: str, number: int) -> Key:
    """`#{run_id}` / `count#{number}`: reads and adds to one of the shards of a run's counters."""
    return {"run_id": {"S": records_partition(run_id)}, "item_id": {"S": f"{COUNTER_PREFIX}{number}"}}


def members_partition(run_id: str) -> str:
    """`#{run_id}#members`: lists the processes that claim from a run."""
    return f"{records_partition(run_id)}#members"


def member_key(run_id: str, process: str) -> Key:
    """`#{run_id}#members` / `member#{process}`: writes the sign of life of a process that claims."""
    return {"run_id": {"S": members_partition(run_id)}, "item_id": {"S": MEMBER_PREFIX + process}}


def budget_key(run_id: str, host: str, bucket: int) -> Key:
    """`#{run_id}#{bucket}` / `budget#{host}`: reserves a part of a host's budget of links."""
    return {
        "run_id": {"S": hosts_partition(run_id, bucket)},
        "item_id": {"S": BUDGET_PREFIX + host_name(host)},
    }


def budget_host(key: Key) -> str:
    """Returns the host of a key `#{run_id}#{bucket}` / `budget#{host}`."""
    return unescape(key["item_id"]["S"].removeprefix(BUDGET_PREFIX))


def host_queue(run_id: str, host: str, shard: int) -> str:
    """`{run_id}#{host}#{shard}`: in by_queue, lists the open items of one shard of a host's queue."""
    return f"{run_partition(run_id)}#{host_name(host)}#{shard}"


def shard_of(queue: str) -> int:
    """Returns the shard of a partition key `{run_id}#{host}#{shard}`."""
    return int(queue.rpartition("#")[2])


def run_of_queue(queue: str) -> str:
    """Returns the run of a partition key of by_queue: that of a host's queue or of a list of hosts."""
    return unescape(queue.removeprefix("#").partition("#")[0])


def is_host_list(queue: str) -> bool:
    """Returns whether a partition key of by_queue is that of a list of hosts: only those begin with "#"."""
    return queue.startswith("#")


def host_name(host: str) -> str:
    """`{host}`: a host as a part of a key; empty if the URL has none.

    Raises:
        InvalidKeyError: The host is too long, or UTF-8 cannot encode it.
    """
    return "" if host == "" else _id("FrontierItem", "domain", host, limit=MAX_HOST_BYTES)


def _id(model: str, field: str, value: str, *, limit: int = MAX_ID_BYTES) -> str:
    """Escapes an id.

    Raises:
        InvalidKeyError: The id is not text, is empty or too long, or UTF-8 cannot encode it.
    """
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
            field, "holds a lone surrogate, which UTF-8 cannot encode: replace it", model=model
        ) from None
    if size > limit:
        raise InvalidKeyError(
            field, f"takes {size:,} bytes, an id may take {limit:,}: use a hash of it", model=model
        )
    return escaped
