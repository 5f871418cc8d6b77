"""One HTTP/1.1 connection to the API server: h11 speaks the protocol, asyncio carries the bytes.

A general client library costs every node 15 MiB of memory; this is what of one the agent needs. Invariants: nothing is
waited for without a limit; a connection whose other end is gone is given up by the kernel's own timers; redirects and
proxies do not exist here. Must not know what it carries.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Self
from urllib.parse import urlsplit

import h11

CONNECT_SECONDS: Final = 5.0
_CHUNK: Final = 65536
_DEAD_PEER_MS: Final = 20_000
_SOCKET_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS),
)


class ConnectionBrokenError(Exception):
    """The connection could not be made, broke, or stayed silent for too long."""


class HttpConnection:
    """Made by `open`. Requests follow each other: the answer to one is read to its end before the next is sent."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, url: str, tls: ssl.SSLContext) -> Self:
        """Connect to the server of an https URL. Raises ConnectionBrokenError."""
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=tls)
        except (OSError, TimeoutError) as error:
            raise ConnectionBrokenError(f"cannot connect to {parts.netloc}: {_words(error)}") from error
        carrier = writer.get_extra_info("socket")
        for option in _SOCKET_OPTIONS:
            carrier.setsockopt(*option)
        return cls(parts.netloc, reader, writer)

    @property
    def server(self) -> IPv4Address | IPv6Address | None:
        """The address at the other end; None when it is gone already."""
        peer = self._writer.get_extra_info("peername")
        return ip_address(peer[0].partition("%")[0]) if peer else None

    async def ask(
        self, method: str, target: str, *, headers: Sequence[tuple[str, str]], body: bytes | None, seconds: float
    ) -> int:
        """Send a request and wait up to `seconds` for the answer's head; gives its status.

        Raises ConnectionBrokenError.
        """
        length = [("Content-Length", str(len(body)))] if body is not None else []
        head = h11.Request(method=method, target=target, headers=[("Host", self._host), *headers, *length])
        try:
            self._writer.write(self._http.send(head) or b"")
            if body is not None:
                self._writer.write(self._http.send(h11.Data(data=body)) or b"")
            self._http.send(h11.EndOfMessage())
            async with asyncio.timeout(seconds):
                await self._writer.drain()
        except (OSError, TimeoutError, h11.LocalProtocolError) as error:
            raise ConnectionBrokenError(_words(error)) from error
        while True:
            event = await self._event(seconds)
            if isinstance(event, h11.Response):
                return event.status_code
            if not isinstance(event, h11.InformationalResponse):
                raise ConnectionBrokenError("the server closed the connection without an answer")

    async def piece(self, seconds: float) -> bytes | None:
        """The next bytes of the answer, None after the last; `seconds` of silence are a ConnectionBrokenError."""
        event = await self._event(seconds)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise ConnectionBrokenError("the connection closed in the middle of an answer")

    def renew(self) -> bool:
        """After an answer was read to its end: whether the connection takes another request."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE or self._reader.at_eof():
            return False
        self._http.start_next_cycle()
        return True

    def close(self) -> None:
        """Let go of the connection, whatever it was doing."""
        self._writer.transport.abort()

    async def _event(self, seconds: float) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(seconds):
                    self._http.receive_data(await self._reader.read(_CHUNK))
        except TimeoutError as error:
            raise ConnectionBrokenError(f"no byte within {seconds:.0f} s") from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise ConnectionBrokenError(_words(error)) from error
        return event


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
