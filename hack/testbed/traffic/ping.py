"""ICMP echo: messages (pure functions) and a socket that sends one identifier's requests.

Rules: RFC 792, RFC 4443 section 4. The kernel's ping sockets are used where it permits them
(net.ipv4.ping_group_range), else raw sockets, which need NET_RAW.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

_HEADER = struct.Struct("!BBHHH")
_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


@dataclass(frozen=True, slots=True)
class Reply:
    """An echo reply."""

    identifier: int
    sequence: int
    payload: bytes


def request(family: int, *, identifier: int, sequence: int, payload: bytes) -> bytes:
    """An echo request. The kernel fills in the checksum, but not for IPv4 on a raw socket."""
    header = _HEADER.pack(_REQUEST[socket.AddressFamily(family)], 0, 0, identifier, sequence)
    check = _checksum(header + payload) if family == socket.AF_INET else 0
    return header[:2] + check.to_bytes(2, "big") + header[4:] + payload


def read_reply(family: int, data: bytes, *, with_ip_header: bool) -> Reply | None:
    """The reply in what a socket received, or None if it is something else."""
    if with_ip_header:
        if not data:
            return None
        data = data[(data[0] & 0x0F) * 4 :]
    if len(data) < _HEADER.size:
        return None
    kind, code, _check, identifier, sequence = _HEADER.unpack_from(data)
    if kind != _REPLY[socket.AddressFamily(family)] or code:
        return None
    return Reply(identifier, sequence, data[_HEADER.size :])


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Pinger:
    """Sends echo requests of one identifier to one host and passes on the replies that are its own."""

    def __init__(self, address: tuple[str, int], *, identifier: int, token: bytes) -> None:
        """`token` tells this pinger's replies from those of others with the same identifier. Raises OSError."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._family = family
        self._token = token
        self._identifier = identifier
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM, _PROTOCOL[family])
            self._raw = False
        except PermissionError:
            self._socket = socket.socket(family, socket.SOCK_RAW, _PROTOCOL[family])
            self._raw = True
        self._socket.setblocking(False)
        self._socket.connect((address[0], 0))

    def send(self, sequence: int) -> None:
        """Send one request. Raises OSError, also for an ICMP error that came back for an earlier one."""
        data = request(self._family, identifier=self._identifier, sequence=sequence & 0xFFFF, payload=self._token)
        with suppress(BlockingIOError):
            self._socket.send(data)

    def on_reply(self, callback: Callable[[], None]) -> None:
        """Call back for each reply, from the running event loop."""

        def readable() -> None:
            with suppress(OSError):
                while True:
                    data = self._socket.recv(2048)
                    with_header = self._raw and self._family == socket.AF_INET
                    reply = read_reply(self._family, data, with_ip_header=with_header)
                    if reply is not None and reply.payload == self._token:
                        callback()

        asyncio.get_running_loop().add_reader(self._socket, readable)

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
