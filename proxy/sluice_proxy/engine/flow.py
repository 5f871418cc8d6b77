"""One direction of a connection: bytes from a source socket to a destination socket, with backpressure.

Small flows are copied through one shared buffer; from SPLICE_FROM bytes on they go through a kernel pipe with
splice(2) and never enter this process. Invariants: the source is not read while the destination does not take more;
what a flow holds is bounded (BUFFER bytes, or one pipe); a pipe goes back to the pool only when it is empty.
"""

import errno
import fcntl
import os
from _socket import socket
from typing import Final

BUFFER: Final = 65536
SPLICE_FROM: Final = 131072
PIPE: Final = 262144
PIPES_MAX: Final = 64
"""Per worker. An unprivileged user may hold 64 MiB in pipes (pipe-user-pages-soft), after which they shrink to two
pages."""
_COPIES_AT_ONCE: Final = 8
_SPLICES_AT_ONCE: Final = 16

UNLIMITED: Final = 1 << 62

IDLE: Final = 0
"""Wait for the next event."""
AGAIN: Final = 1
"""There is more to do at once; others come first."""
DONE: Final = 2
"""The source has ended and everything is delivered."""


class Plumbing:
    """What all flows of a worker share: the copy buffer and the pipes."""

    __slots__ = ("_free", "_made", "buffer", "view")

    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)
        self._free: list[tuple[int, int]] = []
        self._made = 0

    def take(self) -> tuple[int, int] | None:
        """An empty pipe, or None when all are in use: the flow then goes on copying."""
        if self._free:
            return self._free.pop()
        if self._made >= PIPES_MAX:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
        except OSError as error:
            # Over the user's limit: a smaller pipe works as well, only in more steps.
            if error.errno != errno.EPERM:
                raise
        self._made += 1
        return pipe

    def give_back(self, pipe: tuple[int, int]) -> None:
        """Return an empty pipe."""
        self._free.append(pipe)

    def discard(self, pipe: tuple[int, int]) -> None:
        """Close a pipe that still holds bytes of a connection that is gone."""
        os.close(pipe[0])
        os.close(pipe[1])
        self._made -= 1


class Flow:
    """One direction. `count` is the number of bytes read from the source, `limit` where the flow ends even if the
    source does not."""

    __slots__ = (
        "_in_pipe",
        "_pending",
        "_pipe",
        "_plumbing",
        "blocked",
        "count",
        "done",
        "ended",
        "limit",
        "queued",
        "sink",
        "source",
    )

    def __init__(self, plumbing: Plumbing, source: socket, sink: socket, limit: int = UNLIMITED) -> None:
        self._plumbing = plumbing
        self.source = source
        self.sink = sink
        self._pending: bytes | memoryview | None = None
        self._pipe: tuple[int, int] | None = None
        self._in_pipe = 0
        self.count = 0
        self.limit = limit
        self.blocked = False
        """The destination does not take more: pump again when it is writable."""
        self.queued = False
        """The owner has put it off to the next round, and pumps it then."""
        self.ended = False
        self.done = False

    def put_first(self, data: bytes) -> None:
        """Bytes of the source that were already read; delivered before the rest."""
        if data:
            self.count += len(data)
            self._pending = data

    def pump(self, drain: bool) -> int:
        """Move what can be moved: IDLE, AGAIN or DONE. Raises OSError when either side is broken.

        drain: read until the source says there is no more, as is needed whenever the event that told of its readiness
        may have been a while ago, or told of its end.
        """
        self.blocked = False
        if self._pending is not None and not self._send(self._pending):
            return IDLE
        if self._pipe is not None or self.count >= SPLICE_FROM:
            pipe = self._pipe or self._plumbing.take()
            if pipe is not None:
                self._pipe = pipe
                return self._splice(pipe)
        return self._copy(drain)

    def release(self) -> None:
        """Let go of the pipe; the flow is not pumped again."""
        if self._pipe is not None:
            (self._plumbing.discard if self._in_pipe else self._plumbing.give_back)(self._pipe)
            self._pipe = None

    def _send(self, data: bytes | memoryview) -> bool:
        try:
            sent = self.sink.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            # A copy: the shared buffer belongs to the next flow that is pumped.
            self._pending = bytes(data[sent:])
            self.blocked = True
            return False
        self._pending = None
        return True

    def _copy(self, drain: bool) -> int:
        plumbing = self._plumbing
        receive, view, spliceable = self.source.recv_into, plumbing.view, self.count >= SPLICE_FROM
        for _ in range(_COPIES_AT_ONCE):
            if not self.ended:
                left = self.limit - self.count
                try:
                    size = receive(plumbing.buffer, BUFFER if left > BUFFER else left) if left else 0
                except BlockingIOError:
                    return IDLE
                self.count += size
                self.ended = size == 0
            if self.ended:
                self.done = True
                return DONE
            if not self._send(view[:size]):
                return IDLE
            # Less than asked for: the queue is empty, and what comes next makes a new edge.
            if size < BUFFER and not drain:
                return IDLE
            if not spliceable and self.count >= SPLICE_FROM:
                return AGAIN
        return AGAIN

    def _splice(self, pipe: tuple[int, int]) -> int:
        source, sink = self.source.fileno(), self.sink.fileno()
        for _ in range(_SPLICES_AT_ONCE):
            if not self.ended:
                left = self.limit - self.count
                try:
                    size = left and os.splice(
                        source, pipe[1], min(PIPE, left), flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
                    )
                    self._in_pipe += size
                    self.count += size
                    self.ended = size == 0
                except BlockingIOError:
                    # Either nothing to read or no room in the pipe; when the pipe is empty it can only be the former.
                    if not self._in_pipe:
                        self.release()
                        return IDLE
            while self._in_pipe:
                try:
                    self._in_pipe -= os.splice(
                        pipe[0], sink, self._in_pipe, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
                    )
                except BlockingIOError:
                    self.blocked = True
                    return IDLE
                if not self.ended:
                    break
            if self.ended:
                self.release()
                self.done = True
                return DONE
        return AGAIN
