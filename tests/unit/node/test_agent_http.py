"""kubelet and Prometheus are answered, whoever else asks nonsense."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from sluice_node.agent.http_server import HttpServer, Page


async def _page() -> Page:
    return Page(200, b"well\n")


PAGES: dict[str, Callable[[], Awaitable[Page]]] = {"/healthz": _page}


async def ask(request: bytes) -> bytes:
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=far)
    client, out = await asyncio.open_connection(sock=near)
    out.write(request)
    out.write_eof()
    await HttpServer(None, 0, PAGES)._accept(reader, writer)
    answer = b""
    with suppress(ConnectionResetError):
        answer = await client.read()
    out.close()
    return answer


async def test_a_page_is_served_whatever_its_query() -> None:
    for target in (b"/healthz", b"/healthz?verbose"):
        answer = await ask(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"Content-Length: 5\r\nConnection: close\r\n\r\nwell\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [(b"GET /other HTTP/1.1\r\n\r\n", b"404"), (b"POST /healthz HTTP/1.1\r\n\r\n", b"400"), (b"hello\r\n\r\n", b"400")],
)
async def test_anything_else_is_an_error(request_: bytes, status: bytes) -> None:
    assert (await ask(request_)).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("request_", [b"", b"GET /healthz", b"x" * 20000], ids=["nothing", "half", "too long"])
async def test_what_is_no_request_gets_no_answer(request_: bytes) -> None:
    assert await ask(request_) == b""
