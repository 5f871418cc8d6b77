"""An absolute-form request: its body to the server, the server's response to the client, then both connections end.

Invariants: exactly the bytes of one request go to the server and exactly one final response comes back; a response
that ends early ends with a reset, so that it cannot be taken for a whole one; neither side is read while the other
does not take more.
"""

from _socket import socket
from collections.abc import Callable
from typing import Final

from .core.body import body_of
from .core.message import Response, forward_head, parse_response
from .core.refusal import ProxyError, Refusal, RefusedError
from .core.request import Request
from .engine.flow import AGAIN, BUFFER, DONE, UNLIMITED, Flow, Plumbing
from .engine.loop import ERROR, HANGUP, OUT, READABLE, Loop
from .tunnel import keep_alive, reset

_READS_AT_ONCE: Final = 8
_TERMINATED: Final = Refusal(
    502, ProxyError.CONNECTION_TERMINATED, "server-closed", "The server closed the connection before it answered."
)


class Exchange:
    """Owns the server's socket; calls `closed` once.

    closed(reason, refusal): the refusal is for the client when no byte of a final response has been sent to it, and the
    client's socket is the caller's again; with reason "reset" it was closed.
    """

    __slots__ = (
        "_body",
        "_client",
        "_closed",
        "_down",
        "_head",
        "_loop",
        "_method",
        "_name",
        "_open",
        "_out",
        "_plumbing",
        "_queued",
        "_received",
        "_server",
        "_status",
        "sent",
        "touched",
    )

    def __init__(
        self,
        loop: Loop,
        plumbing: Plumbing,
        *,
        client: socket,
        server: socket,
        request: Request,
        name: bytes,
        closed: Callable[[str, Refusal | None], None],
    ) -> None:
        """name: the proxy's pseudonym for Via."""
        self._loop = loop
        self._plumbing = plumbing
        self._client = client
        self._server = server
        self._method = request.method
        self._name = name
        self._closed = closed
        self._body = body_of(request.body)
        self._out = forward_head(request, name)
        self._head = b""
        self._down: Flow | None = None
        self._open = True
        self._queued = False
        self._received = 0
        self._status = 0
        self.sent = 0
        self.touched = loop.now
        """When something last happened on either side (the loop's clock)."""
        loop.handlers[client.fileno()] = self._on_client
        loop.handlers[server.fileno()] = self._on_server

    @property
    def received(self) -> int:
        """Bytes of the response so far."""
        return self._received + (self._down.count if self._down is not None else 0)

    def start(self, first: bytes) -> None:
        """Begin; `first` came from the client together with its request's head."""
        self._guard(lambda: self._begin(first))

    def keep_alive(self) -> None:
        """Have the kernel find out when the server is gone."""
        keep_alive(self._server)

    def cut(self, why: str) -> None:
        """End at once, visibly to both sides."""
        if self._open:
            reset(self._loop, self._client)
            self._end(why, None)

    def _begin(self, first: bytes) -> None:
        self._out += self._body.feed(first)
        self._send()
        self._receive()

    def _on_client(self, events: int) -> None:
        self.touched = self._loop.now
        if events & (ERROR | HANGUP):
            self.cut("reset")
            return
        if events & READABLE:
            self._guard(self._send)
        if events & OUT and self._down is not None and self._down.blocked:
            self._guard(self._receive)

    def _on_server(self, events: int) -> None:
        self.touched = self._loop.now
        if events & OUT and self._out:
            self._guard(self._send)
        if events & READABLE and not (self._down is not None and self._down.blocked):
            self._guard(self._receive)
        if events & ERROR and self._open:
            self._broken()

    def _guard(self, step: Callable[[], None]) -> None:
        if not self._open:
            return
        try:
            step()
        except RefusedError as error:
            self._fail(error.refusal)
        except OSError:
            self._broken()

    def _broken(self) -> None:
        self._fail(_TERMINATED)

    def _fail(self, refusal: Refusal) -> None:
        """What is wrong becomes an answer while that is possible, and a reset afterwards."""
        if self._down is not None:
            self.cut("reset")
        else:
            self._end(refusal.reason, refusal)

    def _end(self, reason: str, refusal: Refusal | None) -> None:
        self._open = False
        if self._down is not None:
            self._down.release()
        if self._out or not self._body.done:
            reset(self._loop, self._server)
        else:
            self._loop.retire(self._server)
        self._closed(reason, refusal)

    def _send(self) -> None:
        """Request bytes: what is left first, then more of the body."""
        for _ in range(_READS_AT_ONCE):
            if self._out:
                try:
                    size = self._server.send(self._out)
                except BlockingIOError:
                    return
                except OSError:
                    # A server may answer and close without reading the body: its response counts.
                    self._receive()
                    raise
                self.sent += size
                self._out = self._out[size:]
                if self._out:
                    return
            if self._body.done:
                return
            try:
                data = self._client.recv(BUFFER)
            except BlockingIOError:
                return
            if not data:
                self.cut("client-closed")
                return
            self._out = self._body.feed(data)
        self._put_off()

    def _put_off(self) -> None:
        if not self._queued:
            self._queued = True
            self._loop.put_off(self._resume)

    def _resume(self) -> None:
        self._queued = False
        self._guard(self._send)
        self._guard(self._receive)

    def _receive(self) -> None:
        while self._open and self._down is None:
            try:
                data = self._server.recv(BUFFER)
            except BlockingIOError:
                return
            if not data:
                self._broken()
                return
            self._head += data
            self._read_heads()
        if self._open:
            self._relay()

    def _read_heads(self) -> None:
        while self._down is None:
            parsed = parse_response(self._head, self._method, self._name)
            if parsed is None:
                return
            response, size = parsed
            self._head = self._head[size:]
            if response.status >= 200:
                self._start_body(response)
            elif self._client.send(response.head) < len(response.head):
                # An interim response into a full send buffer: nothing has been sent before, so the client is broken.
                raise BrokenPipeError

    def _start_body(self, response: Response) -> None:
        first = response.head + self._head
        limit = UNLIMITED
        if response.body >= 0:
            limit = len(response.head) + response.body
        self._status = response.status
        self._down = Flow(self._plumbing, self._server, self._client, limit)
        self._down.put_first(first[:limit])
        self._head = b""

    def _relay(self) -> None:
        flow = self._down
        if flow is None:
            return
        outcome = flow.pump(True)
        if outcome == AGAIN:
            self._put_off()
        elif outcome == DONE:
            if flow.limit not in (UNLIMITED, flow.count):
                self.cut("response-incomplete")
            else:
                self._end("closed", None)

    @property
    def status(self) -> int:
        """The status of the final response; 0 before there is one."""
        return self._status
