"""/healthz, /readyz and /metrics: the least of HTTP/1.1 that kubelet and Prometheus need.

Invariants: one request a connection, bounded in length and time. Must not decide what is answered.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

_SECONDS: Final = 5.0
_MAX_HEAD: Final = 8192
_MAX_CLIENTS: Final = 32


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    body: bytes
    content: str = "text/plain; charset=utf-8"


_NOT_FOUND: Final = Page(404, b"there are /healthz, /readyz and /metrics\n")
_BAD: Final = Page(400, b"not a GET request\n")
_PHRASES: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}


class HttpServer:
    """`pages` gives what is answered for each path."""

    def __init__(self, host: str | None, port: int, pages: Mapping[str, Callable[[], Awaitable[Page]]]) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self._clients = 0

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the port cannot be had."""
        server = await asyncio.start_server(self._accept, self._host, self._port, limit=_MAX_HEAD)
        try:
            await server.serve_forever()
        finally:
            server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= _MAX_CLIENTS:
                await asyncio.wait_for(self._answer(reader, writer), _SECONDS)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked went away, or never asked
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        page = _BAD
        if len(words) == 3 and words[0] == "GET":
            make = self._pages.get(words[1].split("?", 1)[0])
            page = await make() if make is not None else _NOT_FOUND
        writer.write(
            f"HTTP/1.1 {page.status} {_PHRASES[page.status]}\r\nContent-Type: {page.content}\r\n"
            f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n".encode()
            + page.body
        )
        await writer.drain()
