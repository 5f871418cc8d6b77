"""Announces held egress IPs once more, when gateways came or went.

A gateway that was cut off believes that it alone is left, and announces what others hold; the LAN may believe it. The
holder did not change in its own eyes, so the kernel part has nothing new to announce: this is for such moments.
Blocking.
"""

from collections.abc import Mapping
from functools import partial

from sluice_node.core.desired import Address
from sluice_node.kernel.announce import Announcer
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.items import Items
from sluice_node.kernel.netlink import Netlink


def announce(held: Mapping[Address, str]) -> None:
    """Tell the LAN of each egress IP, on its interface, that it is here. Raises KernelError for interfaces that are
    gone, once everything else is announced."""
    netlink, announcer = Netlink(), Announcer()
    items = Items()
    try:
        for interface in set(held.values()):
            addresses = [address for address, on in held.items() if on == interface]
            items.each([interface], partial(_on, netlink, announcer, addresses))
    finally:
        netlink.close()
        announcer.close()
    if items.failures:
        raise KernelError("; ".join(failure.message for failure in items.failures))


def _on(netlink: Netlink, announcer: Announcer, addresses: list[Address], interface: str) -> None:
    mac = netlink.link(interface).mac
    announcer.start((address, interface, mac) for address in addresses)
