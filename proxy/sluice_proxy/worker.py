"""A worker process: accepts from its own listener, serves sessions, follows what the supervisor hands it.

Invariants: a worker has its own share of the port (SO_REUSEPORT) and shares nothing with the others; it goes on with its last
snapshot until it gets a newer one; when the supervisor is gone, it drains.
"""

import gc
import sys
import time
from _socket import AF_INET6, IPPROTO_IPV6, IPPROTO_TCP, IPV6_V6ONLY, SO_KEEPALIVE, SO_REUSEADDR, SO_REUSEPORT
from _socket import SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET, TCP_DEFER_ACCEPT, TCP_KEEPCNT, TCP_KEEPIDLE
from _socket import TCP_KEEPINTVL, TCP_NODELAY, socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .access_log import AccessLog, Value
from .core.message import pseudonym
from .core.policy import Snapshot, parse_snapshot
from .core.refusal import malformed
from .core.request import Request
from .engine.flow import Plumbing
from .engine.loop import Alarm, Loop
from .engine.resolver import Resolver, read_config
from .session import Session

DRAIN_COMMAND: Final = b"drain"
_ACCEPTS_AT_ONCE: Final = 64
_ACCEPT_PAUSE: Final = 0.1
_LOG_DELAY: Final = 0.2
_HEADROOM: Final = 64
"""Connections beyond the limit that are still accepted, to be answered: clients with 503, health checks as always."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What every worker is told at its start."""

    pool: str
    proxying: bool
    max_connections: int
    drain_seconds: float
    log_format: str


def listen(port: int) -> socket:
    """A listener on every address of both families; several of them share the port."""
    sock = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
    # Accepted sockets inherit these, which saves the calls for each of them.
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 60)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPINTVL, 15)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPCNT, 4)
    # A connection is handed over with its first bytes: one wakeup less, and silent ones cost the kernel's memory only.
    sock.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, 5)
    sock.bind(("::", port))
    sock.listen(4096)
    return sock


class Worker:
    """Everything that the sessions of one process share."""

    __slots__ = (
        "_buffer", "_channel", "_draining", "_flush", "_listener", "_log", "_resume", "config", "loop", "name",
        "plumbing", "resolver", "sessions", "snapshot",
    )

    def __init__(self, config: WorkerConfig, listener: socket, channel: socket) -> None:
        """channel: the supervisor's end of it sends snapshots and commands, a line each."""
        self.config = config
        self.loop = Loop()
        self.plumbing = Plumbing()
        self.resolver = Resolver(self.loop, read_config())
        self.snapshot: Snapshot | None = None
        self.sessions: set[Session] = set()
        self.name = pseudonym(config.pool)
        self._listener: socket | None = listener
        self._channel = channel
        self._buffer = bytearray()
        self._draining = False
        self._log = AccessLog(sys.stdout.fileno(), config.log_format)
        self._flush = Alarm(self._log.flush)
        self._resume = Alarm(self._listen_again)

    @property
    def crowded(self) -> bool:
        """Whether new requests are refused."""
        return len(self.sessions) > self.config.max_connections

    def run(self) -> None:
        """Serve until drained."""
        self._channel.setblocking(False)
        self.loop.watch(self._channel.fileno(), self._on_channel)
        self._on_channel(0)
        if self._listener is not None:
            self.loop.watch_level(self._listener.fileno(), self._on_listener)
        # What exists now lives as long as the process: never look at it again when collecting garbage.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        self.loop.run()
        self._log.flush()

    def log(self, record: Mapping[str, Value], wall: float, event: str = "connection") -> None:
        """One line of the access log, on its way within _LOG_DELAY seconds."""
        self._log.write(event, wall, record)
        if not self._flush.timer_tick:
            self.loop.arm(self._flush, _LOG_DELAY)

    def local_page(self, request: Request) -> tuple[int, str]:
        """The status and text of the proxy's own pages. Raises RefusedError (404, 405)."""
        if request.method not in (b"GET", b"HEAD"):
            raise malformed("method", "The proxy's own pages are read with GET.", 405)
        if request.target == b"/healthz":
            return 200, "ok"
        if request.target == b"/readyz":
            return (200, "ready") if self.snapshot is not None else (503, "waiting for the node's agent")
        raise malformed("no-such-page", "There is /healthz and /readyz; a request to be forwarded has an absolute target.", 404)

    def _on_listener(self, events: int) -> None:
        listener = self._listener
        if listener is None:
            return
        for _ in range(_ACCEPTS_AT_ONCE):
            if len(self.sessions) >= self.config.max_connections + _HEADROOM:
                self._pause()
                return
            try:
                # Public accept() builds a second socket object around this.
                fd, peer = listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError:
                # Out of descriptors or memory: what waits in the queue is served when there is room again.
                self._pause()
                return
            sock = socket(AF_INET6, SOCK_STREAM, 0, fd)
            sock.setblocking(False)
            session = Session(self, sock, (peer[0], peer[1]))
            self.sessions.add(session)
            session.start()

    def _pause(self) -> None:
        if self._listener is not None:
            self.loop.unwatch(self._listener.fileno())
            self.loop.arm(self._resume, _ACCEPT_PAUSE)

    def _listen_again(self) -> None:
        if self._listener is not None:
            self.loop.watch_level(self._listener.fileno(), self._on_listener)

    def _on_channel(self, events: int) -> None:
        while True:
            try:
                piece = self._channel.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                self._drain()
                break
            self._buffer += piece
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        for line in lines:
            if line == DRAIN_COMMAND:
                self._drain()
            else:
                # The supervisor has parsed it before: what does not parse here is a fault of this program.
                self.snapshot = parse_snapshot(bytes(line), self.config.pool)

    def _drain(self) -> None:
        """Accept what is in the queue, then nothing more; wait for what is open, but not for ever."""
        if self._draining:
            return
        self._draining = True
        self._on_listener(0)
        if self._listener is not None:
            self.loop.disarm(self._resume)
            self.loop.retire(self._listener)
            self._listener = None
        self._wait_for_end(self.loop.now + self.config.drain_seconds)

    def _wait_for_end(self, deadline: float) -> None:
        if not self.sessions:
            self._end(0)
        elif self.loop.now >= deadline:
            cut = [session for session in self.sessions if session.open]
            for session in cut:
                session.cut("drained")
            self._end(len(cut))
        else:
            self.loop.arm(Alarm(lambda: self._wait_for_end(deadline)), min(0.1, deadline - self.loop.now))

    def _end(self, cut: int) -> None:
        self.log({"pool": self.config.pool, "cut": cut}, time.time(), "drained")
        self.loop.stop()


