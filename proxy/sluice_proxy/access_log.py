"""The access log: one line per connection on standard output, and never a worker that waits for its reader.

Invariants: a line is at most PIPE_BUF bytes and written in one piece, so lines of several workers do not mix; when
the reader does not keep up, lines beyond BACKLOG_MAX are counted and dropped, and the next line that gets through
says how many.
"""

import json
import os
import select
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

BACKLOG_MAX: Final = 1 << 20
FLUSH_AT: Final = 2048
_PIPE_BUF: Final = select.PIPE_BUF

Value = str | int | float | None


class AccessLog:
    """Lines wait in memory until `flush`."""

    __slots__ = ("_dropped", "_fd", "_json", "_lines", "_poll", "_size")

    def __init__(self, fd: int, form: str) -> None:
        """form: "json", or "text" for `key=value` pairs."""
        self._fd = fd
        self._json = form == "json"
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, event: str, wall: float, record: Mapping[str, Value]) -> None:
        """Add one line. wall: seconds since the epoch; fields without a value are left out."""
        if self._size > BACKLOG_MAX:
            self._dropped += 1
            return
        fields: dict[str, Value] = {"time": _timestamp(wall), "event": event}
        fields.update((key, value) for key, value in record.items() if value is not None)
        if self._dropped:
            fields["linesDropped"] = self._dropped
            self._dropped = 0
        line = self._format(fields).encode()[: _PIPE_BUF - 1] + b"\n"
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

    def _format(self, fields: Mapping[str, Value]) -> str:
        if self._json:
            return json.dumps(fields, separators=(",", ":"))
        return " ".join(f"{key}={_text(value)}" for key, value in fields.items())


def _text(value: Value) -> str:
    text = str(value)
    return json.dumps(text) if not text.isascii() or any(c in text for c in ' "=') else text


def _timestamp(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
