"""Which addresses of pools are not free, because something that is not Sluice's has them.

```
  Nodes            addresses, pod ranges                          the whole pool gives nothing new
  ServiceCIDRs     the ranges of Services                         the same
  Services         status.loadBalancer; spec.externalIPs          the same; that address only
  API server       its endpoints, cluster-info, the operator's    the same
                   own way to it
  agents           pods, interfaces, gateways, ends of subnets;   the same; that address only
                   neighbours on a link
```

Invariants:
- An address that anybody else has is never newly assigned. What is assigned stays: taking it away would break the
  partner who let it in, and the agents refuse to answer for what is their node's own.
- What the plan of the cluster's addresses says refuses the whole pool: its author did not know the plan. What a tenant
  alone can bring about (`externalIPs`), or a stranger on a link, withholds that address and nothing else, so that
  nobody can stop a pool for others.
- `owner` names nothing that belongs to a tenant, since tenants may read pools; `named` does, for Events on the pool.
- Addresses are compared as numbers with the blocks of the pools, never by counting through a pool.
- Pure: no I/O, no clock.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from itertools import accumulate
from typing import Final, NamedTuple

from sluice_api.addresses import PoolAddresses
from sluice_api.occupied import Occupant, occupant
from sluice_operator.core.snapshot import NO_ADDRESSES, Address, Network, Service, Snapshot
from sluice_operator.core.words import names


@dataclass(frozen=True, slots=True)
class Taking:
    """Addresses first..last (numbers, within one block of a pool) that `owner` has; `whole`: it refuses the pool.

    `text` is the address, or the lowest shared one and the range that the owner has.
    """

    version: int
    first: int
    last: int
    text: str
    owner: str
    named: str
    whole: bool


@dataclass(frozen=True)
class Takings:
    """What others have of one pool: those that refuse the pool first, then in order of addresses."""

    entries: tuple[Taking, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __contains__(self, address: Address) -> bool:
        return self.of(address) is not None

    @property
    def whole(self) -> bool:
        """Whether the pool as a whole gives nothing new."""
        return bool(self.entries) and self.entries[0].whole

    def of(self, address: Address) -> Taking | None:
        """Who else has an address."""
        version, number = address.version, int(address)
        single = self._singles.get((version, number))
        if single is not None:
            return single
        return next((e for e in self._ranges if e.version == version and e.first <= number <= e.last), None)

    def count(self, version: int) -> int:
        """How many addresses of a family they are."""
        total, reached = 0, -1
        for first, last in sorted((entry.first, entry.last) for entry in self.entries if entry.version == version):
            total += max(0, last - max(first, reached + 1) + 1)
            reached = max(reached, last)
        return total

    def singles(self, version: int) -> frozenset[Address]:
        """Those of a family that somebody has one by one, not as part of a range."""
        make = IPv4Address if version == 4 else IPv6Address
        return frozenset(make(number) for family, number in self._singles if family == version)

    def message(self, pool: str, *, full: bool = False) -> str:
        """The refusal in words, at most a handful of addresses; `full` names what belongs to tenants."""
        listed = names(f"{entry.text} ({entry.named if full else entry.owner})" for entry in self.entries)
        rest = "" if self.whole else "; the other addresses of the pool are given as before"
        return (
            f"spec.addresses: not free: {listed}; add what is not free to spec.exclude of pool {pool}, "
            f"or free it where it is used{rest}"
        )

    @cached_property
    def _singles(self) -> Mapping[tuple[int, int], Taking]:
        return {(entry.version, entry.first): entry for entry in reversed(self.entries) if entry.first == entry.last}

    @cached_property
    def _ranges(self) -> tuple[Taking, ...]:
        return tuple(entry for entry in self.entries if entry.first != entry.last)


NOTHING: Final = Takings()


class _Owned(NamedTuple):
    """An address or a network, and whose it is."""

    thing: Address | Network
    owner: str
    named: str = ""
    whole: bool = True


def takings(pools: Mapping[str, PoolAddresses], snapshot: Snapshot) -> dict[str, Takings]:
    """By pool what of its addresses others have; pools of which nobody has anything are left out."""
    if not pools:
        return {}
    blocks = {version: _Blocks(pools, version) for version in (4, 6)}
    found: defaultdict[str, dict[tuple[int, int, int], Taking]] = defaultdict(dict)
    for owned in _owned(snapshot):
        for pool, taking in _shared(owned, blocks[owned.thing.version]):
            place = (taking.version, taking.first, taking.last)
            known = found[pool].get(place)
            if known is None or (taking.whole and not known.whole):
                found[pool][place] = taking
    return {
        pool: Takings(tuple(sorted(entries.values(), key=lambda e: (not e.whole, e.version, e.first, e.last))))
        for pool, entries in found.items()
    }


def _shared(owned: _Owned, blocks: "_Blocks") -> Iterator[tuple[str, Taking]]:
    thing, owner, named, whole = owned
    if isinstance(thing, IPv4Address | IPv6Address):
        for pool, number, _ in blocks.meet(int(thing), int(thing)):
            yield pool, Taking(thing.version, number, number, str(thing), owner, named or owner, whole)
        return
    for pool, first, last in blocks.meet(int(thing.network_address), int(thing.broadcast_address)):
        text = f"{type(thing.network_address)(first)} in {thing}"
        yield pool, Taking(thing.version, first, last, text, owner, named or owner, whole)


class _Blocks:
    """The blocks of all pools in one family, in order, so that most addresses are found to be in none at one look."""

    def __init__(self, pools: Mapping[str, PoolAddresses], version: int) -> None:
        self._entries = sorted((*block, pool) for pool, parsed in pools.items() for block in parsed.blocks(version))
        self._firsts = [first for first, _, _ in self._entries]
        self._reach = list(accumulate((last for _, last, _ in self._entries), max))
        """The highest last address of a block and of all before it: blocks of pools that overlap may, too."""

    def meet(self, first: int, last: int) -> Iterator[tuple[str, int, int]]:
        """Pool, and the addresses of one block of it that lie within first..last."""
        for place in range(bisect_left(self._reach, first), bisect_right(self._firsts, last)):
            block_first, block_last, pool = self._entries[place]
            if block_last >= first:
                yield pool, max(first, block_first), min(last, block_last)


def _owned(snapshot: Snapshot) -> Iterator[_Owned]:
    """Everything that anybody says to have, in an order that never changes."""
    for name, node in sorted(snapshot.cluster_nodes.items()):
        for address in node.addresses:
            yield _Owned(address, f"node {name}")
        for network in node.pod_cidrs:
            yield _Owned(network, f"pods of node {name}: spec.podCIDRs")
    for source, addresses in sorted(snapshot.api_server.items()):
        for address in addresses:
            yield _Owned(address, f"the API server: {source}")
    for name, networks in sorted(snapshot.service_cidrs.items()):
        for network in networks:
            yield _Owned(network, f"ServiceCIDR {name}")
    yield from _of_services(snapshot.services)
    for name, report in sorted(snapshot.nodes.items()):
        for address, by in report.occupied:
            whole = occupant(by) not in (Occupant.NEIGHBOUR, None)
            yield _Owned(address, f"{by}, seen by node {name}", whole=whole)


def _of_services(services: Mapping[tuple[str, str], Service]) -> Iterator[_Owned]:
    for key, service in sorted(entry for entry in services.items() if entry[1] != NO_ADDRESSES):
        full = f"Service {'/'.join(key)}"
        for address in service.ingress:
            yield _Owned(address, "a Service: status.loadBalancer", f"{full}: status.loadBalancer")
        for address in service.external:
            yield _Owned(address, "a Service: spec.externalIPs", f"{full}: spec.externalIPs", whole=False)
