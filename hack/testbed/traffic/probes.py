"""Single probes and transfers, each with one JSON answer."""

import asyncio
import hashlib
import os
import random
import socket
import time
from typing import Any

from testbed.traffic.ping import Pinger
from testbed.traffic.streams import resolve
from testbed.traffic.target import Target

_CHUNK = 64 << 10


async def check(kind: str, target: Target, *, timeout: float, name: str) -> dict[str, Any]:  # noqa: ASYNC109 - part of the answer
    """Ask the target once by `kind` (tcp, udp or ping) as what it sees us; never raises for a failure of the network.

    The answer has "ok", "seconds", and "address" and "port" (not for ping) or "error".
    """
    probe = {"tcp": _tcp, "udp": _udp, "ping": _ping}[kind]
    start = time.monotonic()
    answer: dict[str, Any]
    try:
        async with asyncio.timeout(timeout):
            answer = {"ok": True, **await probe(target, name)}
    except TimeoutError:
        answer = {"ok": False, "error": "timeout"}
    except (OSError, ValueError) as error:
        answer = {"ok": False, "error": str(error) or type(error).__name__}
    return {"kind": kind, "target": str(target), **answer, "seconds": round(time.monotonic() - start, 4)}


async def transfer(target: Target, *, count: int, upload: bool, timeout: float, name: str) -> dict[str, Any]:  # noqa: ASYNC109
    """Move `count` bytes one way and compare SHA-256; never raises for a failure of the network.

    The answer has "ok", "bytes", "seconds", "gap" (longest time without a byte moving), and "error" unless ok.
    """
    progress = _Progress()
    answer: dict[str, Any] = {"ok": True}
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(target.host, target.port)
            writer.write(f"{'sink' if upload else 'source'} {count} {name}\n".encode())
            answer["address"] = (await reader.readline()).decode().partition(" ")[0]
            run = _upload if upload else _download
            if not await run(reader, writer, count, progress):
                answer = {"ok": False, "error": "the hashes differ"}
            writer.close()
    except TimeoutError:
        answer = {"ok": False, "error": "timeout"}
    except (OSError, asyncio.IncompleteReadError) as error:
        answer = {"ok": False, "error": str(error) or type(error).__name__}
    direction = "upload" if upload else "download"
    return {"kind": direction, "target": str(target), **answer, **progress.report()}


class _Progress:
    """Counts bytes and the longest pause between them."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._bytes = 0
        self._gap = 0.0

    def moved(self, count: int) -> None:
        now = time.monotonic()
        self._gap = max(self._gap, now - self._last)
        self._last = now
        self._bytes += count

    def report(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._start
        return {"bytes": self._bytes, "seconds": round(seconds, 4), "gap": round(self._gap, 4)}


async def _download(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int, progress: _Progress
) -> bool:
    expected = (await reader.readline()).decode().strip()
    state = hashlib.sha256()
    left = count
    while left and (data := await reader.read(min(left, _CHUNK))):
        state.update(data)
        left -= len(data)
        progress.moved(len(data))
    return not left and state.hexdigest() == expected


async def _upload(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int, progress: _Progress) -> bool:
    block = os.urandom(_CHUNK - 1)  # not a divisor of the transfer's size: a chunk in the wrong place changes the hash
    state = hashlib.sha256()
    left = count
    while left:
        data = block[:left]
        state.update(data)
        writer.write(data)
        await writer.drain()
        left -= len(data)
        progress.moved(len(data))
    return (await reader.readline()).decode().strip() == state.hexdigest()


async def _tcp(target: Target, name: str) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(f"whoami {name}\n".encode())
    line = await reader.readline()
    writer.close()
    return _seen_as(line)


async def _udp(target: Target, name: str) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    address = await resolve(target, socket.SOCK_DGRAM)
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        datagrams.connect(address)
        await loop.sock_sendall(datagrams, f"whoami {name}\n".encode())
        return _seen_as(await loop.sock_recv(datagrams, 2048))


async def _ping(target: Target, _name: str) -> dict[str, Any]:
    pinger = Pinger(
        await resolve(target, socket.SOCK_DGRAM),
        identifier=random.getrandbits(16),
        token=random.randbytes(16),  # noqa: S311 - no secret
    )
    replied = asyncio.Event()
    pinger.on_reply(replied.set)
    try:
        pinger.send(1)
        await replied.wait()
    finally:
        pinger.close()
    return {}


def _seen_as(line: bytes) -> dict[str, Any]:
    """From `ADDRESS PORT ...`. Raises ValueError for anything else, an empty answer included."""
    words = line.decode().split()
    if len(words) < 2:
        raise ValueError(f"the connection was closed or the answer is no address: {line!r}")
    return {"address": words[0], "port": int(words[1])}
