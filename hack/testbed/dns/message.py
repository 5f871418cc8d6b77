"""DNS messages, as far as an authoritative server for addresses needs them: reads queries strictly, writes answers.

Rules: RFC 1035 section 4 (format), RFC 2308 (negative answers carry the SOA), RFC 6891 (an OPT record in a query is
allowed and not acted on). Pure: bytes in, bytes out. Must not use sockets or files.
"""

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

A, SOA, AAAA, ANY, OPT = 1, 6, 28, 255, 41
_IN = 1
_HEADER = struct.Struct("!HHHHHH")
_QUERY_BIT, _AUTHORITATIVE, _TRUNCATED, _RECURSION_DESIRED = 0x8000, 0x0400, 0x0200, 0x0100
_OPCODE = 0x7800
_NAME_BYTES, _LABEL_BYTES = 255, 63


class Code(IntEnum):
    """Response codes (RFC 1035 section 4.1.1)."""

    NOERROR = 0
    FORMERR = 1
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


class QueryError(ValueError):
    """A message that is not a query this server answers; `code` says why, None that no answer is due at all."""

    def __init__(self, reason: str, code: Code | None) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `name` is lower case, without the final dot; `question` is its bytes as asked, to be repeated."""

    id: int
    recursion_desired: bool
    name: str
    type: int
    question: bytes


def parse(data: bytes) -> Query:
    """Read a query. Raises QueryError."""
    if len(data) < _HEADER.size:
        raise QueryError("shorter than a header", None)
    identifier, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _QUERY_BIT:
        raise QueryError("a response", None)
    if flags & _OPCODE:
        raise QueryError("not a standard query", Code.NOTIMP)
    if questions != 1 or answers or authorities or additional > 1:
        raise QueryError("not exactly one question", Code.FORMERR)
    name, end = _read_name(data, _HEADER.size)
    if len(data) < end + 4:
        raise QueryError("the question is cut", Code.FORMERR)
    kind, klass = struct.unpack_from("!HH", data, end)
    question = data[_HEADER.size : end + 4]
    if additional:
        _check_opt(data, end + 4)
    elif len(data) != end + 4:
        raise QueryError("bytes after the question", Code.FORMERR)
    if klass != _IN:
        raise QueryError("a class other than IN", Code.REFUSED)
    return Query(identifier, bool(flags & _RECURSION_DESIRED), name, kind, question)


def answer(query: Query, addresses: Sequence[Address], *, ttl: int, limit: int) -> bytes:
    """A positive answer; if it were longer than `limit` bytes, an empty truncated one: the client asks again by TCP."""
    records = b"".join(_record(address, ttl) for address in addresses)
    if _HEADER.size + len(query.question) + len(records) > limit:
        return _message(query, flags=_TRUNCATED)
    return _message(query, records, answers=len(addresses))


def negative(query: Query, code: Code, *, zone: str, ttl: int) -> bytes:
    """No such name (NXDOMAIN) or no such record of it (NOERROR), to be remembered for `ttl` seconds."""
    times = struct.pack("!IIIII", 1, 3600, 600, 86400, ttl)
    data = _write_name(f"ns.{zone}") + _write_name(f"hostmaster.{zone}") + times
    soa = _write_name(zone) + struct.pack("!HHIH", SOA, _IN, ttl, len(data)) + data
    return _message(query, soa, authorities=1, code=code)


def refusal(data: bytes, code: Code) -> bytes:
    """An answer that only carries an error, to a message with at least a header."""
    identifier, flags = struct.unpack_from("!HH", data)
    kept = flags & (_OPCODE | _RECURSION_DESIRED)
    return _HEADER.pack(identifier, _QUERY_BIT | kept | code, 0, 0, 0, 0)


def _message(
    query: Query,
    records: bytes = b"",
    *,
    answers: int = 0,
    authorities: int = 0,
    flags: int = 0,
    code: Code = Code.NOERROR,
) -> bytes:
    flags |= _QUERY_BIT | _AUTHORITATIVE | (_RECURSION_DESIRED if query.recursion_desired else 0) | code
    return _HEADER.pack(query.id, flags, 1, answers, authorities, 0) + query.question + records


def _record(address: Address, ttl: int) -> bytes:
    pointer_to_question = 0xC000 | _HEADER.size
    kind = A if address.version == 4 else AAAA
    return struct.pack("!HHHIH", pointer_to_question, kind, _IN, ttl, len(address.packed)) + address.packed


def _read_name(data: bytes, start: int) -> tuple[str, int]:
    """The name at `start` and where it ends. A question has nothing before it to point to: pointers are refused."""
    labels, position = [], start
    while True:
        if position >= len(data):
            raise QueryError("the name is cut", Code.FORMERR)
        length = data[position]
        position += 1
        if length == 0:
            break
        label = data[position : position + length]
        if length > _LABEL_BYTES or len(label) < length or position + length - start > _NAME_BYTES - 1:
            raise QueryError("a label or name that is too long, cut or compressed", Code.FORMERR)
        if not all(0x21 <= byte <= 0x7E and byte != ord(".") for byte in label):
            raise QueryError("a label with other than printable ASCII", Code.REFUSED)
        labels.append(label.decode("ascii").lower())
        position += length
    return ".".join(labels), position


def _write_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"


def _check_opt(data: bytes, start: int) -> None:
    """The additional record must be an OPT record (root name) and end the message."""
    if len(data) < start + 11 or data[start] != 0:
        raise QueryError("an additional record that is not OPT", Code.FORMERR)
    kind, _size, _flags, length = struct.unpack_from("!HHIH", data, start + 1)
    if kind != OPT or len(data) != start + 11 + length:
        raise QueryError("an additional record that is not OPT", Code.FORMERR)
