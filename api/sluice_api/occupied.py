"""What agents and operator share about addresses of pools that are not free.

An agent lists in its EgressNode which addresses within the ranges of pools it sees in use (`status.occupied`), and by
which pools it went (`status.surveyed`). What an address is used by is a text that begins with one of `Occupant`, and
names nothing that belongs to a tenant, since it is repeated where tenants read it.
Standard library only, no I/O.
"""

from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import Final

MOST_OCCUPIED: Final = 256
"""Entries of `status.occupied`."""


class Occupant(StrEnum):
    """What has an address: the first word of `by`."""

    POD = "pod"
    INTERFACE = "interface"
    NETWORK = "network"
    """The lowest address of a link's subnet: the network address, or with IPv6 the subnet-router anycast address."""
    BROADCAST = "broadcast"
    HOST = "host"
    """A single host that a route of the node leads to directly: a container's, most often."""
    GATEWAY = "gateway"
    NEIGHBOUR = "neighbour"
    """Another machine on the link. Unlike all others, it is nobody's plan of the cluster's addresses that says so."""


def occupant(by: str) -> Occupant | None:
    """What a text of `by` says; None when it is none of ours."""
    word = by.partition(" ")[0]
    return next((entry for entry in Occupant if entry == word), None)


def digest(pools: Iterable[tuple[str, int]]) -> str:
    """Of the names and generations of all pools: equal where agent and operator go by the same pools."""
    text = "\n".join(f"{name} {generation}" for name, generation in sorted(pools))
    return sha256(text.encode()).hexdigest()[:16]
