"""A set of networks that answers "which of you holds this address?" at a cost that does not grow with the number of
networks.

Invariants: one hash lookup per prefix length in use; the longest prefix answers.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network


class Networks:
    """Networks of both families, each with a label."""

    __slots__ = ("_tables",)

    def __init__(self, networks: Iterable[tuple[Network, str]]) -> None:
        tables: dict[int, dict[int, dict[int, str]]] = {4: {}, 6: {}}
        for network, label in networks:
            shift = network.max_prefixlen - network.prefixlen
            tables[network.version].setdefault(shift, {})[int(network.network_address) >> shift] = label
        self._tables = {version: sorted(by_shift.items()) for version, by_shift in tables.items()}

    def find(self, address: IPv4Address | IPv6Address) -> str | None:
        """The label of the longest network that holds the address, or None."""
        number = int(address)
        for shift, labels in self._tables[address.version]:
            label = labels.get(number >> shift)
            if label is not None:
                return label
        return None
