"""Frames that the agent itself sends: announcements of an address, questions for one, and liveness probes.

Invariants: pure; bytes in, bytes out. Sources: gratuitous ARP is RFC 5227 section 3 (ARP announcement), the
unsolicited neighbour advertisement RFC 4861 section 7.2.6; the question RFC 5227 section 2.1.1 (ARP probe) and RFC 4862
section 5.4.2 (duplicate address detection); the liveness probe RFC 9747 (unaffiliated BFD echo: the sender's own
address is the destination, so that whoever receives it forwards it back).
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from sluice_api.names import PROBE_PORT
from sluice_node.core.desired import Address

PROBE_ADDRESS: Final = IPv4Address("169.254.101.3")
"""Source and destination of every probe: link-local, of nobody, and routed into the tunnel by every node."""
PROBE_TTL: Final = 255
_MAGIC: Final = b"SLc1"
_PROBE: Final = struct.Struct("!4sIQ")
_ETHERNET: Final = struct.Struct("!6s6sH")
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_UDP: Final = struct.Struct("!HHHH")
_ARP: Final = struct.Struct("!HHBBH")
_IPV6: Final = struct.Struct("!IHBB")
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOLICITED_NODE: Final = IPv6Address("ff02::1:ff00:0").packed[:13]
_UNSPECIFIED: Final = IPv4Address(0)
_ETH_IPV4, _ETH_ARP, _ETH_IPV6 = 0x0800, 0x0806, 0x86DD
_BROADCAST: Final = b"\xff" * 6


def mac_bytes(mac: str) -> bytes:
    """`02:00:5e:00:53:01` as six bytes; raises ValueError for anything else."""
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"{mac!r} is not a MAC address")
    return raw


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def announcement(address: Address, mac: str) -> bytes:
    """The frame that tells the LAN that `address` is at `mac` from now on."""
    sender = mac_bytes(mac)
    return _arp(address, sender) if isinstance(address, IPv4Address) else _advertisement(address, sender)


def _arp(address: IPv4Address, sender: bytes, *, sender_address: bytes | None = None) -> bytes:
    header = _ARP.pack(1, _ETH_IPV4, 6, 4, 1)
    own = address.packed if sender_address is None else sender_address
    return _ETHERNET.pack(_BROADCAST, sender, _ETH_ARP) + header + sender + own + bytes(6) + address.packed


def _advertisement(address: IPv6Address, sender: bytes) -> bytes:
    everyone = IPv6Address("ff02::1").packed
    override = 0x20000000
    option = struct.pack("!BB", 2, 1) + sender
    body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, override) + address.packed + option
    return _icmpv6(body, sender=sender, source=address.packed, target=everyone)


def question(address: Address, mac: str) -> bytes:
    """The frame that asks who has `address`, without saying that the sender has or wants it: nobody learns from it."""
    sender = mac_bytes(mac)
    if isinstance(address, IPv4Address):
        return _arp(address, sender, sender_address=bytes(4))
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + address.packed
    target = _SOLICITED_NODE + address.packed[-3:]
    return _icmpv6(body, sender=sender, source=bytes(16), target=target)


def _icmpv6(body: bytes, *, sender: bytes, source: bytes, target: bytes) -> bytes:
    """To a multicast address (RFC 2464, section 7)."""
    pseudo = source + target + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = _IPV6.pack(6 << 28, len(body), 58, 255) + source + target
    return _ETHERNET.pack(b"\x33\x33" + target[-4:], sender, _ETH_IPV6) + header + body


@dataclass(frozen=True, slots=True)
class Say:
    """Somebody says to have an address, at this MAC."""

    address: Address
    mac: str


def parse_say(frame: bytes) -> Say | None:
    """Who says by a frame to have which address: the sender of an ARP packet (RFC 5227, section 2.1.1: whether it asks
    or answers), or a neighbour advertisement; None for anything else."""
    if len(frame) < _ETHERNET.size:
        return None
    kind = _ETHERNET.unpack_from(frame)[2]
    data = frame[_ETHERNET.size :]
    if kind == _ETH_ARP and len(data) >= _ARP.size + 20 and _ARP.unpack_from(data)[:4] == (1, _ETH_IPV4, 6, 4):
        mac, address = data[8:14], IPv4Address(data[14:18])
        return None if address == _UNSPECIFIED else Say(address, mac.hex(":"))
    if kind == _ETH_IPV6 and len(data) >= _IPV6.size + 32 + 24:
        _, _, following, hops = _IPV6.unpack_from(data)
        body = data[_IPV6.size + 32 :]
        if following == 58 and hops == 255 and body[0] == _ADVERTISEMENT:
            return Say(IPv6Address(body[8:24]), _link_address(body[24:]) or frame[6:12].hex(":"))
    return None


def _link_address(options: bytes) -> str | None:
    """The target link-layer address option (RFC 4861, section 4.6.1)."""
    while len(options) >= 8 and options[1]:
        if options[:2] == b"\x02\x01":
            return options[2:8].hex(":")
        options = options[8 * options[1] :]
    return None


@dataclass(frozen=True, slots=True)
class Echo:
    """A probe that came back: by which gateway's MAC, which one, and when it was sent (nanoseconds, sender's clock)."""

    mac: str
    sequence: int
    sent: int


def probe(*, source: str, gateway: str, sequence: int, sent: int) -> bytes:
    """The frame that asks the gateway with this tunnel MAC to send it back to `source`."""
    payload = _PROBE.pack(_MAGIC, sequence & 0xFFFFFFFF, sent)
    udp = _UDP.pack(PROBE_PORT, PROBE_PORT, _UDP.size + len(payload), 0) + payload
    ends = PROBE_ADDRESS.packed * 2
    head = _IPV4.pack(0x45, 0xC0, _IPV4.size + len(udp), 0, 0x4000, PROBE_TTL, 17, 0, ends[:4], ends[4:])
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return _ETHERNET.pack(mac_bytes(gateway), mac_bytes(source), _ETH_IPV4) + head + udp


def parse_probe(frame: bytes) -> Echo | None:
    """What a frame says if it is a probe that a gateway sent back, else None."""
    start = _ETHERNET.size + _IPV4.size
    if len(frame) < start + _UDP.size + _PROBE.size:
        return None
    _, sender, kind = _ETHERNET.unpack_from(frame)
    version, _, _, _, _, ttl, protocol, _, _, to = _IPV4.unpack_from(frame, _ETHERNET.size)
    _, port, _, _ = _UDP.unpack_from(frame, start)
    magic, sequence, sent = _PROBE.unpack_from(frame, start + _UDP.size)
    is_probe = (kind, version, protocol, port) == (_ETH_IPV4, 0x45, 17, PROBE_PORT)
    if not is_probe or ttl == PROBE_TTL or to != PROBE_ADDRESS.packed or magic != _MAGIC:
        return None
    return Echo(mac=sender.hex(":"), sequence=sequence, sent=sent)
