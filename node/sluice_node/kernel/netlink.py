"""Links, routes, rules and neighbours through rtnetlink: read what is there, change what differs.

Invariants: reading gives the same values that `core.routing` wants, so that comparing them is the whole of finding out
what to do; what bears our names is ours to adopt or replace, and nothing else is touched. Dumps are filtered by the
kernel, so that reading costs the same on a node with a full routing table. Numbers are those of linux/rtnetlink.h,
if_link.h, neighbour.h and fib_rules.h.
"""

import errno
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final, Literal

from sluice_api.names import TUNNEL_DEVICE, TUNNEL_PORT
from sluice_node.core.desired import Address
from sluice_node.core.frames import mac_bytes
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
from sluice_node.kernel.raw import (
    ACK,
    CREATE,
    DUMP,
    NESTED,
    NETLINK_ROUTE,
    REPLACE,
    REQUEST,
    RawNetlink,
    attribute,
    attributes,
    number,
)

Verb = Literal["replace", "del"]

_FAMILY: Final[Mapping[int, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_AF_BRIDGE: Final = 7
_NEW_LINK, _DEL_LINK, _GET_LINK, _NEW_ADDRESS = 16, 17, 18, 20
_NEW_ROUTE, _DEL_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_NEIGHBOUR, _DEL_NEIGHBOUR, _GET_NEIGHBOUR = 28, 29, 30
_NEW_RULE, _DEL_RULE, _GET_RULE = 32, 33, 34

_LINK: Final = struct.Struct("=BxHiII")
_LINK_MAC, _LINK_NAME, _LINK_MTU, _LINK_INFO, _LINK_FAMILIES = 1, 3, 4, 18, 26
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT, _VXLAN_LOCAL6, _VXLAN_CHECKSUM, _VXLAN_GBP = (
    1,
    4,
    7,
    15,
    17,
    18,
    23,
)
_UP: Final = 1
_NETWORK_ID: Final = 101
_NO_LINK_LOCAL: Final = attribute(
    _LINK_FAMILIES | NESTED, attribute(socket.AF_INET6 | NESTED, attribute(8, bytes([1])))
)
"""IFLA_INET6_ADDR_GEN_MODE none: the tunnel needs no IPv6 address, and so takes part in no neighbour discovery."""

_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_TO, _DEVICE, _VIA, _IN_TABLE = 1, 4, 5, 15
_ON_LINK: Final = 4
_KINDS: Final[Mapping[str, int]] = {"unicast": 1, "local": 2, "other": 0}
_SCOPE_LINK, _SCOPE_HOST, _SCOPE_NOWHERE = 253, 254, 255

_RULE: Final = struct.Struct("=BBBBBBBBI")
_RULE_INPUT, _RULE_PREFERENCE, _RULE_MARK, _RULE_TABLE = 3, 6, 10, 15
_RULE_MASK_OF, _RULE_OUTPUT, _RULE_PROTOCOL = 16, 17, 21
_LOOKUP, _UNREACHABLE, _INVERTED = 1, 7, 2

_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_OF, _MAC, _ON_INDEX, _OF_PROTOCOL = 1, 2, 8, 12
_PERMANENT, _NO_ARP = 0x80, 0x40
_SELF, _PROXY = 0x02, 0x08


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel describes it."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    kind: str
    data: Mapping[int, bytes]


class Netlink:
    """An rtnetlink socket, in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._netlink = RawNetlink(NETLINK_ROUTE, strict=True)

    def close(self) -> None:
        self._netlink.close()

    def link(self, interface: str) -> Link:
        """An interface; raises KernelError when it is not there."""
        found = self._find(_LINK.pack(0, 0, 0, 0, 0) + attribute(_LINK_NAME, interface.encode() + b"\0"))
        if found is None:
            raise KernelError(f"interface {interface} is not there")
        return found

    def index(self, interface: str) -> int | None:
        """The index of an interface, None when it is not there."""
        found = self._find(_LINK.pack(0, 0, 0, 0, 0) + attribute(_LINK_NAME, interface.encode() + b"\0"))
        return None if found is None else found.index

    def _find(self, request: bytes) -> Link | None:
        try:
            answers = list(self._netlink.ask(_GET_LINK, flags=REQUEST | ACK, body=request))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise KernelError(f"cannot look for an interface: {error.strerror}") from error
        return _link(answers[0]) if answers else None

    def _dump(self, kind: int, request: bytes) -> list[bytes]:
        try:
            return list(self._netlink.ask(kind, flags=REQUEST | DUMP, body=request))
        except OSError as error:
            raise KernelError(f"cannot read what the kernel holds: {error.strerror}") from error

    def read(self) -> Plumbing:
        """What of ours is there, good or not; settings are not read here."""
        found = self._find(_LINK.pack(0, 0, 0, 0, 0) + attribute(_LINK_NAME, TUNNEL_DEVICE.encode() + b"\0"))
        names = {} if found is None else {found.index: found.name}
        return Plumbing(
            tunnel=None if found is None else _tunnel(found),
            neighbours=frozenset() if found is None else frozenset(self._neighbours(found.index)),
            ends=frozenset() if found is None else frozenset(self._ends(found.index)),
            routes=frozenset(self._routes(names)),
            rules=frozenset(self._rules()),
            answers=frozenset(self._answers(names)),
        )

    def _neighbours(self, index: int) -> Iterator[Neighbour]:
        for family in _FAMILY.values():
            request = _NEIGHBOUR.pack(family, 0, 0, 0, 0) + attribute(_ON_INDEX, number(index))
            for message in self._dump(_GET_NEIGHBOUR, request):
                _, on, state, _, _ = _NEIGHBOUR.unpack_from(message)
                parts = attributes(message[_NEIGHBOUR.size :])
                if on == index and state & _PERMANENT and _MAC in parts:
                    yield Neighbour(ip_address(parts[_OF]), parts[_MAC].hex(":"))

    def _ends(self, index: int) -> Iterator[Neighbour]:
        request = _NEIGHBOUR.pack(_AF_BRIDGE, 0, 0, 0, 0) + attribute(_ON_INDEX, number(index))
        for message in self._dump(_GET_NEIGHBOUR, request):
            _, on, _, _, _ = _NEIGHBOUR.unpack_from(message)
            parts = attributes(message[_NEIGHBOUR.size :])
            if on == index and _OF in parts:
                yield Neighbour(ip_address(parts[_OF]), parts[_MAC].hex(":"))

    def _routes(self, names: dict[int, str]) -> Iterator[Route]:
        in_our_table = attribute(_IN_TABLE, number(TABLE))
        for version, family in _FAMILY.items():
            ours = _ROUTE.pack(family, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)
            any_protocol = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + in_our_table
            for request in (ours, any_protocol):
                for message in self._dump(_GET_ROUTE, request):
                    route = self._route(message, version=version, names=names)
                    if route.protocol == PROTOCOL or route.table == TABLE:
                        yield route

    def _route(self, message: bytes, *, version: int, names: dict[int, str]) -> Route:
        _, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(message)
        parts = attributes(message[_ROUTE.size :])
        to = ip_address(parts[_TO]) if _TO in parts else ip_address(bytes(4 if version == 4 else 16))
        kinds: dict[int, Literal["unicast", "local"]] = {1: "unicast", 2: "local"}
        return Route(
            destination=ip_network((to, length)),
            device=self._name(int.from_bytes(parts.get(_DEVICE, b""), sys.byteorder), names),
            table=int.from_bytes(parts[_IN_TABLE], sys.byteorder) if _IN_TABLE in parts else table,
            via=ip_address(parts[_VIA]) if _VIA in parts else None,
            kind=kinds.get(kind, "other"),
            protocol=protocol,
        )

    def _name(self, index: int, names: dict[int, str]) -> str:
        if index and index not in names:
            found = self._find(_LINK.pack(0, 0, index, 0, 0))
            names[index] = "" if found is None else found.name
        return names.get(index, "")

    def _rules(self) -> Iterator[Rule]:
        versions: tuple[Version, ...] = (4, 6)
        for version in versions:
            request = _RULE.pack(_FAMILY[version], 0, 0, 0, 0, 0, 0, 0, 0)
            for message in self._dump(_GET_RULE, request):
                parts = attributes(message[_RULE.size :])
                preference = int.from_bytes(parts.get(_RULE_PREFERENCE, b""), sys.byteorder)
                if preference in PREFERENCES or parts.get(_RULE_PROTOCOL) == bytes([PROTOCOL]):
                    yield _rule(message, parts, version=version, preference=preference)

    def _answers(self, names: dict[int, str]) -> Iterator[Answer]:
        for family in _FAMILY.values():
            request = _NEIGHBOUR.pack(family, 0, 0, _PROXY, 0)
            for message in self._dump(_GET_NEIGHBOUR, request):
                _, index, _, flags, _ = _NEIGHBOUR.unpack_from(message)
                parts = attributes(message[_NEIGHBOUR.size :])
                if flags & _PROXY and parts.get(_OF_PROTOCOL) == bytes([PROTOCOL]):
                    yield Answer(ip_address(parts[_OF]), self._name(index, names))

    def make_tunnel(self, wanted: Tunnel, held: Tunnel | None) -> bool:
        """Make the device what it should be; True when it is a new one, which is left down."""
        if held is not None and held.fits and held.local == wanted.local:
            body = _LINK.pack(0, 0, self.link(TUNNEL_DEVICE).index, 0, 0)
            body += attribute(_LINK_MAC, mac_bytes(wanted.mac)) + attribute(_LINK_MTU, number(wanted.mtu))
            self._change(f"change device {TUNNEL_DEVICE}", _NEW_LINK, body)
            return False
        self.remove_tunnel()
        local = _VXLAN_LOCAL if wanted.local.version == 4 else _VXLAN_LOCAL6
        data = (
            attribute(_VXLAN_ID, number(_NETWORK_ID))
            + attribute(local, wanted.local.packed)
            + attribute(_VXLAN_LEARNING, bytes(1))
            + attribute(_VXLAN_PORT, TUNNEL_PORT.to_bytes(2))
            + attribute(_VXLAN_CHECKSUM, bytes(1))
            + attribute(_VXLAN_GBP, b"")
        )
        body = (
            _LINK.pack(0, 0, 0, 0, 0)
            + attribute(_LINK_NAME, TUNNEL_DEVICE.encode() + b"\0")
            + attribute(_LINK_MAC, mac_bytes(wanted.mac))
            + attribute(_LINK_MTU, number(wanted.mtu))
            + attribute(_LINK_INFO | NESTED, attribute(_INFO_KIND, b"vxlan\0") + attribute(_INFO_DATA | NESTED, data))
        )
        self._change(f"make device {TUNNEL_DEVICE}", _NEW_LINK, body, flags=CREATE)
        index = self.link(TUNNEL_DEVICE).index
        self._change("keep IPv6 addresses off the tunnel", _NEW_LINK, _LINK.pack(0, 0, index, 0, 0) + _NO_LINK_LOCAL)
        return True

    def raise_tunnel(self) -> None:
        """Bring the device up, with the one address that it needs."""
        index = self.link(TUNNEL_DEVICE).index
        self._change("bring the tunnel up", _NEW_LINK, _LINK.pack(0, 0, index, _UP, _UP))
        body = _ADDRESS.pack(socket.AF_INET, 32, 0, _SCOPE_HOST, index)
        body += attribute(1, TUNNEL_ADDRESS.packed) + attribute(2, TUNNEL_ADDRESS.packed)
        self._change(f"give {TUNNEL_DEVICE} its address", _NEW_ADDRESS, body, flags=CREATE | REPLACE)

    def remove_tunnel(self) -> None:
        """Take away whatever device has our name."""
        index = self.index(TUNNEL_DEVICE)
        if index is not None:
            self._change(f"remove device {TUNNEL_DEVICE}", _DEL_LINK, _LINK.pack(0, 0, index, 0, 0))

    def neighbour(self, verb: Verb, item: Neighbour) -> None:
        """A permanent neighbour on the tunnel."""
        head = _NEIGHBOUR.pack(_FAMILY[item.address.version], self._tunnel_index(), _PERMANENT, 0, 0)
        body = head + attribute(_OF, item.address.packed) + attribute(_MAC, mac_bytes(item.mac))
        self._change_neighbour(verb, body, f"neighbour {item.address}")

    def end(self, verb: Verb, item: Neighbour) -> None:
        """The address behind which a peer's MAC is."""
        head = _NEIGHBOUR.pack(_AF_BRIDGE, self._tunnel_index(), _PERMANENT | _NO_ARP, _SELF, 0)
        body = head + attribute(_OF, item.address.packed) + attribute(_MAC, mac_bytes(item.mac))
        self._change_neighbour(verb, body, f"peer {item.mac} at {item.address}")

    def answer(self, verb: Verb, item: Answer) -> None:
        """A proxy neighbour: this node answers ARP or ND for the address."""
        head = _NEIGHBOUR.pack(_FAMILY[item.address.version], self.link(item.interface).index, 0, _PROXY, 0)
        body = head + attribute(_OF, item.address.packed) + attribute(_OF_PROTOCOL, bytes([PROTOCOL]))
        self._change_neighbour(verb, body, f"proxy neighbour {item.address} on {item.interface}")

    def _tunnel_index(self) -> int:
        return self.link(TUNNEL_DEVICE).index

    def _change_neighbour(self, verb: Verb, body: bytes, what: str) -> None:
        if verb == "replace":
            self._change(f"set {what}", _NEW_NEIGHBOUR, body, flags=CREATE | REPLACE)
        else:
            self._change(f"delete {what}", _DEL_NEIGHBOUR, body)

    def route(self, verb: Verb, item: Route) -> None:
        """A route."""
        version = item.destination.version
        scope = _SCOPE_HOST if item.kind == "local" else 0 if item.via is not None or version == 6 else _SCOPE_LINK
        head = _ROUTE.pack(
            _FAMILY[version],
            item.destination.prefixlen,
            0,
            0,
            0,
            item.protocol,
            _SCOPE_NOWHERE if verb == "del" else scope,
            _KINDS[item.kind],
            _ON_LINK if item.via is not None else 0,
        )
        body = head + attribute(_TO, item.destination.network_address.packed) + attribute(_IN_TABLE, number(item.table))
        if item.device:
            body += attribute(_DEVICE, number(self.link(item.device).index))
        if item.via is not None:
            body += attribute(_VIA, item.via.packed)
        if verb == "replace":
            self._change(f"set route {item.destination}", _NEW_ROUTE, body, flags=CREATE | REPLACE)
        else:
            self._change(f"delete route {item.destination}", _DEL_ROUTE, body)

    def rule(self, item: Rule) -> None:
        """Add a rule."""
        action = _UNREACHABLE if item.table is None else _LOOKUP
        body = _RULE.pack(_FAMILY[item.version], 0, 0, 0, 0, 0, 0, action, _INVERTED)
        body += attribute(_RULE_PREFERENCE, number(item.preference)) + attribute(_RULE_PROTOCOL, bytes([PROTOCOL]))
        body += attribute(_RULE_MARK, number(0)) + attribute(_RULE_MASK_OF, number(RULE_MASK))
        if item.table is not None:
            body += attribute(_RULE_TABLE, number(item.table))
        self._change(f"add rule {item.preference}", _NEW_RULE, body, flags=CREATE)

    def clear_rules(self, version: Version, preference: int) -> None:
        """Delete every rule with this preference, whatever it says."""
        body = _RULE.pack(_FAMILY[version], 0, 0, 0, 0, 0, 0, 0, 0) + attribute(_RULE_PREFERENCE, number(preference))
        while True:
            try:
                list(self._netlink.ask(_DEL_RULE, flags=REQUEST | ACK, body=body))
            except FileNotFoundError:
                return
            except OSError as error:
                raise KernelError(f"cannot delete rule {preference}: {error.strerror}") from error

    def _change(self, what: str, kind: int, body: bytes, flags: int = 0) -> None:
        try:
            list(self._netlink.ask(kind, flags=REQUEST | ACK | flags, body=body))
        except OSError as error:
            raise KernelError(f"cannot {what}: {error.strerror}") from error


def _link(message: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(message)
    parts = attributes(message[_LINK.size :])
    info = attributes(parts.get(_LINK_INFO, b""))
    return Link(
        index=index,
        name=parts[_LINK_NAME].rstrip(b"\0").decode(),
        mac=parts.get(_LINK_MAC, b"").hex(":"),
        mtu=int.from_bytes(parts[_LINK_MTU], sys.byteorder),
        up=bool(flags & _UP),
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(),
        data=attributes(info.get(_INFO_DATA, b"")),
    )


def _tunnel(link: Link) -> Tunnel:
    data = link.data if link.kind == "vxlan" else {}
    local: Address | None = next((ip_address(data[k]) for k in (_VXLAN_LOCAL, _VXLAN_LOCAL6) if k in data), None)
    fits = (
        local is not None
        and data[_VXLAN_ID] == number(_NETWORK_ID)
        and data[_VXLAN_PORT] == TUNNEL_PORT.to_bytes(2)
        and data[_VXLAN_LEARNING] == bytes(1)
        and _VXLAN_GBP in data
    )
    return Tunnel(mac=link.mac, mtu=link.mtu, local=local or TUNNEL_ADDRESS, up=link.up, fits=fits)


def _rule(message: bytes, parts: Mapping[int, bytes], *, version: Version, preference: int) -> Rule:
    _, to, source, tos, table, _, _, action, flags = _RULE.unpack_from(message)
    fits = (
        preference in PREFERENCES
        and parts.get(_RULE_PROTOCOL) == bytes([PROTOCOL])
        and flags == _INVERTED
        and parts.get(_RULE_MARK, number(0)) == number(0)
        and parts.get(_RULE_MASK_OF) == number(RULE_MASK)
        and action in (_LOOKUP, _UNREACHABLE)
        and to == source == tos == 0
        and not parts.keys() & {_RULE_INPUT, _RULE_OUTPUT}
    )
    looked_up = int.from_bytes(parts.get(_RULE_TABLE, bytes([table])), sys.byteorder)
    return Rule(version, preference, looked_up if action == _LOOKUP else None, fits=fits)
