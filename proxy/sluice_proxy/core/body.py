"""Bodies in transit: how many of the bytes that came belong to the message, and what of them is sent on.

Invariants: a body ends exactly where its framing says, nothing after it is ever sent on; chunks are written anew, so
a malformed size line cannot be understood differently by the next reader; chunk extensions are refused, trailers are
dropped (RFC 9110, section 6.5.1).
"""

import re
from typing import Final

from .refusal import malformed
from .request import CHUNKED

CHUNK_LINE_MAX: Final = 18
TRAILER_MAX: Final = 16384

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")


class LengthBody:
    """A body of a known number of bytes."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> bytes:
        """What of `data` is sent on: at most what is left of the body."""
        taken = data[: self._left]
        self._left -= len(taken)
        self.done = self._left == 0
        return taken


class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1). `done` is set once its last chunk and trailer section have passed."""

    __slots__ = ("_expect", "_left", "_line", "_trailer", "done")

    def __init__(self) -> None:
        self.done = False
        self._line = b""
        self._left = 0
        self._trailer = 0
        self._expect = self._size_line

    def feed(self, data: bytes) -> bytes:
        """The same chunks, written anew. Raises RefusedError (400) at the first byte that breaks the framing."""
        out: list[bytes] = []
        position = 0
        while position < len(data) and not self.done:
            position = self._expect(data, position, out)
        return b"".join(out)

    def _size_line(self, data: bytes, position: int, out: list[bytes]) -> int:
        line, position = self._take_line(data, position, CHUNK_LINE_MAX)
        if line is None:
            return position
        if not _SIZE.fullmatch(line):
            raise malformed("bad-chunk", "A chunk's size line is not a plain hexadecimal number.")
        self._left = int(line, 16)
        if self._left:
            out.append(b"%x\r\n" % self._left)
            self._expect = self._content
        else:
            self._expect = self._trailer_line
        return position

    def _content(self, data: bytes, position: int, out: list[bytes]) -> int:
        piece = data[position : position + self._left]
        out.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._expect = self._content_end
        return position + len(piece)

    def _content_end(self, data: bytes, position: int, out: list[bytes]) -> int:
        line, position = self._take_line(data, position, 2)
        if line is None:
            return position
        if line:
            raise malformed("bad-chunk", "A chunk is longer than its size line says.")
        out.append(b"\r\n")
        self._expect = self._size_line
        return position

    def _trailer_line(self, data: bytes, position: int, out: list[bytes]) -> int:
        line, position = self._take_line(data, position, TRAILER_MAX - self._trailer)
        if line is None:
            return position
        if not line:
            out.append(b"0\r\n\r\n")
            self.done = True
        elif not _TRAILER.fullmatch(line):
            raise malformed("bad-trailer", "A trailer line is not `name: value`.")
        self._trailer += len(line) + 2
        return position

    def _take_line(self, data: bytes, position: int, limit: int) -> tuple[bytes | None, int]:
        """The rest of the line that began at or before `position`, without its CRLF; None when its end has not come."""
        stop = data.find(b"\n", position, position + limit - len(self._line))
        end = len(data) if stop < 0 else stop + 1
        line = self._line + data[position : min(end, position + limit + 1)]
        if len(line) > limit or (stop < 0 and len(line) >= limit):
            raise malformed("bad-chunk", "A line of the chunked coding is too long.")
        if stop < 0:
            # A line that cannot become well-formed is refused at once, wherever the pieces were cut.
            if b"\r" in line[:-1]:
                raise malformed("bad-chunk", "A line of the chunked coding does not end in CRLF.")
            self._line = line
            return None, end
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise malformed("bad-chunk", "A line of the chunked coding does not end in CRLF.")
        self._line = b""
        return line[:-2], end


def body_of(length: int) -> LengthBody | ChunkedBody:
    """The reader for the framing that a request declared (Request.body)."""
    return ChunkedBody() if length == CHUNKED else LengthBody(length)
