"""The records that the server answers from, read from a text file.

One record a line, `NAME A|AAAA ADDRESS`, several lines for several addresses; `#` starts a comment. The first line that
is neither empty nor a comment names the zone: `zone partner.example`. Every name must lie in the zone.

Pure: text and queries in, answers out. Must not read files.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from testbed.dns import message
from testbed.dns.message import Address, Code, Query, QueryError

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_VERSIONS = {"A": 4, "AAAA": 6}
_TYPES = {message.A: 4, message.AAAA: 6}


class ZoneError(ValueError):
    """A zone file that cannot be read; the message has the line number."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A domain and the addresses of its names."""

    name: str
    addresses: Mapping[str, tuple[Address, ...]]

    def holds(self, name: str) -> bool:
        """Whether the zone is the authority for a name."""
        return name == self.name or name.endswith(f".{self.name}")

    def exists(self, name: str) -> bool:
        """Whether a name has records or stands above one that has (RFC 8020: then it is not NXDOMAIN)."""
        below = f".{name}"
        return name == self.name or any(known == name or known.endswith(below) for known in self.addresses)


def parse_zone(text: str) -> Zone:
    """Read a zone file. Raises ZoneError."""
    zone: str | None = None
    addresses: dict[str, tuple[Address, ...]] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        if zone is None:
            if len(words) != 2 or words[0] != "zone" or not _NAME.fullmatch(words[1]):
                raise ZoneError(f"line {number}: expected `zone NAME`, got {raw!r}")
            zone = words[1]
            continue
        name, address = _parse_record(words, number)
        if name != zone and not name.endswith(f".{zone}"):
            raise ZoneError(f"line {number}: {name} is not in the zone {zone}")
        addresses[name] = (*addresses.get(name, ()), address)
    if zone is None:
        raise ZoneError("the file names no zone")
    return Zone(zone, addresses)


def format_zone(zone: Zone) -> str:
    """The text that parse_zone reads."""
    lines = [f"zone {zone.name}"]
    for name, addresses in zone.addresses.items():
        lines += [f"{name} {'A' if address.version == 4 else 'AAAA'} {address}" for address in addresses]
    return "\n".join(lines) + "\n"


def respond(data: bytes, zone: Zone, *, ttl: int, limit: int) -> bytes | None:
    """The answer to a message, of at most `limit` bytes; None where none is due."""
    try:
        query = message.parse(data)
    except QueryError as error:
        return None if error.code is None else message.refusal(data, error.code)
    if not zone.holds(query.name):
        return message.refusal(data, Code.REFUSED)
    if not zone.exists(query.name):
        return message.negative(query, Code.NXDOMAIN, zone=zone.name, ttl=ttl)
    addresses = _matching(query, zone)
    if not addresses:
        return message.negative(query, Code.NOERROR, zone=zone.name, ttl=ttl)
    return message.answer(query, addresses, ttl=ttl, limit=limit)


def _matching(query: Query, zone: Zone) -> list[Address]:
    known = zone.addresses.get(query.name, ())
    if query.type == message.ANY:
        return list(known)
    return [address for address in known if address.version == _TYPES.get(query.type)]


def _parse_record(words: list[str], number: int) -> tuple[str, Address]:
    if len(words) != 3 or words[1] not in _VERSIONS or not _NAME.fullmatch(words[0]):
        raise ZoneError(f"line {number}: expected `NAME A|AAAA ADDRESS`, got {' '.join(words)!r}")
    try:
        address = ipaddress.ip_address(words[2])
    except ValueError as error:
        raise ZoneError(f"line {number}: {error}") from error
    if address.version != _VERSIONS[words[1]]:
        raise ZoneError(f"line {number}: {address} is no address for {words[1]}")
    return words[0], address
