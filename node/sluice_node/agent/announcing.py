"""Announces held egress IPs once more, when gateways came or went.

A gateway that was cut off believes that it alone is left, and announces what others hold; the LAN may believe it. The
holder did not change in its own eyes, so the kernel part has nothing new to announce: this is for such moments.
Blocking.
"""

from collections.abc import Mapping

from sluice_node.core.desired import Address
from sluice_node.kernel.announce import Announcer
from sluice_node.kernel.netlink import Netlink


def announce(held: Mapping[Address, str]) -> None:
    """Tell the LAN of each egress IP, on its interface, that it is here. Raises KernelError."""
    netlink, announcer = Netlink(), Announcer()
    try:
        macs = {interface: netlink.link(interface).mac for interface in set(held.values())}
        announcer.start((address, interface, macs[interface]) for address, interface in held.items())
    finally:
        netlink.close()
        announcer.close()
