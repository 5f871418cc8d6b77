"""Sends requests to the API server.

Invariants: at most one error type leaves this module (KubeError and its children). Nothing is retried here, but for a
kept connection that turns out to be closed: all requests of the agent may be sent twice, so that one is sent anew.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from http import HTTPStatus
from ipaddress import ip_address
from math import inf
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from sluice_node.agent.http_connection import ConnectionBrokenError, HttpConnection
from sluice_node.agent.kube_config import ConfigError, KubeConfig
from sluice_node.agent.kube_requests import Request
from sluice_node.core.desired import Address

MAX_LINE: Final = 8 << 20
"""Bytes of one watch event: etcd takes objects of up to 1.5 MiB."""
MAX_ANSWER: Final = 64 << 20
"""Bytes of one answer, such as a page of a list."""
_SERVERS: Final = 16
"""Addresses of the server that are remembered: its name may come to mean ever others."""
_KEPT: Final = 2
"""Connections kept for the next request; watches have their own."""


class KubeError(Exception):
    """The API server could not be asked, or said no."""


class UnreachableError(KubeError):
    """No answer."""


class ClosedError(UnreachableError):
    """Somebody is there, and takes no connections: the way to the server is good, the server is not up."""


class RefusedError(KubeError):
    """An answer that is an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class GarbledError(KubeError):
    """An answer that is not what the API promises."""


class KubeClient:
    """A client of one API server."""

    def __init__(self, config: KubeConfig) -> None:
        self._config = config
        self._kept: list[HttpConnection] = []
        self._servers: tuple[Address, ...] = _literal(config.url)
        self.heard = -inf
        """When the API server said something last, on the clock of time.monotonic."""

    @property
    def servers(self) -> frozenset[Address]:
        """The addresses at which the API server was found."""
        return frozenset(self._servers)

    def close(self) -> None:
        """Close kept connections."""
        while self._kept:
            self._kept.pop().close()

    async def is_there(self, *, seconds: float) -> bool:
        """Whether anybody answers at the server's address, if only to refuse: a kernel does, however busy its programs
        are."""
        parts = urlsplit(self._config.url)
        try:
            async with asyncio.timeout(seconds):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443)
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    async def send(self, request: Request) -> dict[str, Any]:
        """The object that answers a request. Raises KubeError."""
        while self._kept:
            try:
                return await self._send(self._kept.pop(), request)
            except UnreachableError:
                continue
        return await self._send(await self._open(), request)

    async def lines(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of a streamed answer, one a line. Raises KubeError."""
        connection = await self._open()
        try:
            status = await self._ask(connection, request)
            if status >= HTTPStatus.BAD_REQUEST:
                raise _refusal(status, await self._whole(connection, request))
            buffer = bytearray()
            while (piece := await self._piece(connection, request)) is not None:
                buffer += piece
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    yield _object(line)
                if len(buffer) > MAX_LINE:
                    raise GarbledError(f"an event of more than {MAX_LINE} bytes")
            if buffer:
                raise GarbledError("the last event is cut off")
        finally:
            connection.close()

    async def _send(self, connection: HttpConnection, request: Request) -> dict[str, Any]:
        kept = False
        try:
            status = await self._ask(connection, request)
            content = await self._whole(connection, request)
            kept = len(self._kept) < _KEPT and connection.renew()
        finally:
            if kept:
                self._kept.append(connection)
            else:
                connection.close()
        if status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(status, content)
        return _object(content)

    async def _open(self) -> HttpConnection:
        try:
            connection = await HttpConnection.open(self._config.url, self._config.tls)
        except ConnectionBrokenError as error:
            closed = isinstance(error.__cause__, ConnectionRefusedError)
            raise (ClosedError if closed else UnreachableError)(str(error)) from error
        if connection.server is not None and connection.server not in self._servers:
            self._servers = (*self._servers, connection.server)[-_SERVERS:]
        return connection

    async def _ask(self, connection: HttpConnection, request: Request) -> int:
        headers = [("User-Agent", "sluice-agent"), ("Accept", "application/json")]
        if request.body is not None:
            headers.append(("Content-Type", request.content))
        target = f"{request.path}?{urlencode(request.query)}" if request.query else request.path
        try:
            if token := self._config.token():
                headers.append(("Authorization", f"Bearer {token}"))
            status = await connection.ask(
                request.method, target, headers=headers, body=request.body, seconds=request.seconds
            )
        except (ConnectionBrokenError, ConfigError) as error:
            raise UnreachableError(str(error)) from error
        self.heard = time.monotonic()
        return status

    async def _whole(self, connection: HttpConnection, request: Request) -> bytes:
        content = bytearray()
        while (piece := await self._piece(connection, request)) is not None:
            content += piece
            if len(content) > MAX_ANSWER:
                raise GarbledError(f"an answer of more than {MAX_ANSWER} bytes")
        return bytes(content)

    async def _piece(self, connection: HttpConnection, request: Request) -> bytes | None:
        try:
            piece = await connection.piece(request.seconds)
        except ConnectionBrokenError as error:
            raise UnreachableError(str(error)) from error
        self.heard = time.monotonic()
        return piece


def _literal(url: str) -> tuple[Address, ...]:
    """The address in a URL, if its host is one."""
    try:
        return (ip_address(urlsplit(url).hostname or ""),)
    except ValueError:
        return ()


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise GarbledError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise GarbledError("not an object")
    return document


def _refusal(status: int, content: bytes) -> RefusedError:
    try:
        message = str(_object(content).get("message", ""))
    except GarbledError:
        message = content[:200].decode(errors="replace")
    return RefusedError(status, message)
