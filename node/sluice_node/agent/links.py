"""Reads the node's interfaces: their addresses, the ones that default routes use, and the next hops of all routes.

Must not change anything. Blocking. Numbers are those of linux/rtnetlink.h, if_link.h and if_addr.h.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Final

from sluice_api.names import TUNNEL_DEVICE
from sluice_node.core.desired import Address
from sluice_node.core.links import Links
from sluice_node.core.routing import PROTOCOL
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.raw import DUMP, NETLINK_ROUTE, REQUEST, RawNetlink, attributes

_GET_LINK, _GET_ADDRESS, _GET_ROUTE = 18, 22, 26
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_NEXT_HOP: Final = struct.Struct("=HBBi")
_NAME: Final = 3
_REMOTE, _OWN = 1, 2
_TO, _DEVICE, _GATEWAY, _PRIORITY, _SEVERAL, _IN_TABLE, _VIA = 1, 4, 5, 6, 9, 15, 18
_MAIN_TABLE: Final = 254
_UNICAST: Final = 1
_EVERYWHERE: Final = 0
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NO_ROUTES: Final = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT})


def read_links() -> Links:
    """The interfaces of this network namespace, without the tunnel. Raises KernelError."""
    netlink = RawNetlink(NETLINK_ROUTE, strict=True)
    try:
        names = dict(_names(netlink))
        addresses = sorted(_addresses(netlink, names), key=str)
        defaults: dict[int, str] = {}
        gateways: set[Address] = set()
        attached: dict[Address, str] = {}
        for version in _FAMILIES:
            candidates: list[tuple[int, str]] = []
            for head, entry in _routes(netlink, version):
                hops = set(_next_hops(entry))
                gateways |= hops
                if not hops and (host := _host(head, entry)) and (name := names.get(_device(entry))):
                    attached[host] = name
                if head[1] == 0 and _table(head, entry) == _MAIN_TABLE and (name := names.get(_device(entry))):
                    candidates.append((_number(entry.get(_PRIORITY)), name))
            if candidates:
                defaults[version] = min(candidates)[1]
    except OSError as error:
        raise KernelError(f"cannot read the node's interfaces: {error.strerror}") from error
    finally:
        netlink.close()
    return Links(tuple(addresses), defaults, frozenset(gateways), attached, frozenset(names.values()))


def _names(netlink: RawNetlink) -> Iterator[tuple[int, str]]:
    for message in netlink.ask(_GET_LINK, flags=REQUEST | DUMP, body=_LINK.pack(0, 0, 0, 0, 0)):
        name = attributes(message[_LINK.size :])[_NAME].rstrip(b"\0").decode()
        if name != TUNNEL_DEVICE:
            yield _LINK.unpack_from(message)[2], name


def _addresses(netlink: RawNetlink, names: dict[int, str]) -> Iterator[tuple[str, IPv4Interface | IPv6Interface]]:
    for message in netlink.ask(_GET_ADDRESS, flags=REQUEST | DUMP, body=_ADDRESS.pack(0, 0, 0, 0, 0)):
        _, length, _, scope, index = _ADDRESS.unpack_from(message)
        found = attributes(message[_ADDRESS.size :])
        # A point-to-point interface has the other end's address in front of its own.
        own = found.get(_OWN) or found.get(_REMOTE)
        if scope == _EVERYWHERE and own is not None and index in names:
            yield names[index], ip_interface(f"{ip_address(own)}/{length}")


def _routes(netlink: RawNetlink, version: int) -> Iterator[tuple[tuple[int, ...], dict[int, bytes]]]:
    """Head and attributes of every route of a family, whatever its table."""
    try:
        for message in netlink.ask(
            _GET_ROUTE, flags=REQUEST | DUMP, body=_ROUTE.pack(_FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)
        ):
            yield _ROUTE.unpack_from(message), attributes(message[_ROUTE.size :])
    except OSError as error:
        if error.errno not in _NO_ROUTES:
            raise


def _host(head: tuple[int, ...], route: dict[int, bytes]) -> Address | None:
    """The single host that a route of somebody else leads to: a container's, most often."""
    _, length, _, _, _, protocol, _, kind, _ = head
    if kind != _UNICAST or protocol == PROTOCOL or _TO not in route or length != 8 * len(route[_TO]):
        return None
    return ip_address(route[_TO])


def _table(head: tuple[int, ...], route: dict[int, bytes]) -> int:
    return _number(route.get(_IN_TABLE)) or head[4]


def _next_hops(route: dict[int, bytes]) -> Iterator[Address]:
    """The next hops of a route: one, one of the other family (RTA_VIA), or several."""
    if _GATEWAY in route:
        yield ip_address(route[_GATEWAY])
    if _VIA in route:
        yield ip_address(route[_VIA][2:])
    several = route.get(_SEVERAL, b"")
    while len(several) >= _NEXT_HOP.size:
        length = max(_NEXT_HOP.unpack_from(several)[0], _NEXT_HOP.size)
        yield from _next_hops(attributes(several[_NEXT_HOP.size : length]))
        several = several[(length + 3) & ~3 :]


def _device(route: dict[int, bytes]) -> int:
    if _SEVERAL in route:
        # Of several next hops the first: they lead the same way out.
        return int(_NEXT_HOP.unpack_from(route[_SEVERAL])[3])
    return _number(route.get(_DEVICE))


def _number(value: bytes | None) -> int:
    return int(struct.unpack_from("=I", value)[0]) if value else 0
