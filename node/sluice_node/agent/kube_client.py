"""Sends requests to the API server.

Invariants: at most one error type leaves this module (KubeError and its children); a connection whose other end is gone
is given up within seconds, by the kernel's own timers; nothing is retried here.
"""

import json
import socket
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Final, Self

import httpx

from sluice_node.agent.kube_config import ConfigError, KubeConfig
from sluice_node.agent.kube_requests import Request

MAX_LINE: Final = 8 << 20
"""Bytes of one watch event: etcd takes objects of up to 1.5 MiB."""
_DEAD_PEER_MS: Final = 20_000
_SOCKET_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS),
)


class KubeError(Exception):
    """The API server could not be asked, or said no."""


class UnreachableError(KubeError):
    """No answer."""


class RefusedError(KubeError):
    """An answer that is an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class GarbledError(KubeError):
    """An answer that is not what the API promises."""


class KubeClient:
    """A client of one API server; use it as an asynchronous context manager."""

    def __init__(self, config: KubeConfig) -> None:
        self._config = config
        # A proxy of the environment is for the way out of the cluster: never for this.
        self._http = httpx.AsyncClient(
            base_url=config.url,
            transport=httpx.AsyncHTTPTransport(verify=config.tls, socket_options=_SOCKET_OPTIONS, trust_env=False),
            trust_env=False,
            headers={"User-Agent": "sluice-agent", "Accept": "application/json"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def send(self, request: Request) -> dict[str, Any]:
        """The object that answers a request. Raises KubeError."""
        try:
            response = await self._http.send(self._build(request))
        except httpx.HTTPError as error:
            raise UnreachableError(_words(error)) from error
        if response.is_error:
            raise _refusal(response)
        return _object(response.content)

    async def lines(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of a streamed answer, one a line. Raises KubeError."""
        try:
            response = await self._http.send(self._build(request), stream=True)
            try:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                # Not httpx's lines: they also break at characters that JSON may hold.
                buffer = bytearray()
                async for piece in response.aiter_bytes():
                    buffer += piece
                    while (end := buffer.find(b"\n")) >= 0:
                        line = bytes(buffer[:end])
                        del buffer[: end + 1]
                        yield _object(line)
                    if len(buffer) > MAX_LINE:
                        raise GarbledError(f"an event of more than {MAX_LINE} bytes")
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise UnreachableError(_words(error)) from error

    def _build(self, request: Request) -> httpx.Request:
        headers = {"Content-Type": request.content}
        try:
            token = self._config.token()
        except ConfigError as error:
            raise UnreachableError(str(error)) from error
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return self._http.build_request(
            request.method,
            request.path,
            params=dict(request.query),
            content=request.body,
            headers=headers,
            timeout=httpx.Timeout(request.seconds, connect=5.0),
        )


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise GarbledError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise GarbledError("not an object")
    return document


def _refusal(response: httpx.Response) -> RefusedError:
    try:
        message = str(_object(response.content).get("message", ""))
    except GarbledError:
        message = response.reason_phrase
    return RefusedError(response.status_code, message)


def _words(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
