"""How a packet mark is laid out, and which number stands for which node.

    bits  0-13  policy id
    bits 14-15  kube-proxy's (0x4000, 0x8000): never touched
    bits 16-27  the peer whose tunnel end the packet goes to; 0 none, 4095 this node
    bit  28     chosen: leaves with an egress IP or not at all

Only the policy id leaves the node, as the group id of the VXLAN header. Invariants: pure; a peer keeps its number
as long as it is a peer, so that a packet under way never reaches another node.
"""

from collections.abc import Iterable, Mapping
from typing import Final

POLICY: Final = 0x00003FFF
PEER: Final = 0x0FFF0000
SELECTED: Final = 0x10000000
OURS: Final = POLICY | PEER | SELECTED
FOREIGN: Final = 0xFFFFFFFF ^ OURS
SELF: Final = PEER
"""The peer field of a packet that belongs to this node itself."""

_SHIFT: Final = 16
MAX_PEERS: Final = (PEER >> _SHIFT) - 1


def peer_mark(index: int) -> int:
    """The mark that sends a packet to the peer with this number (1..MAX_PEERS)."""
    if not 1 <= index <= MAX_PEERS:
        raise ValueError(f"peer number {index} is not within 1..{MAX_PEERS}")
    return index << _SHIFT


def number_peers(nodes: Iterable[str], previous: Mapping[str, int]) -> dict[str, int]:
    """Give every node a number: the one it had, else the lowest free one, in order of name.

    Raises ValueError when there are more than MAX_PEERS nodes.
    """
    wanted = sorted(set(nodes))
    numbers = {node: previous[node] for node in wanted if node in previous}
    taken = set(numbers.values())
    free = (index for index in range(1, MAX_PEERS + 1) if index not in taken)
    for node in wanted:
        if node not in numbers:
            index = next(free, None)
            if index is None:
                raise ValueError(f"{len(wanted)} peers: a mark has room for {MAX_PEERS}")
            numbers[node] = index
    return numbers
