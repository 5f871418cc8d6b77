"""Names to addresses without blocking and without getaddrinfo: UDP to the system's name servers, TCP when an answer
is cut.

Invariants: every query has a random identifier and a socket of its own (hence a random source port) that hears one
server only; what is asked twice at the same time is sent once; answers, also negative ones, are kept as long as their
TTL says, at most CACHE_MAX of them. Names with a dot are never completed with the search list (SSAC advisory SAC064):
a search domain cannot take over a name that a policy means.
"""

import secrets
from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from sluice_proxy.core.dns import DnsAnswer, DnsError, RecordType, ResponseCode, encode_query, parse_answer
from sluice_proxy.core.host import Address

from .loop import ERROR, HANGUP, IN, OUT, PEER_SHUT, Loop

CACHE_MAX: Final = 10_000
TRY_SECONDS: Final = 1.5
TRIES_PER_SERVER: Final = 2
_DNS_PORT: Final = 53
_UDP_MAX: Final = 4096
_SERVERS_MAX: Final = 3


class ResolveError(Enum):
    """Why a name has no addresses."""

    NO_SUCH_NAME = "no-such-name"
    FAILED = "failed"
    TIMEOUT = "timeout"


Outcome = tuple[Address, ...] | ResolveError
"""The addresses, possibly none, or why there is no answer."""
Done = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """Name servers (address, port) and the domains that complete names without a dot."""

    servers: tuple[tuple[Address, int], ...]
    search: tuple[str, ...]


def parse_resolv_conf(text: str) -> ResolverConfig:
    """What resolv.conf(5) says; the local name server when it names none."""
    servers: list[tuple[Address, int]] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or line[0] in "#;":
            continue
        if words[0] == "nameserver":
            try:
                servers.append((ip_address(words[1]), _DNS_PORT))
            except ValueError:
                continue
        elif words[0] in ("search", "domain"):
            search = tuple(domain.strip(".").lower() for domain in words[1:] if domain.strip("."))
    return ResolverConfig(tuple(servers[:_SERVERS_MAX]) or ((IPv4Address("127.0.0.1"), _DNS_PORT),), search)


class Resolver:
    """One per worker."""

    __slots__ = ("_cache", "_config", "_lookups", "_loop")

    def __init__(self, loop: Loop, config: ResolverConfig) -> None:
        self._loop = loop
        self._config = config
        self._cache: dict[tuple[str, RecordType], tuple[float, Outcome]] = {}
        self._lookups: dict[tuple[str, RecordType], _Lookup] = {}

    def resolve(self, name: str, kind: RecordType, done: Done) -> None:
        """Call `done` once, at once when the answer is known."""
        key = (name, kind)
        cached = self._cache.get(key)
        if cached is not None:
            if cached[0] > self._loop.now:
                done(cached[1])
                return
            del self._cache[key]
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = _Lookup(self._loop, self._config, name, kind, self._learn)
            lookup.waiting.append(done)
            lookup.start()
        else:
            lookup.waiting.append(done)

    def _learn(self, lookup: "_Lookup", outcome: Outcome, ttl: int) -> None:
        key = (lookup.name, lookup.kind)
        del self._lookups[key]
        if ttl > 0:
            if len(self._cache) >= CACHE_MAX:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = (self._loop.now + ttl, outcome)
        for done in lookup.waiting:
            done(outcome)


class _Lookup:
    """One name and kind being asked: servers in turn, then the next domain of the search list."""

    __slots__ = (
        "_attempt",
        "_buffer",
        "_config",
        "_done",
        "_finished",
        "_identifier",
        "_loop",
        "_names",
        "_out",
        "_sock",
        "_timed_out",
        "kind",
        "name",
        "timer_tick",
        "waiting",
    )

    def __init__(
        self,
        loop: Loop,
        config: ResolverConfig,
        name: str,
        kind: RecordType,
        done: Callable[["_Lookup", Outcome, int], None],
    ) -> None:
        self._loop = loop
        self._config = config
        self.name = name
        self.kind = kind
        self._done = done
        self.waiting: list[Done] = []
        self._names = [name] if "." in name else [*(f"{name}.{domain}" for domain in config.search), name]
        self._attempt = 0
        self._identifier = 0
        self._sock: socket | None = None
        self._buffer = b""
        self._out = b""
        self._timed_out = True
        self._finished = False
        self.timer_tick = 0

    def start(self) -> None:
        """Ask the next server, until the tries are used up."""
        servers = self._config.servers
        while self._attempt < len(servers) * TRIES_PER_SERVER:
            address, port = servers[self._attempt % len(servers)]
            self._attempt += 1
            self._identifier = secrets.randbits(16)
            self._out = encode_query(self._identifier, self._names[0], self.kind)
            if self._open(address, port, SOCK_DGRAM):
                return
        self._finish(ResolveError.TIMEOUT if self._timed_out else ResolveError.FAILED, 0)

    def on_timer(self) -> None:
        """The server did not answer in time."""
        self._timed_out = True
        self._drop()
        self.start()

    def _open(self, address: Address, port: int, kind: int) -> bool:
        family = AF_INET6 if isinstance(address, IPv6Address) else AF_INET
        try:
            self._sock = sock = socket(family, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        except OSError:
            return False
        try:
            # A connected socket hears its server only; connecting picks an unpredictable source port.
            if sock.connect_ex((str(address), port)) not in (0, 115):
                raise OSError
            if kind == SOCK_DGRAM:
                sock.send(self._out)
        except OSError:
            self._drop()
            return False
        handler = self._on_datagram if kind == SOCK_DGRAM else self._on_stream
        self._loop.watch(sock.fileno(), handler)
        self._loop.arm(self, TRY_SECONDS)
        return True

    def _drop(self) -> None:
        self._loop.disarm(self)
        if self._sock is not None:
            self._loop.retire(self._sock)
            self._sock = None

    def _on_datagram(self, events: int) -> None:
        if not events & (IN | ERROR) or self._sock is None:
            return
        while self._sock is not None:
            try:
                data = self._sock.recv(_UDP_MAX)
            except BlockingIOError:
                return
            except OSError:
                # Nobody listens there (ICMP port unreachable).
                self._retry()
                return
            self._on_message(data)

    def _on_message(self, data: bytes) -> None:
        try:
            answer = parse_answer(data, self._identifier, self._names[0], self.kind)
        except DnsError:
            # Not ours, perhaps forged: go on listening until the time is up.
            return
        if answer.truncated:
            self._ask_by_stream()
        else:
            self._on_answer(answer)

    def _ask_by_stream(self) -> None:
        address, port = self._config.servers[(self._attempt - 1) % len(self._config.servers)]
        self._drop()
        query = encode_query(self._identifier, self._names[0], self.kind)
        self._out = len(query).to_bytes(2, "big") + query
        self._buffer = b""
        if not self._open(address, port, SOCK_STREAM):
            self._retry()

    def _on_stream(self, events: int) -> None:
        if self._sock is None:
            return
        try:
            if events & OUT and self._out:
                self._out = self._out[self._sock.send(self._out) :]
            if events & (IN | PEER_SHUT | ERROR | HANGUP):
                self._read_stream(self._sock)
        except BlockingIOError:
            return
        except OSError:
            self._retry()

    def _read_stream(self, sock: socket) -> None:
        while True:
            piece = sock.recv(65537)
            if not piece:
                self._retry()
                return
            self._buffer += piece
            size = int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) >= size + 2 > 2:
                try:
                    answer = parse_answer(self._buffer[2 : size + 2], self._identifier, self._names[0], self.kind)
                except DnsError:
                    self._retry()
                    return
                self._on_answer(answer)
                return

    def _on_answer(self, answer: DnsAnswer) -> None:
        if answer.code == ResponseCode.SUCCESS and (answer.addresses or len(self._names) == 1):
            self._finish(answer.addresses, answer.ttl)
        elif answer.code in (ResponseCode.SUCCESS, ResponseCode.NO_SUCH_NAME):
            if len(self._names) == 1:
                self._finish(ResolveError.NO_SUCH_NAME, answer.ttl)
            else:
                del self._names[0]
                self._attempt = 0
                self._drop()
                self.start()
        else:
            self._retry()

    def _retry(self) -> None:
        self._timed_out = False
        self._drop()
        self.start()

    def _finish(self, outcome: Outcome, ttl: int) -> None:
        if not self._finished:
            self._finished = True
            self._drop()
            self._done(self, outcome, ttl)


def read_config(path: str = "/etc/resolv.conf") -> ResolverConfig:
    """The system's configuration; the local name server when there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return parse_resolv_conf(file.read())
    except OSError:
        return parse_resolv_conf("")
