"""Defines the peers that are compared, and the workloads with their targets."""

from __future__ import annotations

from dataclasses import dataclass, field

OURS = "ours"

# Name in the tables -> module, and whether it runs in the peers' environment.
PEERS = {
    OURS: ("peer_ours", False),
    "ours, uncoalesced": ("peer_ours_single", False),
    "aiodynamo": ("peer_aiodynamo", True),
    "pydynox": ("peer_pydynox", True),
    "aiopynamodb": ("peer_aiopynamodb", True),
    "pynamodb in threads": ("peer_pynamodb", True),
    "plain aioboto3": ("peer_aioboto3", False),
    "floor": ("peer_floor", False),
}

# The endpoints, and the titles of their sections.
PLACES = {"canned": "Canned endpoint", "engine": "DynamoDB Local"}


@dataclass(frozen=True)
class Workload:
    """A workload to measure.

    Attributes:
        name: The name by which the peers know the workload.
        what: The description for the reader.
        count: The number of items of a round.
        delay: The seconds that the canned endpoint takes for an answer.
        targets: By peer, the largest allowed ratio of our client CPU to that of the peer.
        without: The peers that do not run the workload.
        places: Whether it is measured on the canned endpoint, on DynamoDB Local, or on both.
    """

    name: str
    what: str
    count: int
    delay: float = 0.0
    targets: dict[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ("ours, uncoalesced",)
    places: tuple[str, ...] = ("canned", "engine")


WORKLOADS = (
    Workload(
        "save, 64 tasks",
        "64 tasks save single pages, each one after the other",
        1920,
        targets={"aiodynamo": 0.35, "plain aioboto3": 0.10},
        without=(),
    ),
    Workload(
        "save, 700 a second",
        "700 single saves a second, at random moments, on a 5 ms endpoint",
        2100,
        delay=0.005,
        targets={"aiodynamo": 0.5},
        without=("aiopynamodb", "pynamodb in threads", "plain aioboto3"),
        places=("canned",),
    ),
    Workload(
        "save, alone",
        "one task saves single pages",
        500,
        targets={"aiodynamo": 2.2},
        places=("canned",),
    ),
    Workload(
        "save in bulk",
        "5,000 pages in one call",
        5000,
        targets={"aiodynamo": 1.0, "plain aioboto3": 0.25},
    ),
    Workload("get, 64 tasks", "64 tasks get single pages", 1920, targets={"aiodynamo": 0.35}, without=()),
    Workload("get in bulk", "5,000 pages got at once", 5000),
    Workload("list", "5,000 pages listed", 5000, targets={"aiodynamo": 0.9, "plain aioboto3": 0.22}),
    Workload("save bodies", "64 tasks save versions with 40 KB of Markdown", 640, places=("engine",)),
    Workload("get bodies", "64 tasks get versions with 40 KB of Markdown", 640, places=("engine",)),
)
