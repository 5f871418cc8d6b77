"""The node's interfaces as the agent reads them.

Invariants: pure; the tunnel is not among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from sluice_node.core.desired import Address


@dataclass(frozen=True, slots=True)
class Links:
    """The node's interfaces: their addresses, which one each family's default route uses, the next hops of all routes,
    the single hosts that others' routes lead to directly, with the interface, and the `names` of all interfaces, those
    without an address too."""

    addresses: tuple[tuple[str, IPv4Interface | IPv6Interface], ...] = ()
    defaults: Mapping[int, str] = field(default_factory=dict)
    gateways: frozenset[Address] = frozenset()
    attached: Mapping[Address, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    def has(self, interface: str) -> bool:
        """Whether there is an interface of this name."""
        return interface in self.names or any(name == interface for name, _ in self.addresses)

    def of_address(self, address: Address) -> str | None:
        """The interface that bears an address."""
        return next((name for name, own in self.addresses if own.ip == address), None)

    def towards(self, address: Address) -> str | None:
        """The interface whose network an address is in, else the one of its family's default route."""
        near = [
            (own.network.prefixlen, name)
            for name, own in self.addresses
            if own.version == address.version and address in own.network
        ]
        return max(near)[1] if near else self.defaults.get(address.version)
