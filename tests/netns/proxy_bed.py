"""A namespace with a proxy in it, an agent that says what a test wants, and servers outside the cluster.

Who a client is comes from a packet mark, as on a gateway: an nft rule marks connections to the proxy by the client's
source address (127.0.0.N has policy id N, 127.0.0.1 none), and the kernel gives the mark to the accepted socket.
203.0.113.99 never answers.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

PORT = 13128
SERVER_V4 = "198.51.100.80"
SERVER_V6 = "2001:db8:80::80"
CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_RULES = """
table inet marks {
  chain out {
    type filter hook output priority 0; policy accept;
    tcp dport 13128 ip saddr 127.0.0.5 meta mark set 5
    tcp dport 13128 ip saddr 127.0.0.6 meta mark set 6
    tcp dport 13128 ip saddr 127.0.0.9 meta mark set 9
    ip daddr 203.0.113.99 drop
  }
}
"""


def policy(number: int, **changes: Any) -> dict[str, Any]:
    """A policy of the agent's snapshot, with an egress address of both families."""
    return {
        "id": number,
        "namespace": "billing",
        "name": f"policy-{number}",
        "sources": [f"240.0.0.{number}", f"100:0:0:1::{number:x}"],
        "addresses": ["192.0.2.17", "2001:db8:17::17"],
        "destinations": None,
        "otherwise": "Drop",
        **changes,
    }


def snapshot(*policies: dict[str, Any]) -> dict[str, Any]:
    """What the agent says to a proxy of the pool `partners`."""
    return {
        "version": 1,
        "pool": "partners",
        "policies": list(policies),
        "denied": ["10.244.0.0/16", "fd00:10:244::/48"],
    }


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread works in the namespace; sockets made here stay in it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _LIBC.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _LIBC.setns(home, CLONE_NEWNET)
        os.close(there)
        os.close(home)


class FakeAgent:
    """The agent's end of the unix socket: each connection gets the current snapshot, and every later one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hellos: list[dict[str, Any]] = []
        self._line: bytes | None = None
        self._lock = threading.Lock()
        self._clients: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def start(self) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()
        listener = self._listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(8)
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        with self._lock:
            if self._listener is not None:
                self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
            for client in self._clients:
                client.close()
            self._clients.clear()

    def say(self, document: dict[str, Any]) -> None:
        self.say_bytes(json.dumps(document).encode() + b"\n")

    def say_bytes(self, line: bytes) -> None:
        with self._lock:
            self._line = line
            for client in self._clients:
                client.sendall(line)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            hello = client.makefile("rb").readline()
            with self._lock:
                self.hellos.append(json.loads(hello))
                if self._line is not None:
                    client.sendall(self._line)
                self._clients.append(client)


class ProxyBed:
    """The namespace and what runs in it; leaves nothing behind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.namespace = f"slpx-{uuid.uuid4().hex[:8]}"
        self.agent = FakeAgent(directory / "agent.sock")
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "access.log"
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> Self:
        _ip("netns", "add", self.namespace)
        try:
            for command in (
                "link set lo up",
                "address add 198.51.100.80/32 dev lo",
                f"address add {SERVER_V6}/128 dev lo",
                "address add 203.0.113.80/32 dev lo",
                "route add 203.0.113.99/32 dev lo",
                "route add local 240.0.0.0/18 dev lo",
                "route add local 100:0:0:1::/64 dev lo",
            ):
                _ip("-n", self.namespace, *command.split())
            self.run(["sysctl", "-qw", "net.ipv4.tcp_fwmark_accept=1"])
            self.run(["nft", "-f", "-"], text=_RULES)
            self.agent.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.agent.stop()
        for listener in self._listeners:
            listener.close()
        _ip("netns", "delete", self.namespace)

    def run(
        self, command: list[str], *, text: str | None = None, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace; with a text to read it must succeed, else that is the caller's business."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=text is not None,
        )

    def program(self) -> list[str]:
        """The command line that every proxy here begins with."""
        # No capability at all, like the container.
        program = [
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            sys.executable,
            "-m",
            "sluice_proxy.main",
            "--pool",
            "partners",
            "--listen-port",
            str(PORT),
        ]
        return [*program, "--agent-socket", str(self.agent.path)]

    def start(self, *arguments: str, resolv_conf: str | None = None, wait: bool = True, workers: int = 1) -> None:
        """Start the proxy as the image does, and wait until it is ready."""
        program = [*self.program(), "--workers", str(workers), *arguments]
        if resolv_conf is not None:
            # Only in the mount namespace of `ip netns exec`.
            folder = Path("/etc/netns") / self.namespace
            folder.mkdir(parents=True)
            (folder / "resolv.conf").write_text(resolv_conf)
        with self.log.open("wb") as log, (self.directory / "errors").open("wb") as errors:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *program], stdin=subprocess.DEVNULL, stdout=log, stderr=errors
            )
        wait_until(lambda: self.page("/readyz" if wait else "/healthz") == 200, "the proxy is ready")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        folder = Path("/etc/netns") / self.namespace
        if folder.exists():
            (folder / "resolv.conf").unlink(missing_ok=True)
            folder.rmdir()

    def workers(self) -> list[int]:
        """Process ids of the proxy's workers."""
        assert self.process is not None
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def memory(self) -> int:
        """Resident bytes of the largest worker."""
        return max(_resident(pid) for pid in self.workers())

    def connect(self, client: str = "127.0.0.5") -> socket.socket:
        """A connection to the proxy from a pod of policy 5, unless said otherwise."""
        with inside(self.namespace):
            sock = socket.socket()
        sock.settimeout(15)
        try:
            sock.bind((client, 0))
            sock.connect(("127.0.0.1", PORT))
        except OSError:
            sock.close()
            raise
        return sock

    def page(self, path: str) -> int:
        """Status of one of the proxy's own pages; 0 when nothing answers."""
        try:
            with self.connect("127.0.0.1") as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n".encode())
                return int(read_head(sock)[0].split()[1])
        except OSError:
            return 0

    def request(self, data: bytes, client: str = "127.0.0.5") -> bytes:
        """Send bytes and read the whole answer."""
        with self.connect(client) as sock:
            sock.sendall(data)
            return read_all(sock)

    def tunnel(
        self, port: int, *, host: str = SERVER_V4, early: bytes = b"", client: str = "127.0.0.5"
    ) -> socket.socket:
        """An established tunnel."""
        sock = self.connect(client)
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode() + early)
        head, rest = read_head(sock)
        assert " 200 " in head, head
        assert not rest
        return sock

    def serve(self, handler: Callable[[socket.socket], None], host: str = SERVER_V4, port: int = 0) -> int:
        """A server outside the cluster, a thread for each connection; returns its port."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with inside(self.namespace):
            listener = socket.socket(family)
        listener.bind((host, port))
        listener.listen(64)
        self._listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_quietly, args=(handler, sock), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    def lines(self, event: str = "connection") -> list[dict[str, Any]]:
        """The access log's lines of one kind so far."""
        whole, _, _ = self.log.read_bytes().rpartition(b"\n")  # what follows is being written just now
        entries = [json.loads(line) for line in whole.splitlines()]
        return [entry for entry in entries if entry["event"] == event]

    def line(self, **wanted: Any) -> dict[str, Any]:
        """The latest connection's line that has these values, once it is there."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [entry for entry in self.lines() if all(entry.get(k) == v for k, v in wanted.items())]
            return bool(found)

        wait_until(look, f"a line with {wanted}")
        return found[-1]


def read_head(sock: socket.socket) -> tuple[str, bytes]:
    """A response's head, read byte by byte so that nothing after it is taken."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        if not piece:
            raise ConnectionError(f"ended after {data!r}")
        data += piece
    return data.decode("latin-1"), b""


def read_all(sock: socket.socket) -> bytes:
    """Everything until the other side ends."""
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


def _quietly(handler: Callable[[socket.socket], None], sock: socket.socket) -> None:
    with sock, suppress(OSError):
        handler(sock)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *(["-6"] if _is_v6_route(arguments) else []), *arguments], check=True, capture_output=True)


def _is_v6_route(arguments: tuple[str, ...]) -> bool:
    return "route" in arguments and any(":" in word for word in arguments)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
