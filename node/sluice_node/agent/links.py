"""Reads the node's interfaces: their addresses, and the ones that default routes use.

Must not change anything. Blocking, and not for the thread of a running event loop.
"""

import socket
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sluice_api.names import TUNNEL_DEVICE
from sluice_node.core.resolve import Links
from sluice_node.kernel.errors import KernelError

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_MAIN_TABLE: Final = 254
_UNIVERSE: Final = 0


def read_links() -> Links:
    """The interfaces of this network namespace, without the tunnel. Raises KernelError."""
    try:
        with IPRoute() as netlink:
            names = {link["index"]: link.get("ifname") for link in netlink.link("dump")}
            found: list[tuple[str, IPv4Interface | IPv6Interface]] = []
            for entry in netlink.addr("dump", scope=_UNIVERSE):
                name = names.get(entry["index"])
                # A point-to-point address has its own end in IFA_LOCAL.
                own = entry.get("local") or entry.get("address")
                if name is not None and name != TUNNEL_DEVICE and own is not None:
                    found.append((name, ip_interface(f"{own}/{entry['prefixlen']}")))
            defaults: dict[int, str] = {}
            for version, family in _FAMILIES.items():
                routes = [r for r in netlink.route("dump", family=family, table=_MAIN_TABLE) if r["dst_len"] == 0]
                for route in sorted(routes, key=lambda route: route.get("priority") or 0):
                    name = names.get(route.get("oif"))
                    if name is not None:
                        defaults.setdefault(version, name)
            return Links(tuple(sorted(found, key=str)), defaults)
    except (OSError, NetlinkError) as error:
        raise KernelError(f"cannot read the node's interfaces: {error}") from error
