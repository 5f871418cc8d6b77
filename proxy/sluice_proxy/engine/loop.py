"""The event loop of a worker: edge-triggered epoll, a timer wheel, and work put off to the next round.

Invariants: a descriptor is registered once and for all events; a socket given to `retire` stays open until the round's
events are all delivered, so its number cannot be taken by a new socket that would then get the old one's events.
"""

import select
import time
from _socket import socket
from collections.abc import Callable
from typing import Final

from .timers import Timed, TimerWheel

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
PEER_SHUT: Final = select.EPOLLRDHUP
HANGUP: Final = select.EPOLLHUP
ERROR: Final = select.EPOLLERR
READABLE: Final = IN | PEER_SHUT | HANGUP | ERROR
_ALL: Final = IN | OUT | PEER_SHUT | select.EPOLLET
_BATCH: Final = 256

Handler = Callable[[int], None]
Fault = Callable[[object, Exception], None]
"""Told of an exception that a handler did not expect, with the object whose method it was."""


class Alarm:
    """A call at a later time, armed with `Loop.arm`."""

    __slots__ = ("_call", "timer_tick")

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self.timer_tick = 0

    def on_timer(self) -> None:
        """Call."""
        self._call()


class Loop:
    """One per process."""

    __slots__ = ("_epoll", "_fault", "_put_off", "_retired", "_stopped", "_wheel", "handlers", "now")

    def __init__(self, fault: Fault | None = None) -> None:
        self._fault = fault
        self._epoll = select.epoll()
        self._wheel = TimerWheel()
        self._put_off: list[Callable[[], None]] = []
        self._retired: list[socket] = []
        self._stopped = False
        self.handlers: dict[int, Handler] = {}
        """Who gets a descriptor's events; may be replaced at any time."""
        self.now = time.monotonic()

    def watch(self, fd: int, handler: Handler) -> None:
        """Deliver every change of readiness of `fd`, edge-triggered."""
        self.handlers[fd] = handler
        self._epoll.register(fd, _ALL)

    def watch_level(self, fd: int, handler: Handler) -> None:
        """Deliver while `fd` is readable (listeners and signals, which are not drained at once)."""
        self.handlers[fd] = handler
        self._epoll.register(fd, IN)

    def unwatch(self, fd: int) -> None:
        """Deliver nothing more of a descriptor that stays open."""
        del self.handlers[fd]
        self._epoll.unregister(fd)

    def retire(self, sock: socket) -> None:
        """Close the socket at the end of the round."""
        self.handlers.pop(sock.fileno(), None)
        self._retired.append(sock)

    def put_off(self, work: Callable[[], None]) -> None:
        """Call `work` in the next round, after what else is ready: how one busy connection leaves room for the
        others."""
        self._put_off.append(work)

    def arm(self, item: Timed, delay: float) -> None:
        """Have the item called after `delay` seconds."""
        self._wheel.arm(item, self.now + delay)

    def disarm(self, item: Timed) -> None:
        """Forget the item's timer."""
        self._wheel.disarm(item)

    def close(self) -> None:
        """Let go of the kernel's side; for a child process that inherited it."""
        self._epoll.close()

    def stop(self) -> None:
        """Return from `run` after this round."""
        self._stopped = True

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopped:
            self._round()

    def _round(self) -> None:
        timeout = 0.0 if self._put_off else self._wheel.delay(time.monotonic())
        events = self._epoll.poll(timeout, _BATCH)
        self.now = time.monotonic()
        handlers = self.handlers
        for fd, event in events:
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    handler(event)
                except Exception as error:
                    self._on_fault(handler, error)
        if self._put_off:
            work, self._put_off = self._put_off, []
            for call in work:
                try:
                    call()
                except Exception as error:
                    self._on_fault(call, error)
        for item in self._wheel.due(self.now):
            try:
                item.on_timer()
            except Exception as error:
                self._on_fault(item.on_timer, error)
        if self._retired:
            for sock in self._retired:
                sock.close()
            self._retired.clear()

    def _on_fault(self, call: Callable[..., None], error: Exception) -> None:
        """A fault in one connection must not take the others with it."""
        if self._fault is None:
            raise error
        self._fault(getattr(call, "__self__", None), error)
