"""`python -m testbed.dns --zone FILE --bind ADDRESS...`: serve a zone over UDP and TCP on port 53.

The file is read again when it changes, with the next query; a file that cannot be read leaves the records as they were.
"""

import argparse
import asyncio
import ipaddress
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from testbed.dns.message import Address
from testbed.dns.zone import Zone, ZoneError, parse_zone, respond

_UDP_BYTES, _TCP_BYTES = 512, 65535
_IDLE_SECONDS = 10


class Server:
    """Answers from the zone file as it is now."""

    def __init__(self, path: Path, *, ttl: int) -> None:
        """Raises ZoneError or OSError if the file cannot be read."""
        self._path = path
        self._ttl = ttl
        self._read: tuple[int, int] | None = None
        self._zone: Zone = parse_zone(path.read_text())

    def respond(self, data: bytes, *, limit: int) -> bytes | None:
        """See zone.respond."""
        self._refresh()
        return respond(data, self._zone, ttl=self._ttl, limit=limit)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the queries of a TCP connection (RFC 1035 section 4.2.2: two bytes of length before each message)."""
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            while True:
                size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), _IDLE_SECONDS), "big")
                data = await asyncio.wait_for(reader.readexactly(size), _IDLE_SECONDS)
                answer = self.respond(data, limit=_TCP_BYTES)
                if answer is None:
                    break
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        writer.close()

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if version != self._read:
                self._zone = parse_zone(self._path.read_text())
                self._read = version
        except (OSError, ZoneError) as error:
            print(f"keeping the records as they were: {error}", file=sys.stderr, flush=True)


class Datagrams(asyncio.DatagramProtocol):
    """Answers over UDP on one address."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer with."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer one query."""
        assert self._transport is not None
        answer = self._server.respond(data, limit=_UDP_BYTES)
        if answer is not None:
            self._transport.sendto(answer, addr)


async def serve(server: Server, addresses: list[Address], port: int) -> None:
    """Serve until the process is told to stop."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    for address in addresses:
        await loop.create_datagram_endpoint(lambda: Datagrams(server), local_addr=(str(address), port))
        await asyncio.start_server(server.serve, str(address), port)
    await stopped.wait()


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(prog="python -m testbed.dns", description=__doc__)
    parser.add_argument("--zone", type=Path, required=True, metavar="FILE")
    parser.add_argument("--bind", type=ipaddress.ip_address, action="append", required=True, metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--ttl", type=int, default=5, metavar="SECONDS")
    options = parser.parse_args()
    asyncio.run(serve(Server(options.zone, ttl=options.ttl), options.bind, options.port))


if __name__ == "__main__":
    main()
