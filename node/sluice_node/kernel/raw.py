"""A netlink socket and the framing of its messages (linux/netlink.h).

Invariants: one request at a time; each answer belongs to the request, known by its sequence number.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12
REQUEST, ACK, DUMP = 0x001, 0x004, 0x300
REPLACE, CREATE = 0x100, 0x400
NESTED: Final = 0x8000
HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR, _DONE = 2, 3
_PATIENCE: Final = 10.0
"""Seconds; the kernel answers at once, so that this only turns a mistake into an error."""
_SOL_NETLINK, _STRICT_CHECK = 270, 12


class RawNetlink:
    """A socket of one netlink protocol, in the network namespace of the thread that makes it.

    `strict` asks the kernel to take what a dump request says as a filter, and to refuse what it does not know.
    """

    def __init__(self, protocol: int, *, strict: bool = False) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(_PATIENCE)
        if strict:
            self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        self._sequence = 0

    def ask(self, kind: int, *, flags: int, body: bytes) -> Iterator[bytes]:
        """Send a request and give the bodies of its answers; raises OSError with the kernel's error.

        The answers must be taken before the next request.
        """
        self._sequence += 1
        self._socket.send(HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body)
        while True:
            data = self._socket.recv(1 << 17)
            for answer, sequence, message in messages(data):
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", message)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield message

    def close(self) -> None:
        self._socket.close()


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message in a datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        yield kind, sequence, data[offset + HEADER.size : offset + length]
        offset += _aligned(length)


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def number(value: int) -> bytes:
    """A 32-bit number in the machine's order."""
    return struct.pack("=I", value)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by number, without their flag bits."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return found


def elements(data: bytes) -> Iterator[bytes]:
    """The payloads of a list: attributes one after the other, all of one number."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, _ = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
