"""The kernel's neighbour table, as far as it is not ours: who is where on a link, and what is to be found out anew.

Numbers are those of linux/neighbour.h.
"""

import errno
import socket
import struct
from collections.abc import Collection, Iterable
from typing import Final

from sluice_node.core.desired import Address
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.raw import ACK, NETLINK_ROUTE, REQUEST, RawNetlink, attribute

_DELETE: Final = 29
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_OF: Final = 1
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})


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
