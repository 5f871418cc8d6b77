"""Hosts of a request target: an address literal, or a DNS name in normal form.

Invariants: what `getaddrinfo` would turn into an address by itself (0x7f.1, 127.1, 2130706433, 0177.0.0.1) is neither
and is refused, so one spelling has one meaning; a name is lower case without its trailing dot; brackets hold IPv6 and
nothing else.
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from .refusal import malformed

Address = IPv4Address | IPv6Address
Host = IPv4Address | IPv6Address | str

NAME_MAX = 253
"""Octets of a name in text form without the final dot (RFC 1035, section 2.3.4)."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}", re.ASCII)
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_PORT_MAX = 65535


@lru_cache(maxsize=1024)
def parse_authority(text: str, default_port: int | None = None) -> tuple[Host, int]:
    """The host and port of `host:port`; the port may be absent when there is a default.

    Raises RefusedError (400). User information is refused: credentials in a target end up in logs.
    """
    if text.startswith("["):
        inside, bracket, tail = text[1:].partition("]")
        if not bracket:
            raise malformed("bad-host", "An IPv6 address in the target has no closing bracket.")
        return _ipv6(inside), _port(tail, default_port)
    name, colon, digits = text.partition(":")
    return parse_host(name), _port(colon + digits, default_port)


def parse_host(text: str) -> Host:
    """An IPv4 address in dotted quad form, or a DNS name (RFC 1123, section 2.1, and the underscore that DNS has in
    practice).

    Raises RefusedError (400; 403 for localhost).
    """
    try:
        return IPv4Address(text)
    except AddressValueError:
        pass
    name = text.lower().removesuffix(".")
    if len(name) > NAME_MAX or not text.isascii() or not _NAME.fullmatch(name):
        raise malformed(
            "bad-host",
            "The target's host is neither an address nor a DNS name (international names go as xn-- labels).",
        )
    # The last label of a name is never a number (URL standard, "ends in a number"): this is how the odd forms of IPv4
    # addresses look.
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        raise malformed("bad-host", "The target's host looks like an IPv4 address but is not in dotted quad form.")
    # Names of the loopback address by definition (RFC 6761, section 6.3), which must not be sent to a name server.
    if name == "localhost" or name.endswith(".localhost"):
        raise malformed("localhost", "The proxy does not connect to its own host.", status=403)
    return name


def _ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise malformed("bad-host", "An IPv6 address with a zone cannot be a target.")
    try:
        return IPv6Address(text)
    except AddressValueError:
        raise malformed("bad-host", "Brackets in the target hold something that is not an IPv6 address.") from None


def _port(tail: str, default_port: int | None) -> int:
    if not tail and default_port is not None:
        return default_port
    if not tail.startswith(":") or not _PORT.fullmatch(tail, 1) or int(tail[1:]) > _PORT_MAX:
        raise malformed("bad-port", "The target needs a port from 1 to 65535 in plain decimal digits.")
    return int(tail[1:])
