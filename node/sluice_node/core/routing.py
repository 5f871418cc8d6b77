"""Links, routes, rules, neighbours and settings that the node must hold, as values that can be compared.

What is Sluice's is known by name: device `sluice0`, rule preferences 600 and 601, route table 7100, and everywhere
else protocol number 101. One rule and one route lead every marked packet into the tunnel; the MAC of its peer is put in
there by the ruleset. Invariants: pure; nothing is named here that Sluice does not own, but for the uplinks' settings
that answering for an egress IP needs, which are given back.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import Final, Literal

from sluice_api.names import PROXY_SOURCES_V4, PROXY_SOURCES_V6, TUNNEL_DEVICE
from sluice_node.core.desired import Address, DesiredNode, Network
from sluice_node.core.frames import PROBE_ADDRESS
from sluice_node.core.marks import PEER
from sluice_node.core.view import VERSIONS, Version

PROTOCOL: Final = 101
TABLE: Final = 7100
MAIN: Final = 254
LOCAL: Final = 255
PREFERENCES: Final = (600, 601)
TUNNEL_ADDRESS: Final = IPv4Address("169.254.101.1")
"""An address of scope host: a device with none fails even the loose reverse path check (fib_validate_source)."""
NEXT_HOP: Final[dict[Version, Address]] = {4: IPv4Address("169.254.101.2"), 6: IPv6Address("fe80::101:2")}
NEXT_HOP_MAC: Final = "02:00:00:00:01:01"
"""A placeholder: the ruleset writes the peer's MAC over it."""
_OVERHEAD: Final[dict[Version, int]] = {4: 50, 6: 70}
_DEFAULT: Final[dict[Version, Network]] = {4: ip_network("0.0.0.0/0"), 6: IPv6Network("::/0")}


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The VXLAN device; `fits` False is another device under its name, which has to go."""

    mac: str
    mtu: int
    local: Address
    up: bool = True
    fits: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """A route; `via` is a next hop taken to be on the link."""

    destination: Network
    device: str
    table: int = MAIN
    via: Address | None = None
    kind: Literal["unicast", "local", "other"] = "unicast"
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for packets with a peer in their mark; table None is `unreachable`; `fits` False is anything else."""

    version: Version
    preference: int
    table: int | None
    fits: bool = True


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour on the tunnel device."""

    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An address that this node answers ARP or ND for on an interface (a proxy neighbour)."""

    address: Address
    interface: str


@dataclass(frozen=True, slots=True)
class Plumbing:
    """All of it. `ends` says behind which address a peer's MAC is."""

    tunnel: Tunnel | None = None
    neighbours: frozenset[Neighbour] = frozenset()
    ends: frozenset[Neighbour] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    answers: frozenset[Answer] = frozenset()
    settings: frozenset[tuple[str, str]] = field(default=frozenset())
    """Path below /proc/sys/net -> value."""


def tunnel_mtu(underlay: Address, uplink_mtu: int) -> int:
    """What is left of the uplink's MTU inside VXLAN (RFC 7348) over the underlay's family."""
    return uplink_mtu - _OVERHEAD[underlay.version]


def plumbing(desired: DesiredNode, *, mtu: int, ipv6: bool) -> Plumbing:
    """What the node must hold; `mtu` is the tunnel's; without `ipv6` in the kernel nothing of that family."""
    versions = VERSIONS if ipv6 else VERSIONS[:1]
    announced = {a: dev for a, dev in desired.announced.items() if a.version in versions}
    routes = {Route(_DEFAULT[v], TUNNEL_DEVICE, table=TABLE, via=NEXT_HOP[v]) for v in versions}
    routes.add(Route(ip_network(PROBE_ADDRESS), TUNNEL_DEVICE, via=NEXT_HOP[4]))
    routes |= {Route(ip_network(address), TUNNEL_DEVICE) for address in announced}
    if desired.is_gateway:
        sources: dict[Version, Network] = {4: PROXY_SOURCES_V4, 6: PROXY_SOURCES_V6}
        routes |= {Route(sources[v], "lo", table=LOCAL, kind="local") for v in versions}
    return Plumbing(
        tunnel=Tunnel(desired.tunnel_mac, mtu, desired.tunnel_address),
        neighbours=frozenset(Neighbour(NEXT_HOP[v], NEXT_HOP_MAC) for v in versions),
        ends=frozenset(Neighbour(peer.address, peer.mac) for peer in desired.peers),
        routes=frozenset(routes),
        rules=frozenset(
            Rule(v, preference, table)
            for v in versions
            for preference, table in zip(PREFERENCES, (TABLE, None), strict=True)
        ),
        answers=frozenset(Answer(address, dev) for address, dev in announced.items()),
        settings=frozenset(_settings(desired, ipv6=ipv6).items()),
    )


def answered_by(path: str, desired: DesiredNode) -> frozenset[Address]:
    """The held egress IPs that are not answered for without a setting; none when it only makes answers quicker."""
    devices = {f"ipv6/conf/{device}/proxy_ndp": device for device in desired.announced.values()}
    return frozenset(a for a, device in desired.announced.items() if a.version == 6 and devices.get(path) == device)


def of_answers(path: str) -> bool:
    """Whether a setting serves answers on an uplink only, not the whole node."""
    return path.endswith(("/proxy_delay", "/proxy_ndp"))


RULE_MASK: Final = PEER
"""Rules match `not fwmark 0/RULE_MASK`: any packet that has a peer."""


def _settings(desired: DesiredNode, *, ipv6: bool) -> dict[str, str]:
    """Kernel settings (Documentation/networking/ip-sysctl.rst).

    The tunnel brings packets from anywhere, so its reverse path check is loose. An answer for an egress IP must not
    wait: proxy_delay's default costs up to 0.8 s.
    """
    settings = {
        f"ipv4/conf/{TUNNEL_DEVICE}/rp_filter": "2",
        f"ipv4/conf/{TUNNEL_DEVICE}/send_redirects": "0",
        f"ipv4/conf/{TUNNEL_DEVICE}/forwarding": "1",
    }
    if ipv6:
        settings[f"ipv6/conf/{TUNNEL_DEVICE}/disable_ipv6"] = "0"
        settings[f"ipv6/conf/{TUNNEL_DEVICE}/accept_ra"] = "0"
    if desired.is_gateway:
        settings["ipv4/tcp_fwmark_accept"] = "1"
    for address, device in desired.announced.items():
        if address.version == 4:
            settings[f"ipv4/neigh/{device}/proxy_delay"] = "0"
        elif ipv6:
            settings[f"ipv6/neigh/{device}/proxy_delay"] = "0"
            settings[f"ipv6/conf/{device}/proxy_ndp"] = "1"
    return settings
