"""Groups keys by their kind: `{run}#{host}#{n}` stands for the queues of all hosts of a run.

The parts are recognized by their text, so that this holds for every key that `_schema/keys.py` builds.
"""

from __future__ import annotations

import re

RUN, SITE = "measured-run", "measured-site"

_PARTS = (
    (re.compile(re.escape(RUN)), "{run}"),
    (re.compile(re.escape(SITE)), "{site}"),
    (re.compile(r"h\d{6}\.example"), "{host}"),
    # Ids of pages, versions and items, shards of the change log, processes.
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{8,}(?![0-9a-f])"), "{id}"),
    (re.compile(r"^[0-9a-f]{1,6}(?=[#.{])"), "{hash}"),
    (re.compile(r"(?<=[#.])\d+(?=$|[#.])"), "{n}"),
)


def host_of(number: int) -> str:
    """Returns the host of that number."""
    return f"h{number:06}.example"


def kind_of(key: str) -> str:
    """Returns the pattern of a key, such as `#{run}#{n}`."""
    for part, name in _PARTS:
        key = part.sub(name, key)
    return key
