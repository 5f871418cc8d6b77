"""The protocol that the services speak: a first line (TCP) or a datagram (UDP) says what to do.

    echo ID            everything is sent back
    source BYTES ID    the server sends that many bytes, after a line with their SHA-256
    sink BYTES ID      the server reads that many bytes and answers their SHA-256
    push MILLISECONDS ID   the server sends 0, 1, 2, ... one a line (UDP: a datagram), one each that many milliseconds
    whoami ID          the server answers the client's address and port, and closes

Over TCP the server first answers each with `ADDRESS PORT`, the client as it sees it. ID is any word; it is recorded. A
TCP connection may speak HTTP/1 instead: `GET /whoami`, which answers JSON.

Pure: text in, a Command or None out. Must not use sockets.
"""

from dataclasses import dataclass

MAX_BYTES = 1 << 32
MAX_MILLISECONDS = 600_000
_WITH_NUMBER = {"source": MAX_BYTES, "sink": MAX_BYTES, "push": MAX_MILLISECONDS}
_WITHOUT = {"echo", "whoami"}


@dataclass(frozen=True, slots=True)
class Command:
    """What a client asks for. `number` is bytes or milliseconds, 0 where the command has none; `id` may be empty."""

    name: str
    number: int
    id: str


def parse(line: bytes) -> Command | None:
    """Read a first line or a datagram; None if it is no command. Words after the ID are the client's own."""
    try:
        words = line.decode("ascii").split()
    except UnicodeDecodeError:
        return None
    if not words:
        return None
    name, *rest = words
    if name == "GET" and rest:
        return Command("http", 0, rest[0])
    if name in _WITHOUT:
        return Command(name, 0, rest[0] if rest else "")
    if name in _WITH_NUMBER and rest and rest[0].isdecimal():
        number = int(rest[0])
        if 0 < number <= _WITH_NUMBER[name]:
            return Command(name, number, rest[1] if len(rest) > 1 else "")
    return None
