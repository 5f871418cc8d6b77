"""The line to the node's agent: says which pool this proxy serves, and gets that pool's policies each time they change.

Invariants: the last good snapshot stays in force while the agent is away or sends nonsense; reconnecting backs off,
so an agent that restarts is not flooded.
"""

import errno
import json
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket
from collections.abc import Callable
from typing import Final

from .core.policy import SnapshotError, parse_snapshot
from .engine.loop import ERROR, HANGUP, IN, PEER_SHUT, Alarm, Loop

BACKOFF_FIRST: Final = 0.1
BACKOFF_MAX: Final = 5.0
LINE_MAX: Final = 64 << 20
"""Bytes of one snapshot; more is not an agent."""


class AgentClient:
    """Calls `snapshot` with each line that parses, and `event` with what a person may want to know."""

    __slots__ = ("_backoff", "_buffer", "_event", "_loop", "_path", "_pool", "_retry", "_snapshot", "_sock", "_up")

    def __init__(
        self, loop: Loop, *, path: str, pool: str, snapshot: Callable[[bytes], None], event: Callable[[str, str], None]
    ) -> None:
        """path: of the agent's unix socket; event(kind, detail)."""
        self._loop = loop
        self._path = path
        self._pool = pool
        self._snapshot = snapshot
        self._event = event
        self._sock: socket | None = None
        self._buffer = bytearray()
        self._backoff = BACKOFF_FIRST
        self._up = True
        self._retry = Alarm(self.connect)

    def connect(self) -> None:
        """Connect and introduce this proxy; on failure try again later."""
        sock = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        self._sock = sock
        try:
            sock.connect(self._path)
            sock.send(json.dumps({"hello": 1, "pool": self._pool}).encode() + b"\n")
        except OSError as error:
            self._lost(errno.errorcode.get(error.errno or 0, "unknown"))
            return
        self._buffer.clear()
        self._loop.watch(sock.fileno(), self._on_event)

    def close(self) -> None:
        """Hang up for good."""
        self._loop.disarm(self._retry)
        if self._sock is not None:
            self._loop.retire(self._sock)
            self._sock = None

    def abandon(self) -> None:
        """Close only this process's copy of the descriptor; for a child process that inherited it."""
        if self._sock is not None:
            self._sock.close()

    def _on_event(self, events: int) -> None:
        if self._sock is None or not events & (IN | PEER_SHUT | HANGUP | ERROR):
            return
        while True:
            try:
                piece = self._sock.recv(1 << 20)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(errno.errorcode.get(error.errno or 0, "unknown"))
                return
            if not piece:
                self._lost("closed")
                return
            self._buffer += piece
            if len(self._buffer) > LINE_MAX:
                self._lost("line too long")
                return
            while (end := self._buffer.find(b"\n")) >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._on_line(line)

    def _on_line(self, line: bytes) -> None:
        try:
            parse_snapshot(line, self._pool)
        except SnapshotError as error:
            self._event("snapshot-refused", str(error))
            return
        self._backoff = BACKOFF_FIRST
        if not self._up:
            self._event("agent-back", self._path)
        self._up = True
        self._snapshot(line)

    def _lost(self, why: str) -> None:
        if self._up:
            # Once per outage, not once per attempt.
            self._event("agent-away", f"{self._path}: {why}")
        self._up = False
        self.close()
        self._loop.arm(self._retry, self._backoff)
        self._backoff = min(self._backoff * 2, BACKOFF_MAX)
