"""A DesiredNode seen by address family and slice size: the shape in which the rules need it.

Invariants: pure; every list is in a stable order, so that equal input gives equal text.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final, Literal

from sluice_api.names import proxy_source
from sluice_node.core.desired import Address, DesiredNode, Network, Peer, PolicyProgram, SliceOwner
from sluice_node.core.marks import peer_mark

Version = Literal[4, 6]
VERSIONS: Final[tuple[Version, Version]] = (4, 6)
IP: Final[Mapping[Version, str]] = {4: "ip", 6: "ip6"}


def networks_text(networks: Iterable[Network], version: Version) -> list[str]:
    """The networks of one family as nft elements: merged, since nft refuses overlaps; single addresses bare."""
    if version == 4:
        merged: list[Network] = list(collapse_addresses(n for n in networks if isinstance(n, IPv4Network)))
    else:
        merged = list(collapse_addresses(n for n in networks if isinstance(n, IPv6Network)))
    return [str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n) for n in merged]


@dataclass(frozen=True)
class View:
    """`numbers` gives each peer its number in packet marks; `tunnel_mtu` is the tunnel device's, in bytes; `retired`
    are former egress IPs that connections may still bear, so that nothing may leave with them."""

    desired: DesiredNode
    numbers: Mapping[str, int]
    tunnel_mtu: int
    retired: frozenset[Address] = frozenset()

    @cached_property
    def peers(self) -> Mapping[str, Peer]:
        return {peer.node: peer for peer in self.desired.peers}

    @cached_property
    def policies(self) -> tuple[PolicyProgram, ...]:
        return tuple(sorted(self.desired.policies, key=lambda policy: policy.policy_id))

    @cached_property
    def pools(self) -> tuple[str, ...]:
        return tuple(sorted({policy.pool for policy in self.policies}))

    @cached_property
    def egress_ips(self) -> tuple[Address, ...]:
        """Every egress IP this node knows of."""
        known = set(self.slices) | self.retired
        known.update(address for policy in self.policies for address in policy.egress_ips)
        return tuple(sorted(known, key=lambda address: (address.version, int(address))))

    @cached_property
    def slices(self) -> Mapping[Address, list[SliceOwner]]:
        """The slices of each egress IP."""
        groups: dict[Address, list[SliceOwner]] = {}
        for owner in self.desired.slices:
            groups.setdefault(owner.egress_ip, []).append(owner)
        return groups

    @cached_property
    def size_of(self) -> Mapping[Address, int]:
        """Egress IP -> the size of its slices: the smallest, should they differ (a larger one is then several)."""
        return {address: min(owner.size for owner in owners) for address, owners in self.slices.items()}

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.size_of.values())))

    def own_ranges(self, egress_ip: Address) -> list[tuple[int, int]]:
        """First and last ports of this node's slices of an egress IP; adjacent slices are one range."""
        ranges: list[tuple[int, int]] = []
        mine = [owner for owner in self.slices.get(egress_ip, ()) if owner.node == self.desired.node]
        for owner in sorted(mine, key=lambda o: o.first):
            if ranges and ranges[-1][1] + 1 == owner.first:
                ranges[-1] = (ranges[-1][0], owner.first + owner.size - 1)
            else:
                ranges.append((owner.first, owner.first + owner.size - 1))
        return ranges

    @cached_property
    def marks(self) -> Mapping[str, int]:
        """Peer -> the peer field of packets to it, in order of name."""
        return {node: peer_mark(self.numbers[node]) for node in sorted(self.peers)}

    def sources(self) -> Iterator[tuple[Address, int | None]]:
        """Addresses of this node's selected pods -> policy id; None where nothing may leave the cluster."""
        known = {policy.policy_id for policy in self.policies}
        blocked = self.desired.blocked_pods
        for pod, policy_id in sorted(self.desired.pods.items(), key=lambda item: (item[0].version, int(item[0]))):
            yield pod, (policy_id if policy_id in known and pod not in blocked else None)
        for pod in sorted(blocked - self.desired.pods.keys(), key=lambda a: (a.version, int(a))):
            yield pod, None

    def identities(self) -> Iterator[tuple[Address, int]]:
        """The proxy's source addresses -> policy id; none on a node that is no gateway."""
        if self.desired.is_gateway:
            for policy in self.policies:
                for version in VERSIONS:
                    yield proxy_source(policy.policy_id, version), policy.policy_id

    def egress_ip(self, policy: PolicyProgram, version: Version) -> Address | None:
        return next((a for a in policy.egress_ips if a.version == version), None)
