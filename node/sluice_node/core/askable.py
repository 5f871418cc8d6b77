"""Which addresses a gateway asks its links for: those that its pools would give next, and what goes with them.

Invariants: pure; how many are asked for does not depend on how large a pool is, and an address that was found to be
somebody's takes no other's place.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from sluice_api.addresses import PoolAddresses
from sluice_node.core.asking import decoys
from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.resolve import gateway_for
from sluice_node.core.snapshot import Snapshot
from sluice_node.core.steering import merged_ranges

AHEAD: Final = 16
"""Addresses of a pool and family that are asked for before they are given: the lowest that nobody has claimed."""
MOST: Final = 1024
"""Addresses that one node asks for."""
_MOST_OCCUPIED: Final = 256
"""Addresses of a pool and family that somebody has, after which no further ones are looked at."""


@dataclass(frozen=True, slots=True)
class Askable:
    """What `Asking.follow` is to be told, and by interface the IPv4 ranges to listen to."""

    wanted: Mapping[Address, str] = field(default_factory=dict)
    decoys: Mapping[Address, str] = field(default_factory=dict)
    held: Mapping[Address, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)


def askable(snapshot: Snapshot, desired: DesiredNode, occupied: Collection[Address]) -> Askable:
    """What to ask for now; `occupied` are addresses that somebody was found to have."""
    claimed = {
        version: {int(claim.address) for claim in snapshot.egress_ips if claim.address.version == version}
        for version in (4, 6)
    }
    mine = [snapshot.pools[name] for name in sorted(gateway_for(snapshot) & snapshot.pools.keys())]
    wanted: dict[Address, str] = {}
    ranges: dict[str, set[tuple[int, int]]] = {}
    for pool in mine:
        if pool.addresses is None or not pool.announces:
            continue
        for address in _next(pool.addresses, claimed, occupied):
            interface = pool.interface or snapshot.links.towards(address)
            if interface is not None and len(wanted) < MOST and not snapshot.refuses(address):
                wanted[address] = interface
                ranges.setdefault(interface, set()).update(pool.addresses.blocks(4))
    held = dict(desired.announced)
    for address, interface in held.items():
        if address.version == 4:
            ranges.setdefault(interface, set()).add((int(address), int(address)))
    decoy = {
        address: interface
        for interface in set(wanted.values())
        for address in decoys(snapshot.links, interface, (a for a, name in wanted.items() if name == interface))
        if address not in wanted and int(address) not in claimed[address.version]
    }
    for address, interface in decoy.items():
        if address.version == 4:
            ranges[interface].add((int(address), int(address)))
    merged = {name: tuple(merged_ranges(iter(blocks))) for name, blocks in ranges.items()}
    return Askable(wanted, decoy, held, merged)


def first_held(snapshot: Snapshot, desired: DesiredNode) -> frozenset[Address]:
    """The egress IPs that this node answers for and nobody answered for before."""
    claims = ((address, snapshot.claims.get(address)) for address in desired.announced)
    return frozenset(address for address, claim in claims if claim is not None and claim.holder is None)


def _next(
    pool: PoolAddresses, claimed: Mapping[int, Collection[int]], occupied: Collection[Address]
) -> Iterator[Address]:
    """Counted in numbers, as a pool may have thousands of claimed addresses before the first free one."""
    for version, make in ((4, IPv4Address), (6, IPv6Address)):
        taken = claimed[version]
        numbers = (n for first, last in pool.blocks(version) for n in range(first, last + 1) if n not in taken)
        free = found = 0
        while free < AHEAD and found < _MOST_OCCUPIED and (number := next(numbers, None)) is not None:
            address = make(number)
            free, found = (free, found + 1) if address in occupied else (free + 1, found)
            yield address
