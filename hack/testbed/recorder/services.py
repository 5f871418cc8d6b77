"""The services themselves, on every given address and port, TCP and UDP: see commands for the protocol.

Each connection and each datagram is reported as it starts, and each connection's end, to a callback that writes it
down. UDP sockets are bound to one address each, so that an answer leaves from the address that was asked.
"""

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from testbed.recorder.commands import Command, parse
from testbed.recorder.packets import Address

#: Told of each contact: the JSON object that is written down.
Note = Callable[[dict[str, Any]], None]

_FIRST_LINE_SECONDS = 30
_CHUNK = 64 << 10
#: What `source` sends, over and over; its length is a prime, so that a chunk in the wrong place changes the hash.
_BLOCK = hashlib.shake_256(b"sluice").digest(65521)
_PUSH_DATAGRAMS = 100_000


class TcpService:
    """Serves TCP connections."""

    def __init__(self, note: Note) -> None:
        self._note = note

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        contact = _contact("tcp", writer.get_extra_info("peername"), writer.get_extra_info("sockname"))
        ended = "closed"
        try:
            line = await asyncio.wait_for(reader.readline(), _FIRST_LINE_SECONDS)
            command = parse(line)
            contact |= {"service": command.name if command else None, "id": command.id if command else None}
            self._note(contact | {"event": "open"})
            if command is not None:
                await self._obey(command, reader, writer)
        except ConnectionResetError:
            ended = "reset"
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            ended = type(error).__name__
        finally:
            self._note(contact | {"event": ended, "time": time.time_ns()})
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _obey(self, command: Command, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, port = writer.get_extra_info("peername")[:2]
        if command.name == "http":
            await _answer_http(command, reader, writer)
            return
        writer.write(f"{address} {port}\n".encode())
        if command.name == "echo":
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        elif command.name == "source":
            await _source(command.number, writer)
        elif command.name == "sink":
            state = hashlib.sha256()
            left = command.number
            while left and (data := await reader.read(min(left, _CHUNK))):
                state.update(data)
                left -= len(data)
            writer.write(f"{state.hexdigest()}\n".encode())
        elif command.name == "push":
            await _push(command.number, reader, writer)
        await writer.drain()


class UdpService(asyncio.DatagramProtocol):
    """Answers datagrams on one address and port."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._transport: asyncio.DatagramTransport | None = None
        self._pushes: dict[tuple[Any, ...], asyncio.Task[None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer with."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Note the datagram and answer it if it is a command."""
        assert self._transport is not None
        command = parse(data)
        contact = _contact("udp", addr, self._transport.get_extra_info("sockname"))
        words = {"service": command.name if command else None, "id": command.id if command else None}
        self._note(contact | words | {"event": "datagram"})
        if command is None:
            return
        if command.name == "echo":
            self._transport.sendto(data, addr)
        elif command.name == "whoami":
            self._transport.sendto(f"{addr[0]} {addr[1]} {command.id}\n".encode(), addr)
        elif command.name == "push":
            if previous := self._pushes.get(addr):
                previous.cancel()
            self._pushes[addr] = asyncio.create_task(self._push(command, addr))

    def error_received(self, exc: Exception) -> None:
        """An ICMP error came back for an answer: nothing to do, the client is gone."""

    async def _push(self, command: Command, addr: tuple[Any, ...]) -> None:
        assert self._transport is not None
        for number in range(_PUSH_DATAGRAMS):
            self._transport.sendto(f"{number} {command.id}\n".encode(), addr)
            await asyncio.sleep(command.number / 1000)


async def start(addresses: Sequence[Address], *, tcp: Sequence[int], udp: Sequence[int], note: Note) -> None:
    """Listen on every address and port. Raises OSError for one that cannot be bound."""
    loop = asyncio.get_running_loop()
    for address in addresses:
        for port in tcp:
            await asyncio.start_server(TcpService(note).serve, str(address), port, backlog=1024)
        for port in udp:
            await loop.create_datagram_endpoint(lambda: UdpService(note), local_addr=(str(address), port))


def _contact(protocol: str, peer: tuple[Any, ...], own: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "time": time.time_ns(),
        "protocol": protocol,
        "source": peer[0],
        "source_port": peer[1],
        "destination": own[0],
        "destination_port": own[1],
    }


async def _source(count: int, writer: asyncio.StreamWriter) -> None:
    state = hashlib.sha256()
    blocks = [_BLOCK] * (count // len(_BLOCK)) + [_BLOCK[: count % len(_BLOCK)]]
    for block in blocks:
        state.update(block)
    writer.write(f"{state.hexdigest()}\n".encode())
    for block in blocks:
        writer.write(block)
        await writer.drain()


async def _push(milliseconds: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send numbers until the client closes."""
    gone = asyncio.ensure_future(reader.read(1))
    try:
        for number in itertools.count():
            writer.write(f"{number}\n".encode())
            await writer.drain()
            done, _ = await asyncio.wait([gone], timeout=milliseconds / 1000)
            if done:
                gone.result()
                return
    finally:
        gone.cancel()


async def _answer_http(command: Command, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request, one answer: JSON {"address", "port"} for /whoami, 404 for another path."""
    while (await reader.readline()).strip():
        pass
    address, port = writer.get_extra_info("peername")[:2]
    path = command.id.partition("?")[0]
    status = "200 OK" if path == "/whoami" else "404 Not Found"
    body = json.dumps({"address": address, "port": port} if path == "/whoami" else {"error": "not found"}) + "\n"
    fields = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    writer.write("\r\n".join([*fields, "", body]).encode())
    await writer.drain()
