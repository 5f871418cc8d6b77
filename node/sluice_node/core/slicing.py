"""Rules by slices: who may send with an egress IP's port, and whom a reply to it belongs to.

A slice is a power-of-two aligned block of ports, so its owner is one exact lookup of (egress IP, top bits of the
port). The width of those bits is the slice size's, so there is one set of chains and maps per size in use, found by
the egress IP. ICMP has no ports: an echo is known by its identifier, which NAT draws from the same range, an error by
the header it carries (RFC 792, RFC 4443), which must be IPv4 without options, or IPv6 without extension headers but for
the fragment's.

Invariants: pure; no state in the kernel is needed to send a reply to its owner.
"""

from collections.abc import Iterator
from typing import Final

from sluice_api.names import TUNNEL_DEVICE
from sluice_node.core.marks import FOREIGN, PEER, SELF
from sluice_node.core.steering import LEAK, UNSOLICITED, clamp, drop
from sluice_node.core.tables import Chain, Set
from sluice_node.core.view import IP, VERSIONS, Version, View

SPOOFED: Final = "spoofed"
COUNTERS: Final = (SPOOFED,)

_ERRORS: Final = {
    4: "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    6: "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
}
_REQUEST: Final = {4: "icmp type echo-request", 6: "icmpv6 type echo-request"}
_REPLY: Final = {4: "icmp type echo-reply", 6: "icmpv6 type echo-reply"}
_INNER_PORTS: Final = {4: "@th,64,8 0x45 @th,136,8 { 6, 17 }", 6: "@th,112,8 { 6, 17 }"}
_INNER_ECHO: Final = {4: "@th,64,8 0x45 @th,136,8 1", 6: "@th,112,8 58"}
_INNER_FRAGMENT: Final = "@th,112,8 44 @th,384,8 { 6, 17 } @th,400,13 0"
"""The first fragment of a packet: only IPv6 puts a header of 8 bytes between (RFC 8200, section 4.5)."""
_INNER_HEADER_END: Final = {4: 224, 6: 384}
"""Bits from the start of an ICMP error to the transport header inside: 8 bytes, then 20 or 40."""


def sets(view: View) -> Iterator[Set]:
    """Maps by egress IP that lead to the chains of its slice size, and per size the slices themselves."""
    for v in VERSIONS:
        sizes = {address: size for address, size in view.size_of.items() if address.version == v}
        for name, chain in ((f"replies{v}", "reply"), (f"senders{v}", "sent"), (f"own{v}", "own")):
            elements = {str(address): f"goto {chain}_{size}" for address, size in sorted(sizes.items(), key=str)}
            yield Set(name, f"typeof {IP[v]} daddr : verdict", elements, is_map=True)
        for size in view.sizes:
            yield from _slice_sets(view, v, size)


def same_slices(view: View, before: View) -> bool:
    """Whether the sets of both views are equal, found out without making them."""
    return (
        view.desired.slices == before.desired.slices
        and view.desired.node == before.desired.node
        and view.numbers == before.numbers
        and view.desired.peers == before.desired.peers
    )


def _slice_sets(view: View, version: Version, size: int) -> Iterator[Set]:
    owners: dict[str, str | None] = {}
    senders: dict[str, str | None] = {}
    mine: dict[str, str | None] = {}
    marks = {view.desired.node: f"{SELF:#x}"} | {node: f"{mark:#x}" for node, mark in view.marks.items()}
    macs = {node: view.peers[node].mac for node in view.marks}
    for address, group in view.slices.items():
        if address.version != version or view.size_of[address] != size:
            continue
        text = str(address)
        for owner in group:
            mark = marks.get(owner.node)
            if mark is None:
                continue
            for index in range(owner.first // size, (owner.first + owner.size) // size):
                key = f"{text} . {index:#x}"
                owners[key] = mark
                if owner.node in macs:
                    senders[f"{macs[owner.node]} . {key}"] = None
                else:
                    mine[key] = None
    ip, width = IP[version], _width(size)
    yield Set(f"owners{version}_{size}", f"typeof {ip} daddr . @th,16,{width} : meta mark", owners, is_map=True)
    yield Set(f"senders{version}_{size}", f"typeof ether saddr . {ip} saddr . @th,0,{width}", senders)
    yield Set(f"own{version}_{size}", f"typeof {ip} saddr . @th,0,{width}", mine)


def _width(size: int) -> int:
    """How many top bits of a port name its slice."""
    return 16 - (size.bit_length() - 1)


def chains(view: View) -> Iterator[Chain]:
    """The chains that look at slices; all are reached by `goto` and end every packet."""
    yield Chain(
        "delivered",
        (
            *(f'iifname "{TUNNEL_DEVICE}" {rule}' for rule in clamp(view)),
            f"meta mark set meta mark & {FOREIGN:#x} accept",
        ),
    )
    yield Chain(
        "deliver",
        (
            f"meta mark & {PEER:#x} == {SELF:#x} goto delivered",
            f'iifname "{TUNNEL_DEVICE}" {drop(UNSOLICITED)}',
            f"meta mark & {PEER:#x} == 0 {drop(UNSOLICITED)}",
            "notrack accept",
        ),
    )
    yield Chain("forward_out", (f"meta mark set meta mark & {FOREIGN:#x} notrack accept",))
    for size in view.sizes:
        yield Chain(f"reply_{size}", tuple(_reply_rules(size)))
        sender = ("ether saddr . ", "senders", "goto forward_out")
        yield Chain(f"sent_{size}", (*_source_rules(size, *sender), drop(SPOOFED)))
        yield Chain(f"own_{size}", (*_source_rules(size, "", "own", "accept"), drop(LEAK)))


def _reply_rules(size: int) -> Iterator[str]:
    """What an answer's destination port, identifier or carried header says about its owner."""
    width = _width(size)
    yield f"meta mark set meta mark & {FOREIGN:#x}"
    for v in VERSIONS:
        found = f"meta mark set {IP[v]} daddr . {{field}} map @owners{v}_{size}"
        end = _INNER_HEADER_END[v]
        yield f"meta l4proto {{ tcp, udp }} {found.format(field=f'@th,16,{width}')}"
        yield f"{_REPLY[v]} {found.format(field=f'@th,32,{width}')}"
        yield f"{_ERRORS[v]} {_INNER_PORTS[v]} {found.format(field=f'@th,{end},{width}')}"
        yield f"{_ERRORS[v]} {_INNER_ECHO[v]} {found.format(field=f'@th,{end + 32},{width}')}"
        if v == 6:
            yield f"{_ERRORS[v]} {_INNER_FRAGMENT} {found.format(field=f'@th,{end + 64},{width}')}"
    yield "goto deliver"


def _source_rules(size: int, prefix: str, name: str, verdict: str) -> Iterator[str]:
    """What a packet's source port or identifier must be; an error of ours carries our port as the destination."""
    width = _width(size)
    for v in VERSIONS:
        key = f"{prefix}{IP[v]} saddr . "
        end = _INNER_HEADER_END[v]
        yield f"meta l4proto {{ tcp, udp }} {key}@th,0,{width} @{name}{v}_{size} {verdict}"
        yield f"{_REQUEST[v]} {key}@th,32,{width} @{name}{v}_{size} {verdict}"
        yield f"{_ERRORS[v]} {_INNER_PORTS[v]} {key}@th,{end + 16},{width} @{name}{v}_{size} {verdict}"
