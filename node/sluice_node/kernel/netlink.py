"""Links, routes, rules and neighbours through rtnetlink: read what is there, change what differs.

Invariants: reading gives the same values that `core.routing` wants, so that comparing them is the whole of finding out
what to do; what bears our names is ours to adopt or replace, and nothing else is touched. Blocking, and not for the
thread of a running event loop (pyroute2 runs one of its own).
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sluice_api.names import TUNNEL_DEVICE, TUNNEL_PORT
from sluice_node.core.routing import (
    PREFERENCES,
    PROTOCOL,
    RULE_MASK,
    TABLE,
    TUNNEL_ADDRESS,
    Answer,
    Neighbour,
    Plumbing,
    Route,
    Rule,
    Tunnel,
)
from sluice_node.core.view import Version
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.raw import DUMP, NETLINK_ROUTE, REQUEST, RawNetlink, attributes

_FAMILY: Final[Mapping[Version, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_VERSION: Final[Mapping[int, Version]] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_VXLAN_ID: Final = 101
_PERMANENT, _NO_ARP = 0x80, 0x40
_SELF, _PROXY = 0x02, 0x08
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_GET_NEIGHBOUR: Final = 30
_OF_ADDRESS, _OF_PROTOCOL = 1, 12
_INVERT: Final = 2
_UP: Final = 1
_TO_TABLE, _UNREACHABLE = 1, 7
_ROUTE_KINDS: Final = {1: "unicast", 2: "local"}
_SCOPE_LINK, _SCOPE_HOST = 253, 254


class Netlink:
    """One rtnetlink socket, open for one apply or check."""

    def __init__(self) -> None:
        self._route = IPRoute()
        self._raw = RawNetlink(NETLINK_ROUTE)
        self._names: dict[int, str] = {}

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._route.close()
        self._raw.close()

    def mtu(self, interface: str) -> int:
        """The MTU of an interface in bytes; raises KernelError when it is not there."""
        link = self._link(interface)
        if link is None:
            raise KernelError(f"interface {interface} is not there")
        return int(link.get("mtu"))

    def mac(self, interface: str) -> str:
        """The MAC of an interface; raises KernelError when it is not there."""
        link = self._link(interface)
        if link is None:
            raise KernelError(f"interface {interface} is not there")
        return str(link.get("address"))

    def index(self, interface: str) -> int | None:
        """The index of an interface, None when it is not there."""
        link = self._link(interface)
        return None if link is None else int(link["index"])

    def _link(self, interface: str) -> Any:
        try:
            return next(iter(self._route.link("get", ifname=interface)))
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise

    def read(self) -> Plumbing:
        """What of ours is there, good or not; settings are not read here."""
        link = self._link(TUNNEL_DEVICE)
        index = None if link is None else int(link["index"])
        return Plumbing(
            tunnel=None if link is None else _tunnel(link),
            neighbours=frozenset() if index is None else frozenset(self._neighbours(index)),
            ends=frozenset() if index is None else frozenset(self._ends(index)),
            routes=frozenset(self._routes()),
            rules=frozenset(self._rules()),
            answers=frozenset(self._answers()),
        )

    def _neighbours(self, index: int) -> Iterable[Neighbour]:
        for family in _VERSION:
            for entry in self._route.neigh("dump", family=family, ifindex=index):
                if entry["state"] & _PERMANENT and entry.get("lladdr"):
                    yield Neighbour(ip_address(entry.get("dst")), entry.get("lladdr"))

    def _ends(self, index: int) -> Iterable[Neighbour]:
        for entry in self._route.fdb("dump", ifindex=index):
            if entry.get("dst") and entry["ifindex"] == index:
                yield Neighbour(ip_address(entry.get("dst")), entry.get("lladdr"))

    def _routes(self) -> Iterable[Route]:
        for family in _VERSION:
            for entry in self._route.get_routes(family=family):
                if entry["family"] != family:
                    continue
                table = entry.get("table") or entry["table"]
                if entry["proto"] == PROTOCOL or table == TABLE:
                    yield self._as_route(entry, family=family, table=table)

    def _as_route(self, entry: Any, *, family: int, table: int) -> Route:
        default = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104
        via = entry.get("gateway")
        return Route(
            destination=ip_network(f"{entry.get('dst') or default}/{entry['dst_len']}"),
            device=self._name(entry.get("oif")),
            table=table,
            via=ip_address(via) if via else None,
            kind=_ROUTE_KINDS.get(entry["type"], "other"),  # type: ignore[arg-type]
            protocol=entry["proto"],
        )

    def _name(self, index: int | None) -> str:
        if index is None:
            return ""
        if index not in self._names:
            link = next(iter(self._route.link("get", index=index)), None)
            self._names[index] = "" if link is None else str(link.get("ifname"))
        return self._names[index]

    def _rules(self) -> Iterable[Rule]:
        for family, version in _VERSION.items():
            for entry in self._route.get_rules(family=family):
                preference = entry.get("priority") or 0
                if preference in PREFERENCES or entry.get("protocol") == PROTOCOL:
                    yield _as_rule(entry, version=version, preference=preference)

    def _answers(self) -> Iterable[Answer]:
        for family in _VERSION:
            request = _NEIGHBOUR.pack(family, 0, 0, _PROXY, 0)
            for message in self._raw.ask(_GET_NEIGHBOUR, flags=REQUEST | DUMP, body=request):
                _, index, _, flags, _ = _NEIGHBOUR.unpack_from(message)
                parts = attributes(message[_NEIGHBOUR.size :])
                if flags & _PROXY and parts.get(_OF_PROTOCOL) == bytes([PROTOCOL]):
                    yield Answer(ip_address(parts[_OF_ADDRESS]), self._name(index))

    def make_tunnel(self, wanted: Tunnel, held: Tunnel | None) -> None:
        """Make the device what it should be; one that cannot be changed into it is replaced. It is left down."""
        if held is not None and (not held.fits or held.local != wanted.local):
            self.remove_tunnel()
            held = None
        if held is None:
            local = {"vxlan_local" if wanted.local.version == 4 else "vxlan_local6": str(wanted.local)}
            self._do(
                f"make device {TUNNEL_DEVICE}",
                lambda: self._route.link(
                    "add",
                    ifname=TUNNEL_DEVICE,
                    kind="vxlan",
                    vxlan_id=_VXLAN_ID,
                    vxlan_port=TUNNEL_PORT,
                    vxlan_learning=0,
                    vxlan_gbp=True,
                    vxlan_udp_csum=0,
                    address=wanted.mac,
                    mtu=wanted.mtu,
                    **local,
                ),
            )
            index = self.index(TUNNEL_DEVICE)
            no_address = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]]}
            self._do(
                "keep the tunnel without IPv6 addresses",
                lambda: self._route.link("set", index=index, IFLA_AF_SPEC=no_address),
            )
        elif (held.mac, held.mtu) != (wanted.mac, wanted.mtu):
            index = self.index(TUNNEL_DEVICE)
            self._do(
                f"change device {TUNNEL_DEVICE}",
                lambda: self._route.link("set", index=index, address=wanted.mac, mtu=wanted.mtu),
            )

    def raise_tunnel(self) -> None:
        """Bring the device up, with the one address that it needs."""
        index = self.index(TUNNEL_DEVICE)
        self._do("bring the tunnel up", lambda: self._route.link("set", index=index, state="up"))
        self._do(
            f"give {TUNNEL_DEVICE} its address",
            lambda: self._route.addr(
                "replace", index=index, address=str(TUNNEL_ADDRESS), prefixlen=32, scope=_SCOPE_HOST
            ),
        )

    def remove_tunnel(self) -> None:
        """Take away whatever device has our name."""
        index = self.index(TUNNEL_DEVICE)
        if index is not None:
            self._do(f"remove device {TUNNEL_DEVICE}", lambda: self._route.link("del", index=index))

    def neighbour(self, verb: str, item: Neighbour) -> None:
        """`replace` or `del` a permanent neighbour on the tunnel."""
        self._do(
            f"{verb} neighbour {item.address}",
            lambda: self._route.neigh(
                verb,
                family=_FAMILY[item.address.version],
                ifindex=self.index(TUNNEL_DEVICE),
                dst=str(item.address),
                lladdr=item.mac,
                state=_PERMANENT,
            ),
        )

    def end(self, verb: str, item: Neighbour) -> None:
        """`replace` or `del` the address behind which a peer's MAC is."""
        self._do(
            f"{verb} peer {item.mac} at {item.address}",
            lambda: self._route.fdb(
                verb,
                ifindex=self.index(TUNNEL_DEVICE),
                lladdr=item.mac,
                dst=str(item.address),
                state=_PERMANENT | _NO_ARP,
                flags=_SELF,
            ),
        )

    def route(self, verb: str, item: Route) -> None:
        """`replace` or `del` a route."""
        arguments: dict[str, Any] = {
            "family": _FAMILY[item.destination.version],
            "dst": str(item.destination),
            "table": item.table,
            "proto": item.protocol,
        }
        if item.device:
            arguments["oif"] = self.index(item.device)
        if item.kind == "local":
            arguments |= {"type": "local", "scope": _SCOPE_HOST}
        elif item.via is not None:
            arguments |= {"gateway": str(item.via), "flags": ["onlink"]}
        elif item.destination.version == 4:
            arguments["scope"] = _SCOPE_LINK
        if verb == "del":
            arguments = {key: value for key, value in arguments.items() if key not in ("scope", "flags")}
            if item.kind == "other":
                arguments.pop("oif", None)
        self._do(f"{verb} route {item.destination} table {item.table}", lambda: self._route.route(verb, **arguments))

    def rule(self, item: Rule) -> None:
        """Add a rule."""
        target: dict[str, Any] = {"action": "unreachable"} if item.table is None else {"table": item.table}
        self._do(
            f"add rule {item.preference}",
            lambda: self._route.rule(
                "add",
                family=_FAMILY[item.version],
                priority=item.preference,
                fwmark=0,
                fwmask=RULE_MASK,
                flags=_INVERT,
                protocol=PROTOCOL,
                **target,
            ),
        )

    def clear_rules(self, version: Version, preference: int) -> None:
        """Delete every rule with this preference, whatever it says."""
        while True:
            try:
                self._route.rule("del", family=_FAMILY[version], priority=preference)
            except NetlinkError as error:
                if error.code == errno.ENOENT:
                    return
                raise KernelError(f"cannot delete rule {preference}: {error.args[-1]}") from error

    def answer(self, verb: str, item: Answer) -> None:
        """`replace` or `del` a proxy neighbour entry."""
        index = self.index(item.interface)
        if index is None and verb == "del":
            return
        self._do(
            f"{verb} proxy neighbour {item.address} on {item.interface}",
            lambda: self._route.neigh(
                verb,
                family=_FAMILY[item.address.version],
                ifindex=index,
                dst=str(item.address),
                flags=_PROXY,
                NDA_PROTOCOL=PROTOCOL,
            ),
        )

    def _do(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except NetlinkError as error:
            raise KernelError(f"cannot {what}: {error.args[-1]}") from error


def _tunnel(link: Any) -> Tunnel:
    data = link.get(("linkinfo", "data"))
    kind = link.get(("linkinfo", "kind"))
    local = (data.get("vxlan_local") or data.get("vxlan_local6")) if kind == "vxlan" and data is not None else None
    fits = (
        local is not None
        and data.get("vxlan_id") == _VXLAN_ID
        and data.get("vxlan_port") == TUNNEL_PORT
        and bool(data.get("vxlan_gbp"))
        and not data.get("vxlan_learning")
    )
    return Tunnel(
        mac=str(link.get("address")),
        mtu=int(link.get("mtu")),
        local=ip_address(local) if local else TUNNEL_ADDRESS,
        up=bool(link["flags"] & _UP),
        fits=fits,
    )


def _as_rule(entry: Any, *, version: Version, preference: int) -> Rule:
    table = entry.get("table") if entry["action"] == _TO_TABLE else None
    fits = (
        preference in PREFERENCES
        and entry.get("protocol") == PROTOCOL
        and entry["flags"] == _INVERT
        and not entry.get("fwmark")
        and entry.get("fwmask") == RULE_MASK
        and entry["action"] in (_TO_TABLE, _UNREACHABLE)
        and entry["src_len"] == entry["dst_len"] == entry["tos"] == 0
        and not entry.get("iifname")
        and not entry.get("oifname")
    )
    return Rule(version, preference, table, fits=fits)
