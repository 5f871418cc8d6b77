"""Proxies of this node are told their policies; nobody else is, and nobody is waited for."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sluice_node.agent import proxy_socket as module
from sluice_node.agent.proxy_socket import MAX_CLIENTS, MAX_HELLO, ProxySocket
from sluice_node.core.desired import Address

HELLO = b'{"hello": 1, "pool": "p"}\n'
ME = frozenset({os.getuid()})


NOBODY = -1


class Told:
    def __init__(self) -> None:
        self.line: bytes | None = b"one\n"

    async def flows(self, source: Address) -> bytes:
        return f"flows of {source}\n".encode()

    def __call__(self, pool: str) -> bytes | None:
        return None if self.line is None else pool.encode() + b" " + self.line


@asynccontextmanager
async def serving(
    path: Path, told: Told, *, allowed: frozenset[int] = ME, proxy: int = NOBODY
) -> AsyncIterator[ProxySocket]:
    server = ProxySocket(path, told, told.flows, allowed=allowed, proxy=proxy)
    task = asyncio.create_task(server.run())
    await server.listening.wait()
    try:
        yield server
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def connect(path: Path, hello: bytes = HELLO) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(hello)
    return reader, writer


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def ended(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return await reader.read() == b""
    return True


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


async def test_a_proxy_is_told_at_once_and_at_every_change(path: Path) -> None:
    told = Told()
    async with serving(path, told) as server:
        reader, writer = await connect(path)
        assert await reader.readline() == b"p one\n"
        server.publish()
        told.line = b"two\n"
        server.publish()
        assert await reader.readline() == b"p two\n", "and what did not change is not told again"
        writer.close()


async def test_a_proxy_waits_while_nothing_is_known(path: Path) -> None:
    told = Told()
    told.line = None
    async with serving(path, told) as server:
        reader, writer = await connect(path)
        await asyncio.sleep(0)
        told.line = b"one\n"
        server.publish()
        assert await reader.readline() == b"p one\n"
        writer.close()


async def test_any_user_may_connect_but_only_the_proxys_is_answered(path: Path) -> None:
    async with serving(path, Told(), allowed=frozenset({os.getuid() + 1})):
        assert mode(path) == 0o666
        reader, writer = await connect(path)
        assert await ended(reader)
        writer.close()


@pytest.mark.parametrize(
    "hello",
    [b"\n", b"[]\n", b'{"hello": 2, "pool": "p"}\n', b'{"hello": 1}\n', b"\xff\n", b"x" * (MAX_HELLO * 3) + b"\n"],
    ids=["empty", "list", "version", "no pool", "no text", "too long"],
)
async def test_nonsense_ends_the_connection(path: Path, hello: bytes) -> None:
    async with serving(path, Told()):
        reader, writer = await connect(path, hello)
        assert await ended(reader)
        writer.close()


async def test_a_silent_client_is_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELLO_SECONDS", 0.01)
    async with serving(path, Told()):
        reader, writer = await connect(path, b"")
        assert await ended(reader)
        writer.close()


async def test_a_client_that_does_not_read_is_dropped_and_others_are_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    told = Told()
    told.line = b"x" * (8 << 20) + b"\n"
    async with serving(path, told):
        slow, slow_writer = await connect(path)
        slow_writer.transport.pause_reading()  # type: ignore[attr-defined]
        del slow
        await asyncio.sleep(0.1)
        told.line = b"one\n"
        reader, writer = await connect(path)
        assert await reader.readline() == b"p one\n"
        writer.close()
        slow_writer.close()


async def test_there_are_not_too_many_clients(path: Path) -> None:
    async with serving(path, Told()):
        clients = [await connect(path) for _ in range(MAX_CLIENTS)]
        for reader, _ in clients:
            assert await reader.readline() == b"p one\n"
        reader, writer = await connect(path)
        assert await ended(reader)
        for _, each in (*clients, (reader, writer)):
            each.close()


async def test_a_socket_left_by_a_dead_agent_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(path, Told()):
        reader, writer = await connect(path)
        assert await reader.readline() == b"p one\n"
        writer.close()


async def test_the_check_is_told_the_connections_of_an_address_once(path: Path) -> None:
    async with serving(path, Told()):
        reader, writer = await connect(path, b'{"hello": 1, "flows": "10.0.0.7"}\n')
        assert await reader.read() == b"flows of 10.0.0.7\n"
        writer.close()


async def test_a_proxy_is_not_told_the_connections_of_others(path: Path) -> None:
    async with serving(path, Told(), proxy=os.getuid()):
        reader, writer = await connect(path, b'{"hello": 1, "flows": "10.0.0.7"}\n')
        assert await ended(reader)
        writer.close()


async def test_what_is_no_address_has_no_connections(path: Path) -> None:
    async with serving(path, Told()):
        reader, writer = await connect(path, b'{"hello": 1, "flows": "everything"}\n')
        assert await ended(reader)
        writer.close()
