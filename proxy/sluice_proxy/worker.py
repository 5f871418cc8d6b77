"""A worker process: accepts from its own listener, serves sessions, follows what the supervisor hands it.

Invariants: a worker has its own share of the port (SO_REUSEPORT) and shares nothing with the others; it goes on with
its last snapshot until it gets a newer one; when the supervisor is gone, it drains.
"""

import errno
import gc
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPPROTO_TCP,
    IPV6_V6ONLY,
    SO_KEEPALIVE,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_DEFER_ACCEPT,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    socket,
)
from typing import Final

from .context import Context, WorkerConfig
from .core.policy import parse_snapshot
from .engine.loop import Alarm
from .session import Session

DRAIN_COMMAND: Final = b"drain"
_ACCEPTS_AT_ONCE: Final = 64
_ACCEPT_PAUSE: Final = 0.1
_HEADROOM: Final = 64
"""Connections beyond the limit that are still accepted, to be answered: clients with 503, health checks as always."""


def listen(port: int) -> socket:
    """A listener on every address of both families; several of them share the port."""
    try:
        sock = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        # A kernel that was started without IPv6.
        sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    # Accepted sockets inherit these, which saves the calls for each of them.
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 60)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPINTVL, 15)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPCNT, 4)
    # A connection is handed over with its first bytes: one wakeup less, and silent ones cost the kernel's memory only.
    sock.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, 5)
    sock.bind(("", port))
    sock.listen(4096)
    return sock


class Worker:
    """One process. `channel` is its line from the supervisor: snapshots and commands, a line each."""

    __slots__ = ("_buffer", "_channel", "_context", "_draining", "_listener", "_loop", "_resume")

    def __init__(self, config: WorkerConfig, listener: socket, channel: socket) -> None:
        self._context = Context(config)
        self._loop = self._context.loop
        self._listener: socket | None = listener
        self._channel = channel
        self._buffer = bytearray()
        self._draining = False
        self._resume = Alarm(self._listen_again)

    def run(self) -> None:
        """Serve until drained."""
        self._channel.setblocking(False)
        self._loop.watch(self._channel.fileno(), self._on_channel)
        self._on_channel(0)
        if self._listener is not None:
            self._loop.watch_level(self._listener.fileno(), self._on_listener)
        # What exists now lives as long as the process: never look at it again when collecting garbage.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        self._loop.run()
        self._context.flush()

    def _on_listener(self, events: int) -> None:
        listener = self._listener
        if listener is None:
            return
        for _ in range(_ACCEPTS_AT_ONCE):
            if len(self._context.sessions) >= self._context.config.max_connections + _HEADROOM:
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
            sock = socket(listener.family, SOCK_STREAM, 0, fd)
            sock.setblocking(False)
            session = Session(self._context, sock, (peer[0], peer[1]))
            self._context.sessions.add(session)
            session.start()

    def _pause(self) -> None:
        if self._listener is not None and not self._resume.timer_tick:
            self._loop.unwatch(self._listener.fileno())
            self._loop.arm(self._resume, _ACCEPT_PAUSE)

    def _listen_again(self) -> None:
        if self._listener is not None:
            self._loop.watch_level(self._listener.fileno(), self._on_listener)

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
                self._context.snapshot = parse_snapshot(bytes(line), self._context.config.pool)

    def _drain(self) -> None:
        """Accept what is in the queue, then nothing more; wait for what is open, but not for ever."""
        if self._draining:
            return
        self._draining = True
        self._on_listener(0)
        if self._listener is not None:
            self._loop.disarm(self._resume)
            self._loop.retire(self._listener)
            self._listener = None
        self._wait_for_end(self._loop.now + self._context.config.drain_seconds)

    def _wait_for_end(self, deadline: float) -> None:
        if not self._context.sessions:
            self._end(0)
        elif self._loop.now >= deadline:
            cut = [session for session in self._context.sessions if session.open]
            for session in cut:
                session.cut("drained")
            self._end(len(cut))
        else:
            self._loop.arm(Alarm(lambda: self._wait_for_end(deadline)), min(0.1, deadline - self._loop.now))

    def _end(self, cut: int) -> None:
        self._context.log("drained", {"cut": cut})
        self._loop.stop()
