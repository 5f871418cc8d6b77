"""The head of a request, parsed as a strict subset of HTTP/1.1 (RFC 9112): what is ambiguous anywhere is refused here.

Invariants: the result does not depend on how the bytes were cut into pieces; a head is at most HEAD_MAX bytes and
FIELDS_MAX fields; exactly one framing of the body; a bare LF or CR, an obs-fold, a second Host or Content-Length
never passes.
"""

import re
from dataclasses import dataclass
from enum import Enum

from .host import Host, parse_authority
from .refusal import RefusedError, malformed

HEAD_MAX = 16384
FIELDS_MAX = 100

CHUNKED = -1
"""The value of Request.body for a chunked body; any other value is its length in bytes."""

_EOL = b"\r\n"
_END = _EOL + _EOL
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LEGAL = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""Octets that a head may hold at all: everything but control characters."""
# Methods are short: the longest registered one has 16 letters, and it goes into the log.
_METHOD = _TOKEN[:-1] + rb"{1,32}"
_LINE = re.compile(rb"(" + _METHOD + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\r\n]*)\r\n")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[^\r\n]*\r\n)*\r\n")
_ABSOLUTE = re.compile(rb"http://([^/?#]+)((?:/[^#]*)?)((?:\?[^#]*)?)", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,18}")

Fields = tuple[tuple[bytes, bytes], ...]


class Kind(Enum):
    """What is asked of the proxy."""

    CONNECT = "connect"
    FORWARD = "forward"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed head. `target` is the origin form for what is sent on; `host` is empty and `port` 0 for a local
    request."""

    kind: Kind
    method: bytes
    host: Host
    port: int
    target: bytes
    minor: int
    fields: Fields
    body: int


def parse_request(data: bytes) -> tuple[Request, int] | None:
    """The request at the start of `data` and the number of bytes its head takes; None when the head is not complete.

    Raises RefusedError: 400, 405, 431, 501 or 505.
    """
    end = find_end(data, HEAD_MAX)
    if end is None:
        return None
    line = _LINE.match(data)
    if line is None:
        raise _bad_line(data)
    method, target, minor = line[1], line[2], int(line[3])
    fields = parse_fields(data, line.end(), end)
    if method == b"CONNECT":
        host, port = parse_authority(target.decode("ascii"))
        request = Request(Kind.CONNECT, method, host, port, b"", minor, fields, _body(fields, minor))
        if request.body:
            raise malformed("connect-with-body", "A CONNECT request has no body.")
    elif target.startswith(b"/"):
        request = Request(Kind.LOCAL, method, "", 0, target, minor, fields, _body(fields, minor))
    else:
        request = _absolute(method, target, minor, fields)
    hosts = len(values(fields, b"host"))
    if hosts > 1 or (hosts == 0 and minor == 1):
        raise malformed("bad-host-field", "A request has exactly one Host field.")
    return request, end


def find_end(data: bytes, limit: int) -> int | None:
    """Where the head at the start of `data` ends (just after its empty line); None when it is not complete.

    Raises RefusedError (400) at the first byte that no head may hold, so that a client which will never complete its
    head is told at once; 431 when the head is longer than `limit` bytes.
    """
    found = data.find(_END, 0, limit)
    end = found + len(_END) if found >= 0 else min(len(data), limit)
    head = data[:end]
    lines = head.count(_EOL)
    # A CR at the very end may still become CRLF with the next piece.
    if head.translate(None, _LEGAL) or head.count(b"\n") != lines or head.count(b"\r") != lines + head.endswith(b"\r"):
        raise malformed("bad-line-end", "The head holds a control character, or a line end other than CRLF.")
    if found >= 0:
        return end
    if len(data) >= limit:
        raise malformed("head-too-large", f"The head is longer than {limit} bytes.", 431)
    return None


def parse_fields(data: bytes, start: int, end: int) -> Fields:
    """The field lines between `start` and `end` (just after the empty line), values without white space around them.

    Raises RefusedError (400, 431). A line that begins with white space is an obs-fold (RFC 9112, section 5.2) and is
    refused.
    """
    if not _FIELDS.fullmatch(data, start, end):
        raise malformed("bad-field", "A field line is not `name: value`, or is folded.")
    fields = _FIELD.findall(data, start, end)
    if len(fields) > FIELDS_MAX:
        raise malformed("too-many-fields", f"The head has more than {FIELDS_MAX} fields.", 431)
    return tuple((name, value.rstrip(b" \t")) for name, value in fields)


def values(fields: Fields, name: bytes) -> list[bytes]:
    """Every value of a field; `name` is in lower case."""
    size = len(name)
    return [value for key, value in fields if len(key) == size and key.lower() == name]


def _absolute(method: bytes, target: bytes, minor: int, fields: Fields) -> Request:
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise malformed(
            "bad-target",
            "The target is neither `http://host/path` nor, with CONNECT, `host:port`. Use CONNECT for https.",
        )
    if method == b"TRACE":
        raise malformed("method", "TRACE is not forwarded.", 405)
    if minor == 0:
        raise malformed("version", "A request that is forwarded needs HTTP/1.1.", 505)
    host, port = parse_authority(match[1].decode("ascii"), 80)
    path = match[2] + match[3]
    if not path.startswith(b"/"):
        # RFC 9112, section 3.2.4: OPTIONS without a path speaks of the server as a whole.
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    return Request(Kind.FORWARD, method, host, port, path, minor, fields, _body(fields, minor))


def _body(fields: Fields, minor: int) -> int:
    lengths = values(fields, b"content-length")
    codings = values(fields, b"transfer-encoding")
    if codings:
        if lengths or minor == 0 or len(codings) > 1:
            raise malformed("framing", "Transfer-Encoding stands beside Content-Length, twice, or in HTTP/1.0.")
        if codings[0].lower() != b"chunked":
            raise malformed("coding", "The only transfer coding is chunked.", 501)
        return CHUNKED
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise malformed("framing", "Content-Length stands twice or is not a plain decimal number.")
    return int(lengths[0])


def _bad_line(data: bytes) -> RefusedError:
    line = data[: data.find(b"\r\n")]
    if re.fullmatch(_METHOD + rb" [\x21-\x7e]+ HTTP/[0-9]\.[0-9]", line):
        return malformed("version", "This proxy speaks HTTP/1.1 and, for CONNECT, HTTP/1.0.", 505)
    return malformed("bad-request-line", "The request line is not `METHOD target HTTP/1.1`.")
