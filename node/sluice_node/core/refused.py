"""Addresses that this node never takes, whatever the API server says.

An egress IP is answered for on the LAN, is dropped as a destination, and is what packets leave with. If it is really
somebody's that cuts him off; if he is this node, its gateway or the API server, nobody can say stop any more. So an
address is refused that is, as far as this node itself can see, taken. A refused claim counts as none: nothing of it
reaches the kernel, and what its policy selects is dropped in that family, as without a claim.

The operator refuses such addresses before they are assigned; this is for what it cannot see, has not seen yet, or what
others wrote. Invariants: pure; one question costs the same whatever the number of pods and nodes.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from sluice_api.names import PROXY_SOURCES_V6
from sluice_node.core.desired import Address, Network

if TYPE_CHECKING:
    from sluice_node.core.snapshot import Snapshot

_NOBODYS: Final[tuple[tuple[Network, str], ...]] = (
    (IPv4Network("0.0.0.0/8"), "it is of this network only, no host's"),
    (IPv4Network("127.0.0.0/8"), "it is loopback"),
    (IPv4Network("169.254.0.0/16"), "it is link-local"),
    (IPv4Network("224.0.0.0/4"), "it is multicast"),
    (IPv4Network("240.0.0.0/4"), "it is reserved or broadcast"),
    (IPv6Network("::/96"), "it is unspecified or loopback"),
    (IPv6Network("::ffff:0:0/96"), "it is an IPv4 address in IPv6 form"),
    (IPv6Network("fe80::/10"), "it is link-local"),
    (IPv6Network("ff00::/8"), "it is multicast"),
    (PROXY_SOURCES_V6, "it is an identity of Sluice's proxies"),
)
"""RFC 6890: what no host's address can be."""


class Taken:
    """Whose an address is, if it is somebody's."""

    def __init__(self, snapshot: "Snapshot") -> None:
        self._known = dict(_known(snapshot))
        self._ranges: dict[int, dict[int, dict[int, str]]] = {4: {}, 6: {}}
        for network, whose in (*_ranges(snapshot), *_NOBODYS):
            shift = network.max_prefixlen - network.prefixlen
            self._ranges[network.version].setdefault(shift, {})[int(network.network_address) >> shift] = whose

    def why(self, address: Address) -> str | None:
        """Why an address is not to be taken ("it is ..."); None when nothing speaks against it."""
        known = self._known.get(address)
        if known is not None:
            return known
        number = int(address)
        for shift, networks in self._ranges[address.version].items():
            whose = networks.get(number >> shift)
            if whose is not None:
                return whose
        return None


def of_nodes(snapshot: "Snapshot") -> frozenset[Address]:
    """The addresses of this node and of the others: never a pod's, whatever a pod's status says."""
    return frozenset(address for address, _ in _of_nodes(snapshot))


def _known(snapshot: "Snapshot") -> Iterator[tuple[Address, str]]:
    """Single addresses, the better reason later: the last one counts."""
    for interface, own in snapshot.links.addresses:
        network = own.network
        if network.max_prefixlen - network.prefixlen >= 2:
            if network.version == 4:
                yield network.network_address, f"it is the network address of {network} on {interface}"
                yield network.broadcast_address, f"it is the broadcast address of {network} on {interface}"
            else:
                yield network.network_address, f"it is the routers' anycast address of {network} on {interface}"
    yield from ((host, f"it is a host's behind {name} of this node") for host, name in snapshot.links.attached.items())
    for pod in snapshot.pods:
        if not pod.host_network and not pod.finished:
            yield from ((address, "it is the address of a pod on this node") for address in pod.addresses)
    yield from ((address, "it is the next hop of a route of this node") for address in snapshot.links.gateways)
    yield from _of_nodes(snapshot)
    for api in snapshot.api_endpoints:
        yield from ((address, "it is the API server's") for address in api.addresses)
    yield from ((address, "it is the API server's") for address in snapshot.api_server)


def _of_nodes(snapshot: "Snapshot") -> Iterator[tuple[Address, str]]:
    for other in snapshot.egress_nodes:
        ends = other.addresses if other.tunnel is None else (*other.addresses, other.tunnel.address)
        yield from ((address, f"it is an address of node {other.key.name}") for address in ends)
    yield from ((address, "it is an address of this node") for address in snapshot.node.addresses)
    yield from ((own.ip, f"it is an address of this node, on {name}") for name, own in snapshot.links.addresses)


def _ranges(snapshot: "Snapshot") -> Iterator[tuple[Network, str]]:
    for other in snapshot.egress_nodes:
        yield from ((cidr, f"it is within {cidr}, the pods of node {other.key.name}") for cidr in other.pod_cidrs)
    yield from ((cidr, f"it is within {cidr}, the pods of this node") for cidr in snapshot.node.pod_cidrs)
    for services in snapshot.service_cidrs:
        yield from ((cidr, f"it is within {cidr}, the range of Services") for cidr in services.cidrs)
