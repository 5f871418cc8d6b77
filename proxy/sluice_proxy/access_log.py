"""The access log: one line per connection on standard output, and never a worker that waits for its reader.

Invariants: a line is at most PIPE_BUF bytes and written in one piece, so lines of several workers do not mix; when
the reader does not keep up, lines beyond BACKLOG_MAX are counted and dropped, and the next line that gets through
says how many.
"""

import json
import os
import select
import time
from collections.abc import Mapping
from typing import Final

BACKLOG_MAX: Final = 1 << 20
FLUSH_AT: Final = 2048
_PIPE_BUF: Final = select.PIPE_BUF

_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

Value = str | int | float | None


class AccessLog:
    """Lines wait in memory until `flush`."""

    __slots__ = ("_dropped", "_fd", "_json", "_lines", "_poll", "_pool", "_second", "_size", "_stamp")

    def __init__(self, fd: int, *, form: str, pool: str) -> None:
        """form: "json", or "text" for `key=value` pairs; pool: stands in every line."""
        self._fd = fd
        self._json = form == "json"
        self._pool = pool
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._second = -1
        self._stamp = ""
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, event: str, wall: float, record: Mapping[str, Value]) -> None:
        """Add one line. wall: seconds since the epoch."""
        if self._size > BACKLOG_MAX:
            self._dropped += 1
            return
        fields: dict[str, Value] = {"time": self._timestamp(wall), "event": event, "pool": self._pool, **record}
        if self._dropped:
            fields["linesDropped"] = self._dropped
            self._dropped = 0
        text = _ENCODE(fields) if self._json else _pairs(fields)
        line = text.encode()[: _PIPE_BUF - 1] + b"\n"
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write what the reader takes now."""
        while self._lines and self._poll.poll(0):
            count = size = 0
            for line in self._lines:
                if size + len(line) > _PIPE_BUF:
                    break
                size += len(line)
                count += 1
            try:
                os.write(self._fd, b"".join(self._lines[:count]))
            except OSError:
                # The reader is gone. Nobody can be told; serving goes on.
                self._lines.clear()
                self._size = 0
                return
            del self._lines[:count]
            self._size -= size

    def _timestamp(self, wall: float) -> str:
        second = int(wall)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{int((wall - second) * 1000):03}Z"


def _pairs(fields: Mapping[str, Value]) -> str:
    return " ".join(f"{key}={_text(value)}" for key, value in fields.items() if value is not None)


def _text(value: Value) -> str:
    text = str(value)
    return json.dumps(text) if not text.isascii() or any(c in text for c in ' "=') else text
