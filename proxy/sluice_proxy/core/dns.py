"""DNS messages: one question out, its addresses in (RFC 1035, RFC 2308, RFC 3596).

Invariants: an answer counts only when identifier, question and class match, and its addresses only when their owner
is the name asked for or the end of its chain of aliases; no read past the message; compression pointers only lead
backwards.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from .host import Address

TTL_MAX = 3600
NEGATIVE_TTL_MAX = 60
_CLASS_IN = 1
_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_FLAG_RESPONSE, _FLAG_TRUNCATED, _FLAG_RECURSION = 0x8000, 0x0200, 0x0100
_OPCODE = 0x7800
_ALIASES_MAX = 16
_RECORDS_MAX = 512


class RecordType(IntEnum):
    """The record types that this resolver reads."""

    A = 1
    CNAME = 5
    SOA = 6
    AAAA = 28


class ResponseCode(IntEnum):
    """Response codes that mean something here."""

    SUCCESS = 0
    NO_SUCH_NAME = 3


class DnsError(ValueError):
    """The message is not an answer to the question."""


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """What a server said. `ttl` in seconds; for an answer without addresses, how long that may be remembered (0:
    not at all)."""

    code: int
    truncated: bool
    addresses: tuple[Address, ...]
    ttl: int


def encode_query(identifier: int, name: str, kind: RecordType) -> bytes:
    """A recursive query for `name` (normal form, without a final dot)."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    return _HEADER.pack(identifier, _FLAG_RECURSION, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, _CLASS_IN)


def parse_answer(data: bytes, identifier: int, name: str, kind: RecordType) -> DnsAnswer:
    """The answer in `data` to the query with this identifier, name and kind. Raises DnsError."""
    try:
        return _parse(data, identifier, name, kind)
    except (struct.error, IndexError) as error:
        raise DnsError(f"cut short: {error}") from None


def _parse(data: bytes, identifier: int, name: str, kind: RecordType) -> DnsAnswer:
    got, flags, questions, answers, authorities, _ = _HEADER.unpack_from(data)
    if got != identifier or not flags & _FLAG_RESPONSE or flags & _OPCODE or questions != 1:
        raise DnsError("not the response to this query")
    asked, position = _name(data, _HEADER.size)
    if asked != name or struct.unpack_from("!HH", data, position) != (kind, _CLASS_IN):
        raise DnsError("the response is to another question")
    position += 4
    code = flags & 0xF
    if flags & _FLAG_TRUNCATED:
        return DnsAnswer(code, True, (), 0)
    if answers + authorities > _RECORDS_MAX:
        raise DnsError("too many records")
    aliases: dict[str, tuple[str, int]] = {}
    found: dict[str, list[tuple[Address, int]]] = {}
    negative = 0
    for index in range(answers + authorities):
        owner, position = _name(data, position)
        rtype, rclass, ttl, size = _RECORD.unpack_from(data, position)
        start = position + _RECORD.size
        position = start + size
        if position > len(data):
            raise DnsError("a record runs past the message")
        ttl = min(ttl, TTL_MAX) if ttl < 1 << 31 else 0
        if rclass != _CLASS_IN:
            continue
        if index >= answers:
            negative = _negative(data, start, position, ttl) if rtype == RecordType.SOA else negative
        elif rtype == RecordType.CNAME:
            aliases.setdefault(owner, (_name(data, start)[0], ttl))
        elif rtype == kind:
            found.setdefault(owner, []).append((_address(data[start:position], kind), ttl))
    return _follow(name, code, aliases, found, negative)


def _follow(
    name: str,
    code: int,
    aliases: dict[str, tuple[str, int]],
    found: dict[str, list[tuple[Address, int]]],
    negative: int,
) -> DnsAnswer:
    ttl = TTL_MAX
    for _ in range(_ALIASES_MAX):
        if name in found:
            records = found[name]
            return DnsAnswer(
                code, False, tuple(dict.fromkeys(a for a, _ in records)), min(ttl, *(t for _, t in records))
            )
        if name not in aliases:
            break
        name, alias_ttl = aliases[name]
        ttl = min(ttl, alias_ttl)
    return DnsAnswer(code, False, (), min(ttl, negative))


def _negative(data: bytes, start: int, end: int, ttl: int) -> int:
    """How long a negative answer holds: the lesser of the SOA's TTL and its MINIMUM field (RFC 2308, section 5)."""
    if end - start < 22:
        raise DnsError("an SOA record is too short")
    (minimum,) = struct.unpack_from("!I", data, end - 4)
    return min(ttl, int(minimum), NEGATIVE_TTL_MAX)


def _address(data: bytes, kind: RecordType) -> Address:
    if len(data) != (4 if kind == RecordType.A else 16):
        raise DnsError("an address record has the wrong size")
    return IPv4Address(data) if kind == RecordType.A else IPv6Address(data)


def _name(data: bytes, position: int) -> tuple[str, int]:
    """The name at `position` in lower case, and where the bytes after it begin. Octets outside ASCII never match a
    name asked for."""
    labels: list[str] = []
    after = -1
    limit = position
    total = 0
    while True:
        length = data[position]
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | data[position + 1]
            if after < 0:
                after = position + 2
            if target >= limit:
                raise DnsError("a compression pointer does not lead backwards")
            position = limit = target
            continue
        if length > 63:
            raise DnsError("an unknown label type")
        position += 1
        if length == 0:
            return ".".join(labels), position if after < 0 else after
        total += length + 1
        if total > 254 or position + length > len(data):
            raise DnsError("a name is too long or cut short")
        labels.append(data[position : position + length].decode("latin-1").lower().replace(".", "\\."))
        position += length
