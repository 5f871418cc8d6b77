"""The address and name plan of a local cluster: which host has which addresses, routes and pod ranges.

Pure: everything follows from ClusterOptions and the number of the link to the machine. The same numbers hold in every
cluster (they live in namespaces of their own); only what the machine itself sees carries the cluster's name.
Invariant: no address of the plan is routed to the machine's uplink; all are private, benchmark (RFC 2544) or
documentation (RFC 5737, RFC 3849) ranges.
Must not import anything that does I/O.
"""

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

from testbed.cluster import ClusterError, ClusterOptions

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

LAN = (ip_network("198.18.0.0/24"), ip_network("fd00:18::/64"))
TRANSFER = (ip_network("192.0.2.0/24"), ip_network("2001:db8:2::/64"))
PODS = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/56"))
SERVICES = (ip_network("10.96.0.0/16"), ip_network("fd00:10:96::/112"))
EGRESS = (ip_network("198.51.100.0/24"), ip_network("2001:db8:100::/64"))
OUTSIDE_SERVICE = (ip_address("203.0.113.10"), ip_address("2001:db8:113::10"))
FAR_SERVICE = (ip_address("203.0.113.20"), ip_address("2001:db8:114::20"))
CONTROL_PLANE, OUTSIDE, FAR = "cp", "outside", "far"
POD_MTU = 1450
FAR_MTU = 1300
TEST_DOMAIN = "partner.example"
CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
MAX_NODES = 60
LINKS = 64
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Route:
    """A route of one host; `via` None: the network is on the link `device` itself."""

    to: Network
    via: Address | None
    device: str


@dataclass(frozen=True, slots=True)
class Port:
    """A network device of a host, plugged into a bridge of the LAN namespace."""

    device: str
    bridge: str
    plug: str
    addresses: tuple[Interface, ...]
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host: its ports, its extra addresses on lo, its routes."""

    name: str
    ports: tuple[Port, ...]
    loopback: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    forwards: bool = False

    @property
    def lan(self) -> tuple[Address, ...]:
        """Addresses of the first port."""
        return tuple(i.ip for i in self.ports[0].addresses)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about one cluster that can be said before it runs. `link` numbers its /30 to the machine."""

    options: ClusterOptions
    link: int = 0

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return tuple(f"n{i}" for i in range(1, self.options.nodes + 1))

    @property
    def outside_hosts(self) -> tuple[str, ...]:
        """Hosts that are no part of the cluster."""
        return (OUTSIDE, FAR)

    @property
    def hosts(self) -> tuple[HostPlan, ...]:
        """Every host, in the order they start."""
        return tuple(map(self.host, (OUTSIDE, FAR, CONTROL_PLANE, *self.nodes)))

    def host(self, name: str) -> HostPlan:
        """One host. Raises ClusterError for an unknown name."""
        special = {OUTSIDE: self._outside, FAR: self._far, CONTROL_PLANE: self._control_plane}
        if name in special:
            return special[name]()
        if name not in self.nodes:
            raise ClusterError(f"no host {name!r}", f"there are {', '.join((*special, *self.nodes))}")
        return self._node(name)

    def node_index(self, node: str) -> int:
        """1-based number of a node. Raises ClusterError for an unknown name."""
        if node not in self.nodes:
            raise ClusterError(f"no node {node!r}", f"there are {', '.join(self.nodes)}")
        return int(node[1:])

    def pod_ranges(self, node: str) -> tuple[Network, ...]:
        """Node.spec.podCIDRs: 10.244.<i>.0/24 and fd00:10:244:<i>::/64."""
        i = self.node_index(node)
        # in IPv6 the hexadecimal digits read like the decimal number
        return self._families(ip_network(f"10.244.{i}.0/24"), ip_network(f"fd00:10:244:{i}::/64"))

    @property
    def pods(self) -> tuple[Network, ...]:
        """All pod ranges together."""
        return self._families(*PODS)

    @property
    def services(self) -> tuple[Network, ...]:
        """Ranges of Service addresses."""
        return self._families(*SERVICES)

    @property
    def dns(self) -> tuple[Address, ...]:
        """Addresses of the cluster's DNS Service: the tenth of each range, as everywhere."""
        return tuple(net[10] for net in self.services)

    @property
    def api_service(self) -> tuple[Address, ...]:
        """Addresses of the `kubernetes` Service: the first of each range."""
        return tuple(net[1] for net in self.services)

    @property
    def api_address(self) -> Address:
        """Where nodes and pods reach the API server."""
        return self.host(CONTROL_PLANE).lan[0]

    @property
    def link_addresses(self) -> tuple[IPv4Interface, IPv4Interface]:
        """The machine's end and the control plane's end of the link between them."""
        base = IPv4Address("169.254.77.0") + 4 * self.link
        return IPv4Interface((base + 1, 30)), IPv4Interface((base + 2, 30))

    @property
    def link_device(self) -> str:
        """Name of the link in the machine's own namespace."""
        return f"sl-{self.options.name}"

    @property
    def cgroup(self) -> str:
        """Path of the cluster's cgroups below each hierarchy."""
        return f"sluice-testbed/{self.options.name}"

    def netns(self, host: str) -> str:
        """Name of a host's network namespace."""
        return f"{netns_prefix(self.options.name)}{host}"

    def addresses_of(self, host: str) -> tuple[Address, ...]:
        """What others reach the host at."""
        plan = self.host(host)
        return plan.loopback or plan.lan

    def _families(self, *networks: Network) -> tuple[Network, ...]:
        return tuple(n for n in networks if n.version in self.versions)

    @property
    def versions(self) -> tuple[int, ...]:
        """IP versions in use."""
        return {"dual": (4, 6), "ipv4": (4,), "ipv6": (6,)}[self.options.ip_family]

    def _addresses(self, *addresses: Address) -> tuple[Address, ...]:
        return tuple(a for a in addresses if a.version in self.versions)

    def _interfaces(self, networks: tuple[Network, ...], number: int) -> tuple[Interface, ...]:
        # the host part reads the same in both families: .200 and ::200
        return tuple(
            ip_interface((n[number] if n.version == 4 else n[int(str(number), 16)], n.prefixlen))
            for n in self._families(*networks)
        )

    def _port(self, name: str, number: int) -> Port:
        return Port("eth0", "lan0", name, self._interfaces(LAN, number))

    def _pod_routes(self, *, besides: str = "") -> tuple[Route, ...]:
        routes = []
        for node in self.nodes:
            if node == besides:
                continue
            gateways = {i.version: i.ip for i in self._interfaces(LAN, 10 + self.node_index(node))}
            routes += [Route(pods, gateways[pods.version], "eth0") for pods in self.pod_ranges(node)]
        return tuple(routes)

    def _default(self, gateways: tuple[Interface, ...]) -> tuple[Route, ...]:
        everything = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
        return tuple(Route(everything[g.version], g.ip, "eth0") for g in gateways)

    def _node(self, node: str) -> HostPlan:
        port = self._port(node, 10 + self.node_index(node))
        routes = self._pod_routes(besides=node) + self._default(self._interfaces(LAN, 200))
        return HostPlan(node, (port,), routes=routes, forwards=True)

    def _control_plane(self) -> HostPlan:
        # no default route: the control plane talks to nodes and pods only
        return HostPlan(CONTROL_PLANE, (self._port(CONTROL_PLANE, 10),), routes=self._pod_routes())

    def _outside(self) -> HostPlan:
        far_link = Port("eth1", "far0", f"{OUTSIDE}-far", self._interfaces(TRANSFER, 1), FAR_MTU)
        far = {i.version: i.ip for i in self._interfaces(TRANSFER, 2)}
        # egress IPs are resolved by ARP and neighbour discovery, as on any router's own link
        routes = tuple(Route(net, None, "eth0") for net in self._families(*EGRESS))
        routes += tuple(Route(ip_network(a), far[a.version], "eth1") for a in self._addresses(*FAR_SERVICE))
        ports = (self._port(OUTSIDE, 200), far_link)
        return HostPlan(OUTSIDE, ports, self._addresses(*OUTSIDE_SERVICE), routes, forwards=True)

    def _far(self) -> HostPlan:
        port = Port("eth0", "far0", FAR, self._interfaces(TRANSFER, 2), FAR_MTU)
        routes = self._default(self._interfaces(TRANSFER, 1))
        return HostPlan(FAR, (port,), self._addresses(*FAR_SERVICE), routes)


def netns_prefix(name: str) -> str:
    """What the names of a cluster's network namespaces begin with; no name is a prefix of another's (no dots in it)."""
    return f"sluice.{name}."


def checked(options: ClusterOptions) -> ClusterOptions:
    """The options, or ClusterError when they cannot be: names end up in device names of at most 15 characters."""
    if not NAME.fullmatch(options.name):
        raise ClusterError(f"cluster name {options.name!r}", "use 1 to 12 lower-case letters, digits and inner dashes")
    if not 1 <= options.nodes <= MAX_NODES:
        raise ClusterError(f"{options.nodes} nodes", f"use 1 to {MAX_NODES}")
    return options
