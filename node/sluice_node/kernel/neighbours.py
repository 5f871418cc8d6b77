"""The kernel's neighbour table, as far as it is not ours: who is where on a link, and what is to be found out anew.

Numbers are those of linux/neighbour.h.
"""

import errno
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address
from typing import Final

from sluice_api.names import TUNNEL_DEVICE
from sluice_node.core.desired import Address
from sluice_node.core.occupied import Neighbour
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.raw import ACK, DUMP, NETLINK_ROUTE, REQUEST, RawNetlink, attribute, attributes

_DELETE, _GET = 29, 30
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_CACHE: Final = struct.Struct("=IIII")
"""struct nda_cacheinfo: confirmed, used, updated (ago, in ticks of USER_HZ, 100 a second), refcnt."""
_OF, _MAC, _CACHEINFO = 1, 2, 3
_PERMANENT: Final = 0x80
_KNOWN: Final = 0x02 | 0x04 | 0x08 | 0x10 | _PERMANENT
"""NUD_REACHABLE, STALE, DELAY, PROBE: somebody answered. Not INCOMPLETE, FAILED, or NOARP (multicast and the like)."""
_ETHERNET: Final = 6
_TICKS: Final = 100
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})


def read() -> tuple[Neighbour, ...]:
    """Everybody on the node's links that the kernel knows of, without the tunnel's. Raises KernelError."""
    netlink = RawNetlink(NETLINK_ROUTE, strict=True)
    try:
        return tuple(entry for family in _FAMILY.values() for entry in _entries(netlink, family))
    except OSError as error:
        raise KernelError(f"cannot read the neighbour table: {error.strerror}") from error
    finally:
        netlink.close()


def _entries(netlink: RawNetlink, family: int) -> Iterator[Neighbour]:
    names = dict(socket.if_nameindex())
    for message in netlink.ask(_GET, flags=REQUEST | DUMP, body=_NEIGHBOUR.pack(family, 0, 0, 0, 0)):
        of, index, state, _, _ = _NEIGHBOUR.unpack_from(message)
        parts = attributes(message[_NEIGHBOUR.size :])
        mac, name = parts.get(_MAC, b""), names.get(index, TUNNEL_DEVICE)
        if of == family and state & _KNOWN and len(mac) == _ETHERNET and any(mac) and name != TUNNEL_DEVICE:
            confirmed, _, updated, _ = _CACHE.unpack_from(parts.get(_CACHEINFO, bytes(_CACHE.size)))
            age = 0.0 if state & _PERMANENT else min(confirmed, updated) / _TICKS
            yield Neighbour(ip_address(parts[_OF]), mac.hex(":"), name, age)


def forget(addresses: Collection[Address], interfaces: Iterable[str]) -> None:
    """Forget where these addresses are, so that the next packet to one of them asks.

    Who answered for an address up to now may have been a gateway of ours, and its owner may be another. Raises
    KernelError.
    """
    if not addresses:
        return
    netlink = RawNetlink(NETLINK_ROUTE)
    try:
        for interface in interfaces:
            try:
                index = socket.if_nametoindex(interface)
            except OSError:
                continue
            for address in addresses:
                body = _NEIGHBOUR.pack(_FAMILY[address.version], index, 0, 0, 0) + attribute(_OF, address.packed)
                try:
                    list(netlink.ask(_DELETE, flags=REQUEST | ACK, body=body))
                except OSError as error:
                    if error.errno not in _NOT_THERE:
                        raise KernelError(f"cannot forget where {address} is: {error.strerror}") from error
    finally:
        netlink.close()
