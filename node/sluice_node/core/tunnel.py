"""Rules for the tunnel itself: what may come out of it, what may go in.

An outer packet is good when its address and the MAC inside belong to the same peer; everything out of the tunnel is
then judged by that MAC. Out of it come: replies to this node's slices, packets of peers to forward, connections to
this node's proxies, probes to send back; all else is dropped. Into it goes only what bears a peer's mark, which
becomes the peer's MAC; one route serves all peers.

A probe is an unaffiliated BFD echo (RFC 9747): sent with TTL 255, sent back by the gateway's kernel, and known by the
TTL it has left when it returns, so that it is not sent back again.

Invariants: pure; the cost of a packet does not depend on the number of peers.
"""

from collections.abc import Iterator
from typing import Final

from sluice_api.names import PROBE_PORT, TUNNEL_DEVICE, TUNNEL_PORT
from sluice_node.core import identity
from sluice_node.core.frames import PROBE_ADDRESS
from sluice_node.core.marks import PEER, POLICY
from sluice_node.core.slicing import SPOOFED
from sluice_node.core.steering import drop, names_text
from sluice_node.core.tables import Chain, Set
from sluice_node.core.view import IP, VERSIONS, View

STRANGER: Final = "stranger"
UNADDRESSED: Final = "unaddressed"
COUNTERS: Final = (STRANGER,)
EGRESS_COUNTERS: Final = (UNADDRESSED,)


def sets(view: View) -> Iterator[Set]:
    """Who the peers are, by tunnel address and MAC, and where this node's proxies listen."""
    marks = {view.peers[node].mac: f"{mark:#x}" for node, mark in view.marks.items()}
    yield Set("peer_marks", "typeof ether saddr : meta mark", marks, is_map=True)
    for v in VERSIONS:
        peers = [view.peers[node] for node in view.marks if view.peers[node].address.version == v]
        ends = dict.fromkeys(f"{peer.address} . {hex_mac(peer.mac)}" for peer in peers)
        yield Set(f"peers{v}", f"typeof {IP[v]} saddr . @th,176,48", ends)
        yield Set(f"peer_addresses{v}", f"typeof {IP[v]} daddr", dict.fromkeys(str(peer.address) for peer in peers))
        own = sorted(
            e for e, node in view.desired.proxy_endpoints.items() if node == view.desired.node and e[0].version == v
        )
        elements = dict.fromkeys(f"{address} . {port}" for address, port in own)
        yield Set(f"own_proxies{v}", f"typeof {IP[v]} daddr . tcp dport", elements)


def hex_mac(mac: str) -> str:
    """A MAC as the integer that nft compares raw payload with."""
    return "0x" + mac.replace(":", "")


def chains(view: View) -> Iterator[Chain]:
    """The hooks before connection tracking, and the chains they lead to."""
    replies = tuple(f"{IP[v]} daddr vmap @replies{v}" for v in VERSIONS)
    yield Chain("proxy_in", (f"meta mark & {POLICY:#x} == 0 {drop(SPOOFED)}", "accept"))
    yield Chain(
        "from_tunnel",
        (
            *replies,
            f"udp dport {PROBE_PORT} ip ttl 255 meta mark set ether saddr map @peer_marks notrack accept",
            f"ip daddr {PROBE_ADDRESS} drop",
            *(f"{IP[v]} daddr . tcp dport @own_proxies{v} goto proxy_in" for v in VERSIONS),
            *(f"{IP[v]} saddr vmap @senders{v}" for v in VERSIONS),
            drop(SPOOFED),
        ),
    )
    yield Chain(
        "outer",
        (
            *(f"{IP[v]} saddr . @th,176,48 @peers{v} notrack accept" for v in VERSIONS),
            drop(STRANGER),
        ),
    )
    uplinks = view.desired.uplinks
    yield Chain(
        "arrival",
        (
            f'iifname "{TUNNEL_DEVICE}" goto from_tunnel',
            *identity.STRAY_RULES,
            f"udp dport {TUNNEL_PORT} fib daddr type local goto outer",
            *(f"iifname {names_text(uplinks)} {rule}" for rule in replies if uplinks),
        ),
        hook="type filter hook prerouting priority -300",
    )
    yield Chain(
        "departure",
        (
            *(f"udp dport {TUNNEL_PORT} {IP[v]} daddr @peer_addresses{v} notrack accept" for v in VERSIONS),
            *replies,
        ),
        hook="type route hook output priority -300",
    )
    yield Chain(
        "transit",
        tuple(f"udp dport {TUNNEL_PORT} {IP[v]} daddr @peer_addresses{v} {drop(STRANGER)}" for v in VERSIONS),
        hook="type filter hook forward priority -10",
    )


def egress_sets(view: View) -> Iterator[Set]:
    """Peer field of the mark -> MAC of the peer's tunnel device."""
    macs = {f"{mark:#x}": view.peers[node].mac for node, mark in view.marks.items()}
    yield Set("macs", "typeof meta mark : ether daddr", macs, is_map=True)


def egress_chains() -> Iterator[Chain]:
    """The last thing before VXLAN: the MAC by the peer's mark, and the policy id as all that is left of the mark."""
    yield Chain(
        "into_tunnel",
        (
            f"ether daddr set meta mark & {PEER:#x} map @macs meta mark set meta mark & {POLICY:#x} accept",
            f"ip daddr {PROBE_ADDRESS} udp dport {PROBE_PORT} ip ttl 255 accept",
            "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop",
            drop(UNADDRESSED),
        ),
        hook=f'type filter hook egress device "{TUNNEL_DEVICE}" priority 0',
    )
