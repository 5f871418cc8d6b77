"""Nodes whose EgressNode is gone and which still own ports: gone from the API is not gone from the wire.

Rules:
- While an egress IP's slices name such a node, replies to its ports go to its tunnel end as it was reported last, and
  what it sends from these ports is let out: its kernel goes on with the connections of its pods, and the ports are
  given to nobody else meanwhile. When the slices go to others, so does the way to it.
- It stays the gateway that it was, for as long as it answers probes. Its own agent, if it lives, decides the same, so
  that all agree on who holds an address.
- An EgressNode that is made anew says nothing before its agent's first report: until then it is still gone.
- A node that is there with the same tunnel address is the one to believe.
Pure: no I/O, no clock.
"""

from collections.abc import Iterable

from sluice_node.core.objects import EgressIP, EgressNode


def still_served(
    departed: Iterable[EgressNode], present: Iterable[EgressNode], claims: Iterable[EgressIP]
) -> tuple[EgressNode, ...]:
    """Those of the departed (as they were reported last) that are to be treated as if they were still there, in place
    of a present one of their name that has not reported yet."""
    there = tuple(node for node in present if node.tunnel is not None or node.remove)
    names = {node.key for node in there}
    ends = {node.tunnel.address for node in there if node.tunnel is not None}
    owners = {piece.node for claim in claims for piece in claim.slices}
    return tuple(
        node
        for node in departed
        if node.key not in names
        and node.key.name in owners
        and node.tunnel is not None
        and node.tunnel.address not in ends
    )
