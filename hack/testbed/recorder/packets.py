"""Reads the headers of IPv4 and IPv6 packets: who sent what to whom.

Pure: bytes in, a Packet or None out. Must not use sockets or the clock. Never raises for any input: a packet that
cannot be read is None, because a recorder that dies of a strange packet proves nothing afterwards.
"""

import ipaddress
import struct
from dataclasses import dataclass
from typing import Literal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: What a packet does to its flow: opens it (TCP SYN without ACK), resets it (TCP RST), or anything else.
Stage = Literal["open", "reset", "other"]

_TCP, _UDP, _ICMP, _ICMPV6, _FRAGMENT = 6, 17, 1, 58, 44
_NAMES = {_TCP: "tcp", _UDP: "udp"}
#: IPv6 extension headers that are skipped: hop-by-hop, routing, destination options, mobility (RFC 8200 section 4).
_SKIPPED = {0, 43, 60, 135}
_ECHO_REQUEST = {(_ICMP, 8), (_ICMPV6, 128)}
_ECHO_REPLY = {(_ICMP, 0), (_ICMPV6, 129)}
#: Multicast listener and neighbour discovery: talk of the link itself, on every link (RFC 4443, 4861, 3810).
_LINK_TALK = {130, 131, 132, 133, 134, 135, 136, 137, 143}


@dataclass(frozen=True, slots=True)
class Packet:
    """The part of a packet that tells flows apart.

    `protocol` is tcp, udp, icmp (echo request), icmp-reply (echo reply), icmp-<type> or ip-<number>; ports are 0 where
    the packet has none (a later fragment included); the source port of an echo is its identifier.
    """

    protocol: str
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    stage: Stage = "other"


def read(data: bytes | memoryview) -> Packet | None:
    """The packet whose IP header `data` starts with (a prefix is enough); None if it is no packet or is link talk."""
    if len(data) < 20:
        return None
    version = data[0] >> 4
    if version == 4:
        return _read_v4(data)
    return _read_v6(data) if version == 6 else None


def _read_v4(data: bytes | memoryview) -> Packet | None:
    header = (data[0] & 0x0F) * 4
    if header < 20:
        return None
    source = ipaddress.IPv4Address(bytes(data[12:16]))
    destination = ipaddress.IPv4Address(bytes(data[16:20]))
    offset = struct.unpack_from("!H", data, 6)[0] & 0x1FFF
    return _read_payload(data[9], b"" if offset else data[header:], source, destination)


def _read_v6(data: bytes | memoryview) -> Packet | None:
    if len(data) < 40:
        return None
    source = ipaddress.IPv6Address(bytes(data[8:24]))
    destination = ipaddress.IPv6Address(bytes(data[24:40]))
    protocol, rest = data[6], data[40:]
    while protocol in _SKIPPED or protocol == _FRAGMENT:
        if len(rest) < 8:
            return Packet(f"ip-{protocol}", source, 0, destination, 0)
        if protocol == _FRAGMENT:
            later = struct.unpack_from("!H", rest, 2)[0] >> 3
            protocol, rest = rest[0], b"" if later else rest[8:]
            if later:
                break
        else:
            protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
    return _read_payload(protocol, rest, source, destination)


def _read_payload(protocol: int, data: bytes | memoryview, source: Address, destination: Address) -> Packet | None:
    if protocol in _NAMES:
        ports = struct.unpack_from("!HH", data) if len(data) >= 4 else (0, 0)
        stage = _stage(data[13]) if protocol == _TCP and len(data) > 13 else "other"
        return Packet(_NAMES[protocol], source, ports[0], destination, ports[1], stage)
    if protocol in (_ICMP, _ICMPV6) and len(data) >= 8:
        return _read_icmp(protocol, data, source, destination)
    return Packet(f"ip-{protocol}", source, 0, destination, 0)


def _read_icmp(protocol: int, data: bytes | memoryview, source: Address, destination: Address) -> Packet | None:
    kind = (protocol, data[0])
    if kind in _ECHO_REQUEST or kind in _ECHO_REPLY:
        name = "icmp" if kind in _ECHO_REQUEST else "icmp-reply"
        return Packet(name, source, struct.unpack_from("!H", data, 4)[0], destination, 0)
    if protocol == _ICMPV6 and data[0] in _LINK_TALK:
        return None
    return Packet(f"icmp-{data[0]}", source, 0, destination, 0)


def _stage(flags: int) -> Stage:
    """From the flags byte of a TCP header: SYN 0x02, RST 0x04, ACK 0x10."""
    if flags & 0x04:
        return "reset"
    return "open" if flags & 0x12 == 0x02 else "other"
