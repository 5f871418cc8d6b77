"""The unix socket on which the proxies of this node are told their policies.

And the check of an installation (`helm test`) the address that its own connections left with: who asks for the
connections of an address is told them once; a proxy, which stands next to hostile clients, is not.

Invariants: only root, the proxy's user and the check's are answered (SO_PEERCRED, socket(7): whoever connected cannot
lie about it); what a client may send is bounded in length and time, and how many there may be; a client that does not
read is dropped rather than waited for. Must not decide what is sent.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from sluice_api.names import CHECK_UID, PROXY_UID
from sluice_node.core.desired import Address

log = logging.getLogger(__name__)

MAX_CLIENTS: Final = 64
MAX_HELLO: Final = 4096
"""Bytes of a client's first line."""
HELLO_SECONDS: Final = 5.0
READ_SECONDS: Final = 10.0
"""Seconds within which a client must have read a snapshot."""
_ALLOWED: Final = frozenset({0, PROXY_UID, CHECK_UID})
_CREDENTIALS: Final = struct.Struct("=iII")
_MODE: Final = 0o666


class ProxySocket:
    """`line` gives the snapshot of a pool as one line, or None while nothing is known; `flows` the connections that an
    address has opened, as one line."""

    def __init__(
        self,
        path: Path,
        line: Callable[[str], bytes | None],
        flows: Callable[[Address], Awaitable[bytes]],
        *,
        allowed: frozenset[int] = _ALLOWED,
        proxy: int = PROXY_UID,
    ) -> None:
        self.listening = asyncio.Event()
        """Set once proxies can connect."""
        self._path = path
        self._line = line
        self._flows = flows
        self._proxy = proxy
        self._allowed = allowed
        self._clients: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the socket cannot be made."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._accept, self._path, limit=MAX_HELLO)
        # Connecting needs write permission; who it is decides the kernel's word on the peer, not the file's mode.
        self._path.chmod(_MODE)
        self.listening.set()
        try:
            await server.serve_forever()
        finally:
            server.close()

    def publish(self) -> None:
        """What `line` gives may be different now."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a callback of the server is always a task
        try:
            uid = _peer_uid(writer)
            if uid not in self._allowed or len(self._clients) >= MAX_CLIENTS:
                why = "too many are connected" if uid in self._allowed else "it is no proxy"
                log.warning("a process of uid %d is not served: %s", uid, why)
                return
            self._clients.add(task)
            asked = await _hello(reader)
            if isinstance(asked, str):
                await self._serve(asked, reader, writer)
            elif asked is not None and uid != self._proxy:
                writer.write(await self._flows(asked))
                await asyncio.wait_for(writer.drain(), READ_SECONDS)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            log.info("a proxy was dropped: %s", error or type(error).__name__)
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _serve(self, pool: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        log.info("a proxy of pool %s connected", pool)
        hung_up = asyncio.ensure_future(reader.read(1))
        sent: bytes | None = None
        try:
            while not hung_up.done():
                news = self._news
                line = self._line(pool)
                if line is not None and line != sent:
                    writer.write(line)
                    await asyncio.wait_for(writer.drain(), READ_SECONDS)
                    sent = line
                newer = asyncio.ensure_future(news.wait())
                try:
                    await asyncio.wait({newer, hung_up}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    newer.cancel()
            log.info("a proxy of pool %s went away", pool)
        finally:
            hung_up.cancel()


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    sock = writer.get_extra_info("socket")
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


async def _hello(reader: asyncio.StreamReader) -> str | Address | None:
    """What a client asks for: a pool's snapshot or an address's connections; None when it makes no sense.

    Raises TimeoutError.
    """
    try:
        document = json.loads(await asyncio.wait_for(reader.readline(), HELLO_SECONDS))
        if isinstance(document, dict) and document.get("hello") == 1:
            if isinstance(document.get("pool"), str):
                return str(document["pool"])
            if isinstance(document.get("flows"), str):
                return ip_address(document["flows"])
    except ValueError:
        pass  # longer than MAX_HELLO, not JSON, or not an address
    log.warning("a client said no hello that this agent understands; are it and the agent of one release?")
    return None
