"""What the kernel of one node must do, as one immutable value.

The agent computes a DesiredNode from the objects of the API and from what its probes say; the rules, routes and
neighbours of the node follow from it and from nothing else. Comparing two of them tells what to change.

Invariants: no I/O, no clock; addresses are `ipaddress` objects; a value that can be built can be programmed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node's end of the tunnel: where its VXLAN packets come from, and the MAC of its tunnel device."""

    node: str
    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports `first` to `last`, both included; protocol None means any protocol (then the ports are not looked at)."""

    protocol: Literal["TCP", "UDP"]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Destination:
    """A packet matches when its destination is in a CIDR, in none of `excluded`, and (if any) in one of the ports."""

    cidrs: tuple[Network, ...]
    excluded: tuple[Network, ...] = ()
    ports: tuple[PortRange, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyProgram:
    """One policy as this node must treat it.

    `egress_ips` holds at most one address a family; a family without one is dropped, and so is everything when the
    policy has no id yet (`policy_id` 0 is never programmed: such a policy has `pending=True`).
    `destinations` None means everything outside the cluster.
    """

    policy_id: int
    pool: str
    egress_ips: tuple[Address, ...]
    destinations: tuple[Destination, ...] | None = None
    otherwise: Literal["NodeAddress", "Drop"] = "NodeAddress"


@dataclass(frozen=True, slots=True)
class SliceOwner:
    """Ports `first` to `first + size - 1` of an egress IP belong to `node`; size, a power of two, divides first."""

    egress_ip: Address
    first: int
    size: int
    node: str


@dataclass(frozen=True, slots=True)
class DesiredNode:
    """Everything of Sluice on one node."""

    node: str
    uplinks: tuple[str, ...]
    """Interfaces that lead out of the node; the first holds the tunnel's underlay address."""
    tunnel_address: Address
    tunnel_mac: str
    peers: tuple[Peer, ...] = ()
    excluded: frozenset[Network] = frozenset()
    """Destinations that are never redirected: pods, services, nodes, link-local, multicast."""
    policies: tuple[PolicyProgram, ...] = ()
    pods: Mapping[Address, int] = field(default_factory=dict)
    """Addresses of this node's selected pods -> policy id."""
    blocked_pods: frozenset[Address] = frozenset()
    """Pods selected by a policy that has no id or address yet: nothing of theirs may leave the cluster."""
    live_gateways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pool -> names of its live gateway nodes, in a stable order; may contain this node."""
    slices: tuple[SliceOwner, ...] = ()
    proxy_endpoints: Mapping[tuple[Address, int], str] = field(default_factory=dict)
    """(gateway node address, proxy port) -> gateway node."""
    is_gateway: bool = False
    """This node is a gateway of some pool: proxy sources are local, accepted sockets inherit the mark."""
    announced: Mapping[Address, str] = field(default_factory=dict)
    """Egress IPs that this node holds -> interface on which it answers ARP and ND for them."""
    pool_ranges: frozenset[Network] = frozenset()
    """What the addresses of all pools are in: a connection that bears one of them without a right to it is stale."""
    own_addresses: frozenset[Address] = frozenset()
    """Addresses on this node's interfaces, which connections bear that Sluice has nothing to do with."""
