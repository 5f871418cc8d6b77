"""One client connection, from its first byte to its line in the access log.

head -> identity -> addresses -> decision -> dial -> tunnel or exchange -> end. Invariants: the address judged is the
address dialled; nothing reaches a server before the decision, and no byte of the client's before the connection
stands; every phase has a deadline; what is refused is answered and then closed, never reused.
"""

from _socket import SHUT_WR, SOL_SOCKET, socket
from enum import StrEnum
from typing import Final

from sluice_api.timers import PROXY_CONNECT, PROXY_HEAD, PROXY_RESOLVE

from .context import Context
from .core.answers import ESTABLISHED, local_answer, refusal_answer
from .core.decision import NOT_READY, Permitted, decide, identify, no_address, no_family
from .core.host import Address
from .core.message import check_loop
from .core.pages import local_page
from .core.policy import Policy, Snapshot
from .core.refusal import Refusal, RefusedError
from .core.request import HEAD_MAX, Kind, Request, parse_request
from .engine.dial import Dial, DialError
from .engine.loop import ERROR, HANGUP, READABLE
from .engine.resolver import Outcome, ResolveError
from .exchange import Exchange
from .failures import BUSY, DIAL, HEAD_TIMEOUT, RESOLVE, proxy_off
from .lookup import Lookup
from .tunnel import Tunnel

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 1 << 20
SO_MARK: Final = 36


class Phase(StrEnum):
    """What a session waits for."""

    HEAD = "head"
    RESOLVE = "resolve"
    CONNECT = "connect"
    OPEN = "open"
    LINGER = "linger"
    CLOSED = "closed"


class Session:
    """Owns the client's socket, except while a tunnel does."""

    __slots__ = (
        "_addresses",
        "_buffer",
        "_connected",
        "_context",
        "_deadline",
        "_decided",
        "_dial",
        "_dialled",
        "_lingered",
        "_lookup",
        "_mark",
        "_peer",
        "_phase",
        "_policy",
        "_relay",
        "_request",
        "_sock",
        "_started",
        "timer_tick",
    )

    def __init__(self, context: Context, sock: socket, peer: tuple[str, int]) -> None:
        self._context = context
        self._sock = sock
        self._peer = peer
        self._phase = Phase.HEAD
        self._buffer = b""
        self._mark = 0
        self._request: Request | None = None
        self._policy: Policy | None = None
        self._lookup: Lookup | None = None
        self._addresses: tuple[Address, ...] = ()
        self._dial: Dial | None = None
        self._dialled: Address | None = None
        self._relay: Tunnel | Exchange | None = None
        self._lingered = 0
        self._started = context.loop.now
        self._decided = 0.0
        self._connected = 0.0
        self._deadline = self._started + PROXY_HEAD
        self.timer_tick = 0

    def start(self) -> None:
        """Read at once: the kernel hands over a connection when its first bytes are there (TCP_DEFER_ACCEPT)."""
        loop = self._context.loop
        loop.watch(self._sock.fileno(), self._on_head)
        loop.arm(self, min(PROXY_HEAD, self._context.config.idle_seconds))
        self._on_head(READABLE)

    def on_timer(self) -> None:
        """The wheel's call: most deadlines have moved meanwhile."""
        loop = self._context.loop
        if self._relay is not None:
            self._relay.keep_alive()
            self._deadline = self._relay.touched + self._context.config.idle_seconds
        if loop.now < self._deadline:
            loop.arm(self, self._deadline - loop.now)
        elif self._phase is Phase.HEAD:
            self._refuse(HEAD_TIMEOUT)
        elif self._phase is Phase.RESOLVE:
            self._refuse(RESOLVE[ResolveError.TIMEOUT])
        elif self._phase is Phase.CONNECT:
            self._refuse(DIAL[DialError.TIMEOUT])
        elif self._phase is Phase.OPEN:
            self.cut("idle-timeout")
        else:
            self._close()

    def cut(self, why: str) -> None:
        """End the connection now; returns when its line is in the access log."""
        if self._relay is not None:
            self._relay.cut(why)
        elif self._phase not in (Phase.LINGER, Phase.CLOSED):
            self._log("failed", why)
            self._close()
        else:
            self._close()

    @property
    def open(self) -> bool:
        """Whether ending now would interrupt somebody."""
        return self._phase is not Phase.LINGER

    def _on_head(self, events: int) -> None:
        while self._phase is Phase.HEAD:
            try:
                data = self._sock.recv(HEAD_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                # Health checks and port scans come and go without a word; they are not worth a line.
                self._close()
                return
            self._buffer = self._buffer + data if self._buffer else data
            try:
                parsed = parse_request(self._buffer)
                if parsed is None:
                    continue
                self._request = parsed[0]
                self._buffer = self._buffer[parsed[1] :]
                self._on_request(parsed[0])
            except RefusedError as error:
                self._refuse(error.refusal)

    def _on_request(self, request: Request) -> None:
        context = self._context
        if request.kind is Kind.LOCAL:
            status, text = local_page(request, ready=context.snapshot is not None)
            self._send_last(local_answer(status, text, head_only=request.method == b"HEAD"))
            return
        if not context.config.proxying:
            self._refuse(proxy_off(context.config.pool))
            return
        snapshot = context.snapshot
        if snapshot is None:
            self._refuse(NOT_READY)
            return
        check_loop(request, context.name)
        self._mark = self._sock.getsockopt(SOL_SOCKET, SO_MARK)
        policy = identify(self._mark, snapshot)
        if isinstance(policy, Refusal):
            self._refuse(policy)
            return
        self._policy = policy
        if context.crowded:
            self._refuse(BUSY)
        elif isinstance(request.host, str):
            self._resolve(request.host, policy)
        else:
            self._judge(snapshot, policy, (request.host,), request.port)

    def _resolve(self, name: str, policy: Policy) -> None:
        """Ask for the families that the policy can leave with; the others could not be dialled."""
        versions = [version for version in (6, 4) if version in policy.egress]
        if not versions:
            self._refuse(no_family(policy, 4))
            return
        self._wait(Phase.RESOLVE, PROXY_RESOLVE)
        self._lookup = Lookup(self._on_addresses)
        self._lookup.start(self._context.resolver, name, versions)

    def _on_addresses(self, outcome: Outcome) -> None:
        self._lookup = None
        snapshot, policy, request = self._context.snapshot, self._policy, self._request
        if snapshot is None or policy is None or request is None:
            return
        if isinstance(outcome, ResolveError):
            self._refuse(RESOLVE[outcome])
        elif not outcome:
            self._refuse(no_address())
        else:
            self._judge(snapshot, policy, outcome, request.port)

    def _judge(self, snapshot: Snapshot, policy: Policy, addresses: tuple[Address, ...], port: int) -> None:
        self._decided = self._context.loop.now
        verdict = decide(snapshot, policy, addresses, port)
        if not isinstance(verdict, Permitted):
            self._addresses = addresses[:1]
            self._refuse(verdict)
            return
        self._addresses = verdict.addresses
        self._wait(Phase.CONNECT, PROXY_CONNECT)
        self._dial = Dial(
            self._context.loop,
            sources=policy.sources,
            addresses=verdict.addresses,
            port=port,
            done=self._on_dialled,
        )
        self._dial.start()

    def _wait(self, phase: Phase, seconds: float) -> None:
        loop = self._context.loop
        self._phase = phase
        self._deadline = loop.now + seconds
        loop.handlers[self._sock.fileno()] = self._on_waiting

    def _on_waiting(self, events: int) -> None:
        """The client's events before there is somewhere to send its bytes: only its going away matters."""
        if events & (ERROR | HANGUP):
            self._log("failed", "client-closed")
            self._close()

    def _on_dialled(self, server: socket | None, address: Address, error: DialError | None) -> None:
        self._dial = None
        self._dialled = address
        loop = self._context.loop
        if server is None:
            self._refuse(DIAL[error or DialError.UNREACHABLE])
            return
        self._connected = loop.now
        self._phase = Phase.OPEN
        request, first, self._buffer = self._request, self._buffer, b""
        plumbing = self._context.plumbing
        if request is not None and request.kind is Kind.FORWARD:
            exchange = self._relay = Exchange(
                loop,
                plumbing,
                client=self._sock,
                server=server,
                request=request,
                name=self._context.name,
                closed=self._on_exchanged,
            )
            exchange.start(first)
            return
        tunnel = self._relay = Tunnel(loop, plumbing, client=self._sock, server=server, closed=self._on_tunnel_closed)
        try:
            self._sock.send(ESTABLISHED)
        except OSError:
            tunnel.cut("client-closed")
            return
        tunnel.start(first)

    def _on_tunnel_closed(self, reason: str) -> None:
        self._log("allowed", reason, 200)
        self._forget()

    def _on_exchanged(self, reason: str, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._refuse(refusal)
            return
        relay = self._relay
        self._log("allowed", reason, relay.status if isinstance(relay, Exchange) else 0)
        if reason == "closed":
            self._relay = None
            self._linger()
        else:
            self._forget()

    def _refuse(self, refusal: Refusal) -> None:
        self._log("denied" if refusal.status == 403 else "failed", refusal.reason, refusal.status)
        self._relay = None
        request = self._request
        self._send_last(refusal_answer(refusal, head_only=request is not None and request.method == b"HEAD"))

    def _send_last(self, answer: bytes) -> None:
        try:
            self._sock.send(answer)
        except OSError:
            self._close()
            return
        self._linger()

    def _linger(self) -> None:
        """Say that no more comes, then read what the client still sends: closing over unread bytes would reset the
        connection and could destroy the answer on its way (RFC 9112, section 9.6)."""
        self._give_up()
        self._phase = Phase.LINGER
        self._buffer = b""
        loop = self._context.loop
        self._deadline = loop.now + LINGER_SECONDS
        loop.arm(self, LINGER_SECONDS)
        loop.handlers[self._sock.fileno()] = self._on_linger
        try:
            self._sock.shutdown(SHUT_WR)
        except OSError:
            self._close()
            return
        self._on_linger(READABLE)

    def _on_linger(self, events: int) -> None:
        buffer = self._context.plumbing.buffer
        try:
            while self._lingered < LINGER_BYTES:
                size = self._sock.recv_into(buffer)
                if not size:
                    break
                self._lingered += size
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close()

    def _close(self) -> None:
        if self._phase is Phase.CLOSED:
            return
        self._give_up()
        self._context.loop.retire(self._sock)
        self._forget()

    def _give_up(self) -> None:
        """Nobody waits for an address or a connection any more."""
        if self._lookup is not None:
            self._lookup.cancel()
            self._lookup = None
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None

    def _forget(self) -> None:
        """The socket is gone: cut the references that hold each other."""
        self._phase = Phase.CLOSED
        self._relay = None
        self._context.loop.disarm(self)
        self._context.sessions.discard(self)

    def _log(self, verdict: str, reason: str, status: int = 0) -> None:
        request, policy, relay = self._request, self._policy, self._relay
        if request is not None and request.kind is Kind.LOCAL:
            return
        now = self._context.loop.now
        address = self._dialled or (self._addresses[0] if self._addresses else None)
        sent = received = 0
        if isinstance(relay, Tunnel):
            sent, received = relay.up.count, relay.down.count
        elif relay is not None:
            sent, received = relay.sent, relay.received
        host = request.host if request is not None else None
        text = str(address) if address is not None else None
        egress = policy.egress.get(address.version) if policy is not None and address is not None else None
        self._context.log(
            "connection",
            {
                "policy": policy.label if policy is not None else None,
                "policyId": self._mark & 0x3FFF,
                "client": self._peer[0].removeprefix("::ffff:"),
                "clientPort": self._peer[1],
                "method": request.method.decode("ascii") if request is not None else None,
                "host": host if isinstance(host, str) else text if host is address else str(host),
                "port": request.port if request is not None else None,
                "address": text,
                "egressAddress": egress,
                "verdict": verdict,
                "reason": reason,
                "status": status,
                "bytesSent": sent,
                "bytesReceived": received,
                "decideMicroseconds": _microseconds(self._started, self._decided),
                "connectMicroseconds": _microseconds(self._decided, self._connected),
                "durationMicroseconds": _microseconds(self._started, now),
            },
        )


def _microseconds(start: float, end: float) -> int | None:
    return int((end - start) * 1e6) if end else None
