"""Who holds an egress IP: the gateway that answers ARP and neighbour discovery for it and receives its replies.

Rendezvous (highest random weight, Thaler and Ravishankar 1998): every gateway computes the same answer from the
gateways it sees alive, without a word to each other. When one goes, only its own egress IPs move. Two gateways that see
different ones alive may both hold an egress IP for a moment; that does no harm, since replies need no state.
Pure: no I/O, no clock.
"""

from collections.abc import Iterable
from hashlib import sha256

from sluice_node.core.desired import Address


def holder(address: Address, gateways: Iterable[str]) -> str | None:
    """The gateway that holds an egress IP: the same on every node and in every release; None without gateways."""
    packed = address.packed
    return max(gateways, key=lambda node: sha256(packed + node.encode()).digest(), default=None)
