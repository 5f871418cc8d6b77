"""Opening a connection: from a source address of the right family, to the first of several addresses that answers.

Invariants: every socket is bound to the source before it connects; when the kernel refuses the source, the attempt
fails and no other source is tried. Addresses are tried in order, a new one every STAGGER seconds or as soon as one
fails (RFC 8305, section 5, with a fixed order); the first to connect wins, the others are closed.
"""

import errno
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPPROTO_TCP,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from .loop import ERROR, HANGUP, OUT, Loop

STAGGER: Final = 0.25

_SOL_IP: Final = 0
_IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Linux 4.2: the port is chosen at connect, per destination, so a source is not limited to its ports in all."""
_IPV6_FREEBIND: Final = 78
"""Linux 4.15: the IPv6 source is not configured on any interface (IPv4's is covered by a local route of the whole
block)."""

Address = IPv4Address | IPv6Address


class DialError(Enum):
    """Why no connection came about."""

    SOURCE = "source"
    PORTS = "ports"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    DESCRIPTORS = "descriptors"


_MEANING: Final = {
    errno.ECONNREFUSED: DialError.REFUSED,
    errno.ECONNRESET: DialError.REFUSED,
    errno.ETIMEDOUT: DialError.TIMEOUT,
    errno.EADDRNOTAVAIL: DialError.PORTS,
    errno.EMFILE: DialError.DESCRIPTORS,
    errno.ENFILE: DialError.DESCRIPTORS,
}

Done = Callable[[socket | None, Address, DialError | None], None]
"""Called once: with the connected socket and the address it reached, or with the last address tried and the error."""


class Dial:
    """One connection being opened."""

    __slots__ = ("_addresses", "_attempts", "_done", "_error", "_loop", "_next", "_port", "_sources", "timer_tick")

    def __init__(
        self, loop: Loop, *, sources: Mapping[int, str], addresses: Sequence[Address], port: int, done: Done
    ) -> None:
        """sources: the source address of each family (4, 6) that occurs in `addresses`, which must not be empty."""
        self._loop = loop
        self._sources = sources
        self._addresses = addresses
        self._port = port
        self._done = done
        self._attempts: dict[socket, Address] = {}
        self._error = DialError.UNREACHABLE
        self._next = 0
        self.timer_tick = 0

    def start(self) -> None:
        """Begin; `done` is always called later, never from here, unless every address fails at once."""
        self._open_next()

    def cancel(self) -> None:
        """Give up; `done` is not called any more."""
        self._loop.disarm(self)
        for sock in self._attempts:
            self._loop.retire(sock)
        self._attempts.clear()

    def on_timer(self) -> None:
        """The latest attempt takes long: try the next address beside it."""
        self._open_next()

    def _open_next(self) -> None:
        while self._next < len(self._addresses):
            address = self._addresses[self._next]
            self._next += 1
            if self._open(address):
                if self._next < len(self._addresses):
                    self._loop.arm(self, STAGGER)
                return
        if not self._attempts:
            self._loop.disarm(self)
            self._done(None, self._addresses[self._next - 1], self._error)

    def _open(self, address: Address) -> bool:
        family = AF_INET if address.version == 4 else AF_INET6
        try:
            sock = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        except OSError as error:
            self._error = _MEANING.get(error.errno or 0, DialError.UNREACHABLE)
            return False
        try:
            sock.setsockopt(_SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            if family == AF_INET6:
                sock.setsockopt(IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            sock.bind((self._sources[address.version], 0))
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError:
            sock.close()
            self._error = DialError.SOURCE
            return False
        code = sock.connect_ex((str(address), self._port))
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self._error = _MEANING.get(code, DialError.UNREACHABLE)
            return False
        self._attempts[sock] = address
        self._loop.watch(sock.fileno(), lambda events: self._on_event(sock, events))
        return True

    def _on_event(self, sock: socket, events: int) -> None:
        if events & (ERROR | HANGUP):
            address = self._attempts.pop(sock)
            self._error = _MEANING.get(sock.getsockopt(SOL_SOCKET, SO_ERROR), DialError.UNREACHABLE)
            self._loop.retire(sock)
            if self._next == len(self._addresses) and self._attempts:
                return
            if self._next == len(self._addresses):
                self._loop.disarm(self)
                self._done(None, address, self._error)
            else:
                self._open_next()
        elif events & OUT:
            address = self._attempts.pop(sock)
            self.cancel()
            self._done(sock, address, None)
