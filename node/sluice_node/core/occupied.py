"""Which addresses of pools this node sees in use: the operator gives none of them to anybody.

Rules:
- What the node knows of itself (interfaces, ends of their subnets, next hops, its pods) and whom it saw on its links a
  short while ago. Only addresses that some pool may give are told, at most MOST_OCCUPIED.
- What comes and goes by itself, a pod or a neighbour, is remembered for a while: a report a second would be one for
  every node and for the operator to read.
- An egress IP that is claimed is answered for by its holder, so a neighbour of that address says nothing; nor does one
  with the MAC address of a node (it was an egress IP a moment ago) or of a router (which may answer for everything).
- An address is asked for in the pools, never a pool for its addresses.
Pure: no I/O; times are seconds of one monotonic clock.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sluice_api.addresses import PoolAddresses
from sluice_api.occupied import MOST_OCCUPIED, Occupant, digest
from sluice_api.timers import SIGHTING
from sluice_node.core.desired import Address
from sluice_node.core.snapshot import Snapshot

_OF_SERVICES: Final = "kube-ipvs0"
"""Where kube-proxy, in mode ipvs, puts the addresses of all Services, those that tenants chose (`externalIPs`) too:
not the node's own, and the operator sees the Services themselves."""
MOST_SIGHTINGS: Final = 4096
"""Addresses that are remembered; the kernel's own table has 1024 a family unless it was made larger."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the kernel's neighbour table: who was on a link, `age` seconds ago (0: it was written by hand)."""

    address: Address
    mac: str
    interface: str
    age: float


class Sightings:
    """What was seen a short while ago: address -> by what it is used, for SIGHTING seconds after it was seen last."""

    def __init__(self) -> None:
        self._seen: dict[Address, tuple[float, str]] = {}

    def note(self, address: Address, by: str, *, at: float) -> None:
        """Something was seen to use an address; `by` begins with one of `Occupant`."""
        known = self._seen.get(address)
        if known is None or known[0] <= at:
            self._seen[address] = (at, by)

    def forget(self, addresses: Iterable[Address]) -> None:
        """What was seen of these does not count."""
        for address in addresses:
            self._seen.pop(address, None)

    def current(self, now: float) -> Mapping[Address, str]:
        """What counts now; the rest is forgotten, and the oldest if there is too much."""
        fresh = [entry for entry in self._seen.items() if now - entry[1][0] < SIGHTING]
        self._seen = dict(sorted(fresh, key=lambda entry: entry[1])[-MOST_SIGHTINGS:])
        return {address: by for address, (_, by) in self._seen.items()}


def look(sightings: Sightings, snapshot: Snapshot, table: Collection[Neighbour], *, read_at: float, now: float) -> None:
    """Take in what is seen: the node's pods now, and its neighbour table as it was at `read_at`."""
    ours = frozenset(claim.address for claim in snapshot.egress_ips)
    sightings.forget(ours)
    nodes = frozenset(address for other in snapshot.egress_nodes for address in other.addresses)
    known = {entry.mac for entry in table if entry.address in nodes or entry.address in snapshot.links.gateways}
    for entry in table:
        if entry.mac not in known and entry.address not in ours and entry.age < SIGHTING:
            by = f"{Occupant.NEIGHBOUR} {entry.mac} on {entry.interface}"
            sightings.note(entry.address, by, at=read_at - entry.age)
    for pod in snapshot.pods:
        if not pod.host_network and not pod.finished:
            for address in pod.addresses:
                sightings.note(address, str(Occupant.POD), at=now)


def survey(snapshot: Snapshot, sightings: Mapping[Address, str]) -> dict[str, Any]:
    """`occupied` and `surveyed` of EgressNode.status."""
    pools = snapshot.pools.values()
    within = _Within(pool.addresses for pool in pools if pool.addresses is not None)
    found = {address: by for address, by in (*sightings.items(), *_own(snapshot)) if address in within}
    listed = sorted(found, key=lambda address: (address.version, int(address)))[:MOST_OCCUPIED]
    return {
        "occupied": [{"address": str(address), "by": found[address]} for address in listed],
        "surveyed": digest((pool.key.name, pool.generation) for pool in pools),
    }


def _own(snapshot: Snapshot) -> Iterator[tuple[Address, str]]:
    """What the node knows of itself, the better word later: the last one counts."""
    links = snapshot.links
    addresses = [(interface, own) for interface, own in links.addresses if interface != _OF_SERVICES]
    for interface, own in addresses:
        network = own.network
        if network.max_prefixlen - network.prefixlen >= 2:
            yield network.network_address, f"{Occupant.NETWORK} address of {network} on {interface}"
            if network.version == 4:
                yield network.broadcast_address, f"{Occupant.BROADCAST} address of {network} on {interface}"
    yield from ((host, f"{Occupant.HOST} behind {interface}") for host, interface in links.attached.items())
    yield from ((gateway, f"{Occupant.GATEWAY} of a route") for gateway in links.gateways)
    yield from ((own.ip, f"{Occupant.INTERFACE} {interface}") for interface, own in addresses)


class _Within:
    """The addresses of all pools, as blocks in order that do not overlap."""

    def __init__(self, pools: Iterable[PoolAddresses]) -> None:
        blocks = [(version, *block) for pool in pools for version in (4, 6) for block in pool.blocks(version)]
        self._blocks: list[tuple[int, int, int]] = []
        for version, first, last in sorted(blocks):
            if self._blocks and self._blocks[-1][0] == version and first <= self._blocks[-1][2] + 1:
                self._blocks[-1] = (version, self._blocks[-1][1], max(last, self._blocks[-1][2]))
            else:
                self._blocks.append((version, first, last))

    def __contains__(self, address: Address) -> bool:
        place = bisect_right(self._blocks, (address.version, int(address), 1 << 128)) - 1
        if place < 0:
            return False
        version, first, last = self._blocks[place]
        return version == address.version and first <= int(address) <= last
