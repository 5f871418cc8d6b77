"""The client reads any division of the bytes alike, and names every way in which an answer can fail."""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from math import inf
from typing import Any

import pytest

from sluice_node.agent import kube_client as module
from sluice_node.agent.http_connection import HttpConnection
from sluice_node.agent.kube_client import (
    ClosedError,
    GarbledError,
    KubeClient,
    KubeError,
    RefusedError,
    UnreachableError,
)
from sluice_node.agent.kube_config import KubeConfig
from sluice_node.agent.kube_requests import Request

GET = Request("GET", "/x", {"a": "b c"}, seconds=1.0)


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if end else b"")


class Server:
    """Each connection gets its prepared answers, one a request; after the last one it is closed."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.left = list(connections)
        self.heads: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self, url: str, tls: ssl.SSLContext) -> HttpConnection:
        near, far = socket.socketpair()
        self.tasks.append(asyncio.create_task(self._serve(far, self.left.pop(0))))
        return HttpConnection("api", *await asyncio.open_connection(sock=near))

    async def _serve(self, far: socket.socket, answers: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection(sock=far)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            for each in answers:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(each)
                await writer.drain()
        writer.close()


@pytest.fixture(name="client")
async def _client(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    clients: list[KubeClient] = []

    def make(server: Server) -> KubeClient:
        monkeypatch.setattr(module.HttpConnection, "open", server.open)
        clients.append(KubeClient(KubeConfig("https://api", ssl.create_default_context(), fixed_token="secret")))
        return clients[-1]

    yield make
    for each in clients:
        each.close()
    await asyncio.sleep(0)


Make = Callable[[Server], KubeClient]


async def lines(client: KubeClient) -> list[dict[str, Any]]:
    return [line async for line in client.lines(GET)]


async def test_an_object_is_read_and_who_asks_is_said(client: Make) -> None:
    server = Server([answer(b'{"a": 1}')])
    assert await client(server).send(GET) == {"a": 1}
    assert server.heads[0].startswith(b"GET /x?a=b+c HTTP/1.1\r\n")
    assert b"authorization: bearer secret" in server.heads[0].lower()


async def test_a_connection_is_kept_for_the_next_request(client: Make) -> None:
    server = Server([answer(b'{"a": 1}'), answer(b'{"a": 2}')])
    it = client(server)
    assert [await it.send(GET), await it.send(GET)] == [{"a": 1}, {"a": 2}]


async def test_a_kept_connection_that_was_closed_is_replaced(client: Make) -> None:
    server = Server([answer(b'{"a": 1}')], [answer(b'{"a": 2}')])
    it = client(server)
    await it.send(GET)
    await server.tasks[0]
    assert await it.send(GET) == {"a": 2}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_lines_are_the_same_however_the_bytes_come(client: Make, size: int) -> None:
    events = [{"a": "\x85\u2028"}, {"b": "x" * 50}, {"c": None}]
    data = b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert await lines(client(Server([chunked(*pieces)]))) == events


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (answer(b'{"message": "gone"}', "410 Gone"), RefusedError),
        (answer(b"<html>", "502 Bad Gateway"), RefusedError),
        (answer(b"[]"), GarbledError),
        (answer(b"nonsense"), GarbledError),
        (answer(b'{"a": 1}')[:-2], UnreachableError),
        (b"", UnreachableError),
        (b"SSH-2.0-x\r\n\r\n", UnreachableError),
    ],
    ids=["refused", "refused by a proxy", "a list", "no JSON", "cut off", "closed", "no HTTP"],
)
async def test_every_failure_has_its_name(client: Make, sent: bytes, error: type[KubeError]) -> None:
    with pytest.raises(error):
        await client(Server([sent])).send(GET)
    with pytest.raises(error):
        await lines(client(Server([sent])))


async def test_a_stream_that_breaks_gives_what_came_and_then_fails(client: Make) -> None:
    it = client(Server([chunked(b'{"a": 1}\n', b'{"b"', end=False)]))
    stream = it.lines(GET)
    assert await anext(stream) == {"a": 1}
    with pytest.raises(UnreachableError):
        await anext(stream)


async def test_an_endless_line_is_refused(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 100)
    with pytest.raises(GarbledError):
        await lines(client(Server([chunked(b"x" * 200)])))


async def test_where_the_server_is_and_when_it_spoke_last_is_known() -> None:
    """A port that nobody listens on is somebody who is there; that is told apart from silence."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    client = KubeClient(KubeConfig(f"https://127.0.0.1:{port}", ssl.create_default_context()))
    assert client.servers == {ip_address("127.0.0.1")}
    with pytest.raises(ClosedError):
        await client.send(GET)
    assert await client.is_there(seconds=1)
    assert client.heard == -inf


async def test_an_answer_is_noted_as_a_word_of_the_server(client: Callable[[Server], KubeClient]) -> None:
    made = client(Server([answer(b"{}")]))
    before = time.monotonic()
    await made.send(GET)
    assert made.heard >= before


async def test_who_listens_is_there_though_he_answers_nothing_and_who_drops_packets_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy:
        port = busy.getsockname()[1]
        client = KubeClient(KubeConfig(f"https://127.0.0.1:{port}", ssl.create_default_context()))
        assert await client.is_there(seconds=1)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        assert not await client.is_there(seconds=0.05), "its queue is full: the kernel drops what asks for more"
        for filler in fillers:
            filler.close()
