"""Heads as they are sent on: the request to the server, the response to the client.

One request per connection on both sides, so both heads say `Connection: close` and no response can be taken for
another request's. Invariants: hop-by-hop fields, whatever Connection names, and every Proxy-* field stop here (RFC
9110, section 7.6.1); framing fields are written by us from what was parsed.
"""

import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from .host import Host
from .refusal import ProxyError, Refusal, RefusedError
from .request import CHUNKED, Fields, Request, find_end, parse_fields, values

RESPONSE_HEAD_MAX: Final = 65536

UNTIL_CLOSE: Final = -2
"""The value of Response.body when the connection's end is the end of the body; otherwise as in Request.body."""

_HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"content-length",
        b"host",
    )
)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\r\n]*))?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Response:
    """A response head to be sent on, and how its body ends."""

    status: int
    head: bytes
    body: int


def pseudonym(pool: str) -> bytes:
    """What this pool's proxies call themselves in Via (RFC 9110, section 7.6.3); says nothing about the pool to
    outsiders."""
    return b"sluice-" + hashlib.sha256(pool.encode()).hexdigest()[:8].encode()


def check_loop(request: Request, name: bytes) -> None:
    """Raises RefusedError (502) when the request went through this pool's proxies before."""
    for value in values(request.fields, b"via"):
        if any(name in entry.split() for entry in value.split(b",")):
            detail = "The request went through this pool's proxy before: a proxy behind it leads back."
            raise RefusedError(Refusal(502, ProxyError.PROXY_LOOP_DETECTED, "loop", detail))


def forward_head(request: Request, name: bytes) -> bytes:
    """The head of an absolute-form request for the server itself: origin form, Host from the target (RFC 9112,
    section 3.2.2)."""
    lines = [b"%s %s HTTP/1.1" % (request.method, request.target), b"Host: " + _host_field(request.host, request.port)]
    lines += _end_to_end(request.fields)
    if request.body == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    elif request.body or values(request.fields, b"content-length"):
        lines.append(b"Content-Length: %d" % request.body)
    lines += [b"Via: 1.1 " + name, b"Connection: close", b"", b""]
    return b"\r\n".join(lines)


def parse_response(data: bytes, method: bytes, name: bytes) -> tuple[Response, int] | None:
    """The response head at the start of `data` and the bytes it takes; None when it is not complete.

    Raises RefusedError (502): a response that two readers could understand differently is not sent on.
    """
    try:
        end = find_end(data, RESPONSE_HEAD_MAX)
        if end is None:
            return None
        line = _STATUS_LINE.match(data)
        if line is None:
            raise _bad_response("The server's status line is not one of HTTP/1.1.")
        fields = parse_fields(data, line.end(), end)
    except RefusedError as error:
        if error.refusal.status == 502:
            raise
        raise _bad_response("The server's response head is malformed or too large.") from None
    status = int(line[2])
    if status == 101:
        raise _bad_response("The server switched protocols although nobody asked for it.")
    return _response(status, line, fields, method, name), end


def _response(status: int, line: re.Match[bytes], fields: Fields, method: bytes, name: bytes) -> Response:
    lengths, codings = values(fields, b"content-length"), values(fields, b"transfer-encoding")
    if codings and (lengths or line[1] == b"0" or codings != [b"chunked"]):
        raise _bad_response("The server's response has an ambiguous or unknown transfer coding.")
    if lengths and (len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0])):
        raise _bad_response("The server's response has no single decimal Content-Length.")
    lines = [b"HTTP/1.1 %d %s" % (status, line[3] or b""), *_end_to_end(fields)]
    if codings:
        lines.append(b"Transfer-Encoding: chunked")
    elif lengths:
        lines.append(b"Content-Length: " + lengths[0])
    lines.append(b"Via: 1.%s %s" % (line[1], name))
    if status >= 200:
        lines.append(b"Connection: close")
    if status < 200 or status in (204, 304) or method == b"HEAD":
        body = 0
    elif codings:
        body = CHUNKED
    else:
        body = int(lengths[0]) if lengths else UNTIL_CLOSE
    return Response(status, b"\r\n".join([*lines, b"", b""]), body)


def _end_to_end(fields: Fields) -> list[bytes]:
    named = {token.strip().lower() for value in values(fields, b"connection") for token in value.split(b",")}
    kept = []
    for name, value in fields:
        key = name.lower()
        if key not in _HOP_BY_HOP and key not in named and not key.startswith(b"proxy-"):
            kept.append(b"%s: %s" % (name, value))
    return kept


def _host_field(host: Host, port: int) -> bytes:
    text = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    return (text if port == 80 else f"{text}:{port}").encode("ascii")


def _bad_response(detail: str) -> RefusedError:
    return RefusedError(Refusal(502, ProxyError.HTTP_PROTOCOL_ERROR, "bad-response", detail))
