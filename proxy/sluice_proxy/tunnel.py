"""A CONNECT tunnel: two flows, each ending on its own.

Invariants: a half-close of one side becomes a half-close of the other once everything before it is delivered; a reset
of one side becomes a reset of the other; nothing is sent to the server before the client has its 200.
"""

import struct
from _socket import IPPROTO_TCP, SHUT_WR, SO_KEEPALIVE, SO_LINGER, SOL_SOCKET, TCP_KEEPIDLE, socket
from collections.abc import Callable
from typing import Final

from .engine.flow import AGAIN, DONE, Flow, Plumbing
from .engine.loop import ERROR, IN, OUT, READABLE, Loop

_KEEPALIVE_SECONDS: Final = 60
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def reset(loop: Loop, sock: socket) -> None:
    """Close with a reset, so that the other end does not take what it got for the whole."""
    try:
        sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
    finally:
        loop.retire(sock)


def keep_alive(sock: socket) -> None:
    """Probe the other end when it has been silent for a minute."""
    sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, _KEEPALIVE_SECONDS)


class Tunnel:
    """Owns both sockets until it calls `closed`, once, with a word for the access log."""

    __slots__ = ("_closed", "_loop", "_open", "down", "touched", "up")

    def __init__(
        self,
        loop: Loop,
        plumbing: Plumbing,
        *,
        client: socket,
        server: socket,
        closed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self.touched = loop.now
        """When something last happened on either side (the loop's clock)."""
        self._closed = closed
        self._open = True
        self.up = Flow(plumbing, client, server)
        self.down = Flow(plumbing, server, client)
        loop.handlers[client.fileno()] = self._on_client
        loop.handlers[server.fileno()] = self._on_server

    def start(self, first: bytes) -> None:
        """Begin to move bytes; `first` came from the client together with its request."""
        self.up.put_first(first)
        # Both sockets are registered already, and edges that came before this moment do not come again.
        self._run(self.up, drain=True)
        self._run(self.down, drain=True)

    def cut(self, why: str) -> None:
        """End the tunnel at once, visibly to both sides."""
        if self._open:
            self._open = False
            reset(self._loop, self.up.source)
            reset(self._loop, self.up.sink)
            self.up.release()
            self.down.release()
            self._closed(why)

    def keep_alive(self) -> None:
        """Have the kernel find out when the server is gone; for a tunnel that lives longer than most."""
        keep_alive(self.up.sink)

    def _on_client(self, events: int) -> None:
        self.touched = self._loop.now
        self._on_event(self.up, self.down, events)

    def _on_server(self, events: int) -> None:
        self.touched = self._loop.now
        self._on_event(self.down, self.up, events)

    def _on_event(self, inbound: Flow, outbound: Flow, events: int) -> None:
        if events & READABLE and not inbound.blocked:
            self._run(inbound, drain=events & ~(IN | OUT) != 0)
        if events & ERROR:
            self.cut("reset")
        elif events & OUT and outbound.blocked:
            self._run(outbound, drain=True)

    def _run(self, flow: Flow, *, drain: bool) -> None:
        if flow.done or flow.queued or not self._open:
            return
        try:
            outcome = flow.pump(drain)
            if outcome == DONE:
                self._finish(flow)
            elif outcome == AGAIN:
                flow.queued = True
                self._loop.put_off(lambda: self._resume(flow))
        except OSError:
            self.cut("reset")

    def _resume(self, flow: Flow) -> None:
        flow.queued = False
        self._run(flow, drain=True)

    def _finish(self, flow: Flow) -> None:
        if not (self.up.done and self.down.done):
            flow.sink.shutdown(SHUT_WR)
            return
        self._open = False
        self._loop.retire(self.up.source)
        self._loop.retire(self.up.sink)
        self._closed("closed")
