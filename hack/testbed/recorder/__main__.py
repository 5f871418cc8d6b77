"""`python -m testbed.recorder serve|query`: run the recorder, or ask a running one (JSON on standard output).

A running recorder is two processes: the services with a control socket in the folder `--dir`, and the capture. Contacts
of the services are also written to contacts.jsonl there, one JSON object a line.
"""

import argparse
import asyncio
import ipaddress
import json
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

from testbed.recorder import capture, services

CONTROL, CONTACTS = "control.sock", "contacts.jsonl"
DEFAULT_TCP, DEFAULT_UDP = "80,443,7000,8080", "443,7000"
_QUERY_SECONDS = 30


class Control:
    """Answers the control socket: one JSON object a connection in, one out."""

    def __init__(self, folder: Path, questions: socket.socket) -> None:
        self._folder = folder
        self._questions = questions
        self._lock = asyncio.Lock()
        self.contacts = (folder / CONTACTS).open("w+", buffering=1)
        self.stopped = asyncio.Event()

    def note(self, contact: dict[str, Any]) -> None:
        """Write a contact down."""
        self.contacts.write(json.dumps(contact) + "\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        command = (await reader.readline()).decode().strip()
        async with self._lock:
            answer = await self._ask("clear" if command == "clear" else "seen")
        if command == "clear":
            self.contacts.seek(0)
            self.contacts.truncate()
        elif command == "stop":
            self.stopped.set()
        lines = (self._folder / CONTACTS).read_text().splitlines()
        writer.write(json.dumps(answer | {"contacts": [json.loads(line) for line in lines]}).encode())
        writer.write_eof()
        await writer.drain()
        writer.close()

    async def _ask(self, question: str) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._questions, f"{question}\n".encode())
        answer = bytearray()
        while not answer.endswith(b"\n"):
            part = await loop.sock_recv(self._questions, 1 << 20)
            if not part:
                raise ConnectionError("the capture process ended")
            answer += part
        result: dict[str, Any] = json.loads(answer)
        return result


async def serve(options: argparse.Namespace, questions: socket.socket) -> None:
    """Run the services until told to stop."""
    control = Control(options.dir, questions)
    await services.start(options.bind, tcp=options.tcp, udp=options.udp, note=control.note)
    path = options.dir / CONTROL
    path.unlink(missing_ok=True)
    await asyncio.start_unix_server(control.serve, path)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, control.stopped.set)
    await control.stopped.wait()
    path.unlink()


def start(options: argparse.Namespace) -> None:
    """Start the capture as a child, then the services here."""
    options.dir.mkdir(parents=True, exist_ok=True)
    packets = capture.open_socket(options.interface)
    ours, childs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        capture.run(packets, childs, frozenset(options.bind))
        os._exit(0)
    childs.close()
    packets.close()
    ours.setblocking(False)
    asyncio.run(serve(options, ours))


def query(options: argparse.Namespace) -> int:
    """Send one command to a running recorder and print its answer."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(_QUERY_SECONDS)
        try:
            control.connect(str(options.dir / CONTROL))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            print(f"no recorder runs in {options.dir}: {error}", file=sys.stderr)
            return 1
        control.sendall(f"{options.what}\n".encode())
        with control.makefile("rb") as answer:
            print(answer.read().decode())
    return 0


def _ports(text: str) -> list[int]:
    return [int(port) for port in text.split(",") if port]


def main() -> int:
    """Run one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m testbed.recorder", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    asking = commands.add_parser("query")
    asking.add_argument("what", choices=("seen", "clear", "stop"), nargs="?", default="seen")
    for command in (serving, asking):
        command.add_argument("--dir", type=Path, required=True)
    serving.add_argument("--interface", default="eth0")
    serving.add_argument("--bind", type=ipaddress.ip_address, action="append", required=True, metavar="ADDRESS")
    serving.add_argument("--tcp", type=_ports, default=DEFAULT_TCP, metavar="PORTS")
    serving.add_argument("--udp", type=_ports, default=DEFAULT_UDP, metavar="PORTS")
    run = {"serve": start, "query": query}
    options = parser.parse_args()
    return partial(run[options.command], options)() or 0


if __name__ == "__main__":
    sys.exit(main())
