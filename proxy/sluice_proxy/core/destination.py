"""Addresses that are never dialled for anyone, whatever a policy says.

The table is explicit: `ipaddress.is_global` calls ::ffff:100.64.0.1, 64:ff9b::a9fe:a9fe and fec0::1 global. It judges
the address that is about to be dialled (a name may resolve to anything), together with every IPv4 address that this
one carries inside. Private ranges (RFC 1918, RFC 4193, RFC 6598) are not here: partners use them. What belongs to the
cluster comes with the snapshot.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import Final

from sluice_api.names import PROXY_SOURCES_V6

from .host import Address
from .networks import Networks

NAT64_WELL_KNOWN: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052, section 2.1. Allowed when the IPv4 address inside is."""
NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
"""RFC 8215. A translator may use it with any prefix length of RFC 6052, so every reading of the address counts."""

_FORBIDDEN: Final = {
    "0.0.0.0/8": "this-network (RFC 1122)",
    "127.0.0.0/8": "loopback (RFC 1122)",
    "169.254.0.0/16": "link-local (RFC 3927)",
    "169.254.169.254/32": "cloud metadata",
    "100.100.100.200/32": "cloud metadata",
    "168.63.129.16/32": "cloud metadata",
    "192.0.0.0/24": "protocol assignments (RFC 6890)",
    "192.88.99.0/24": "6to4 relays (RFC 7526)",
    "224.0.0.0/4": "multicast (RFC 5771)",
    "240.0.0.0/4": "class E (RFC 1112)",
    "255.255.255.255/32": "broadcast (RFC 919)",
    "::/128": "unspecified (RFC 4291)",
    "::1/128": "loopback (RFC 4291)",
    "::/96": "IPv4-compatible (RFC 4291)",
    "::ffff:0:0/96": "IPv4-mapped (RFC 4291)",
    "::ffff:0:0:0/96": "IPv4-translated (RFC 2765)",
    "100::/64": "discard-only (RFC 6666)",
    str(PROXY_SOURCES_V6): "dummy prefix (RFC 9780)",
    "2001::/32": "Teredo (RFC 4380)",
    "2001:10::/28": "ORCHID (RFC 4843)",
    "2001:20::/28": "ORCHIDv2 (RFC 7343)",
    "2002::/16": "6to4 (RFC 7526)",
    "5f00::/16": "segment routing (RFC 9602)",
    "fd00:ec2::/32": "cloud metadata",
    "fd20:ce::254/128": "cloud metadata",
    "fe80::/10": "link-local (RFC 4291)",
    "fec0::/10": "site-local (RFC 3879)",
    "ff00::/8": "multicast (RFC 4291)",
}
_TABLE: Final = Networks((ip_network(text), label) for text, label in _FORBIDDEN.items())
_LOW_32: Final = 0xFFFFFFFF
_ISATAP_INTERFACE: Final = 0x00005EFE


def forbidden(address: Address) -> str | None:
    """Why the address is never dialled (a label of the table), or None."""
    label = _TABLE.find(address)
    if label is not None or address.version == 4:
        return label
    for inner in embedded(address):
        label = _TABLE.find(inner)
        if label is not None:
            return f"{label} inside an IPv6 address"
    return None


def embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a translator or tunnel would reach through this IPv6 address.

    IPv4-mapped and IPv4-compatible, 6to4 and Teredo need no unwrapping to be refused (the table holds them whole),
    but the denied networks of a snapshot and a policy's exceptions are compared with what is inside as well.
    """
    if not isinstance(address, IPv6Address):
        return
    number = int(address)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if number >> 32 == 0 or number >> 32 == 0xFFFF0000:
        yield IPv4Address(number & _LOW_32)
    # ISATAP (RFC 5214, section 6.1): interface identifier ::[02]00:5efe:a.b.c.d.
    if (number >> 32) & 0xFDFFFFFF == _ISATAP_INTERFACE:
        yield IPv4Address(number & _LOW_32)
    if address in NAT64_WELL_KNOWN:
        yield IPv4Address(number & _LOW_32)
    if address in NAT64_LOCAL:
        yield from _local_nat64(number)


def _local_nat64(number: int) -> Iterator[IPv4Address]:
    """The readings of RFC 6052, section 2.2, for prefixes of 48, 56, 64 and 96 bits: bits 64 to 71 are skipped, the
    suffix is zero."""
    yield IPv4Address(number & _LOW_32)
    octets = number.to_bytes(16, "big")
    if octets[8] != 0:
        return
    without_u = octets[:8] + octets[9:]
    for start in (6, 7, 8):
        if not any(without_u[start + 4 :]):
            yield IPv4Address(without_u[start : start + 4])
