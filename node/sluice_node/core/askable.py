"""Which addresses a gateway asks its links for: those that its pools would give next, and what goes with them.

Invariants: pure; how many are asked for does not depend on how large a pool is, and an address that was found to be
somebody's takes no other's place.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from sluice_api.addresses import PoolAddresses
from sluice_api.candidates import candidates
from sluice_node.core.asking import decoys
from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.objects import Pool
from sluice_node.core.resolve import gateway_for
from sluice_node.core.snapshot import Snapshot
from sluice_node.core.steering import merged_ranges

AHEAD: Final = 16
"""Addresses of a pool and family that are asked for before they are given: those that come next."""
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
    claimed = {claim.address for claim in snapshot.egress_ips}
    mine = [snapshot.pools[name] for name in sorted(gateway_for(snapshot) & snapshot.pools.keys())]
    wanted: dict[Address, str] = {}
    ranges: dict[str, set[tuple[int, int]]] = {}
    for pool in mine:
        if pool.addresses is None or not pool.announces:
            continue
        for address in _next(pool, pool.addresses, claimed, occupied):
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
        if address not in wanted and address not in claimed
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
    pool: Pool, addresses: PoolAddresses, claimed: Collection[Address], occupied: Collection[Address]
) -> Iterator[Address]:
    """What the operator would give next, in its order, and what it passes over since somebody was found to have it."""
    for version, after in ((4, pool.last_ipv4), (6, pool.last_ipv6)):
        upcoming = candidates(addresses, version, after=after, taken=claimed)
        free = found = 0
        while free < AHEAD and found < _MOST_OCCUPIED and (address := next(upcoming, None)) is not None:
            free, found = (free, found + 1) if address in occupied else (free + 1, found)
            yield address
