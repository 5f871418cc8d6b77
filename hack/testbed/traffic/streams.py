"""Holds streams: one task each, which moves its state on as things happen to it.

The protocol is that of the services on the hosts outside (testbed.recorder.commands).
"""

import asyncio
import itertools
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from testbed.traffic.ping import Pinger
from testbed.traffic.state import Kind, Phase, Stream
from testbed.traffic.target import Target

_OPENING_SECONDS = 10.0
_RETRY_SECONDS = 0.5


class Held:
    """A stream that is being held: its state now, and the task that keeps it."""

    def __init__(self, kind: Kind, target: Target, *, interval: float, name: str) -> None:
        """`interval` in seconds; `name` is recorded by the service as the ID."""
        self.state = Stream(kind)
        self._target = target
        self._interval = interval
        self._name = name
        self._nudge: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Open the stream, however often that takes, and hold it until it is lost or the task is cancelled."""
        run: Callable[[], Coroutine[Any, Any, None]] = {
            Kind.IDLE: self._idle,
            Kind.CLIENT_PUSH: self._client_push,
            Kind.SERVER_PUSH: self._server_push,
            Kind.UDP: self._udp,
            Kind.PING: self._ping,
            Kind.CONNECT: self._connect,
        }[self.state.kind]
        # Spread over one interval, so that many streams do not all wake at once.
        await asyncio.sleep(random.uniform(0, self._interval))  # noqa: S311 - no secret
        while self.state.phase is not Phase.LOST:
            try:
                await run()
                reason = "closed"
            except ConnectionResetError:
                reason = "reset"
            except (OSError, ValueError) as error:
                reason = str(error) or type(error).__name__
            if self.state.phase is Phase.OPENING:
                self.state = self.state.failed_once()
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.state = self.state.lost(reason)

    def verify(self) -> None:
        """Make a stream that is silent otherwise show that it lives."""
        if self.state.phase is Phase.OPEN:
            self._nudge()

    def _progress(self) -> None:
        self.state = self.state.progressed(_now())

    async def _open(self, command: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(_OPENING_SECONDS):
            reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
            writer.write(f"{command} {self._name}\n".encode())
            seen_as = (await _line(reader)).split()
        self.state = self.state.opened(_now(), address=seen_as[0])
        return reader, writer

    async def _idle(self) -> None:
        reader, writer = await self._open("echo")
        self._nudge = lambda: writer.write(b".")
        while await reader.read(64):
            self._progress()

    async def _client_push(self) -> None:
        reader, writer = await self._open("echo")
        for number in itertools.count():
            writer.write(f"{number}\n".encode())
            _expect(await _line(reader), number)
            self._progress()
            await asyncio.sleep(self._interval)

    async def _server_push(self) -> None:
        reader, writer = await self._open(f"push {max(1, round(self._interval * 1000))}")
        for number in itertools.count():
            _expect(await _line(reader), number)
            self._progress()
            assert not writer.is_closing()

    async def _udp(self) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), remote_addr=(self._target.host, self._target.port)
        )
        try:
            transport.sendto(f"whoami {self._name}\n".encode())
            for number in itertools.count():
                await asyncio.sleep(self._interval)
                command = "whoami" if self.state.phase is Phase.OPENING else "echo"
                transport.sendto(f"{command} {self._name} {number}\n".encode())
        finally:
            transport.close()

    async def _ping(self) -> None:
        address = await resolve(self._target, socket.SOCK_DGRAM)
        # The token tells streams apart even if two draw the same identifier.
        pinger = Pinger(address, identifier=random.getrandbits(16), token=random.randbytes(16))  # noqa: S311 - no secret
        pinger.on_reply(self._answered)
        try:
            for sequence in itertools.count():
                try:
                    pinger.send(sequence)
                except OSError:
                    self.state = self.state.failed_once()
                await asyncio.sleep(self._interval)
        finally:
            pinger.close()

    async def _connect(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_OPENING_SECONDS):
                    reader, writer = await asyncio.open_connection(self._target.host, self._target.port)
                    writer.write(f"whoami {self._name}\n".encode())
                    seen_as = (await _line(reader)).split()
                    writer.close()
                self._answered(seen_as[0])
            except OSError:
                self.state = self.state.failed_once()
            await asyncio.sleep(self._interval)

    def _answered(self, address: str | None = None) -> None:
        """An answer where there is no connection: the first one opens the stream."""
        if self.state.phase is Phase.OPENING:
            self.state = self.state.opened(_now(), address=address)
        self._progress()

    def received(self, data: bytes) -> None:
        """A datagram came for this stream."""
        words = data.decode(errors="replace").split()
        if self._name in words:
            self._answered(words[0] if len(words) == 3 and words[2] == self._name else None)

    def failed_once(self) -> None:
        """An error came back for a datagram."""
        self.state = self.state.failed_once()


class _Datagrams(asyncio.DatagramProtocol):
    """Passes what arrives on a UDP socket to its stream."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._held.received(data)

    def error_received(self, exc: Exception) -> None:
        self._held.failed_once()


async def resolve(target: Target, kind: socket.SocketKind) -> tuple[str, int]:
    """The first address of a target's host. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=kind)
    address = found[0][4]
    return str(address[0]), int(address[1])


async def _line(reader: asyncio.StreamReader) -> str:
    """One whole line. Raises ConnectionResetError, or OSError if the stream is closed first."""
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise OSError("closed")
    return line.decode()


def _expect(line: str, number: int) -> None:
    if line != f"{number}\n":
        raise ValueError(f"corrupt: expected {number}, got {line!r}"[:80])


def _now() -> float:
    return asyncio.get_running_loop().time()
