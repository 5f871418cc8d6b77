"""An API server without a cluster: etcd and kube-apiserver on loopback, for tests of what the API server itself does.

Validation, defaults, conflicts and outages are the API server's, so they are tested against one; nodes are not needed
for that, and without them it starts in a few seconds.

Invariants:
- Everything listens on 127.0.0.1, on ports that were free, and keeps its files in one temporary directory.
- `close` ends exactly the processes that were started here, and removes the directory.
Must not import a cluster backend.
"""

import json
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from testbed import commands
from testbed.binaries import ETCD, KUBERNETES, built
from testbed.cluster import ClusterError

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
POLL = 0.05
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said: HTTP status and the decoded body."""

    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        """The text of a refusal, empty for an object."""
        return str(self.body.get("message", "")) if self.body.get("kind") == "Status" else ""


class ApiServer:
    """etcd and kube-apiserver, running from `with` on; the user is of group system:masters.

    `stop` and `start` end the API server and bring it back with what it stored, on the same port; `pause` and `resume`
    make it hang and go on. All of them return when the effect is there, or raise ClusterError.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sluice-apiserver-"))
        self._token = secrets.token_hex(16)
        self._port, self._etcd_port, self._peer_port = _free_ports(3)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: HTTPSConnection | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://{LOOPBACK}:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig file that needs no other file."""
        return self._folder / "kubeconfig"

    @property
    def log(self) -> Path:
        """What the API server wrote."""
        return self._folder / "kube-apiserver.log"

    def __enter__(self) -> Self:
        try:
            self._write_identities()
            self._start_etcd()
            self.start()
            self._write_kubeconfig()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the API server (again) and wait until it is ready."""
        if self._server is None:
            self._server = self._spawn("kube-apiserver", self._server_command())
            self._wait(lambda: self.request("GET", "/readyz").status == 200, self._server, "kube-apiserver")

    def stop(self) -> None:
        """End the API server; what it stored stays."""
        self._disconnect()
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)  # a stopped process does not act on SIGTERM
            _end(self._server)
            self._server = None

    def pause(self) -> None:
        """Let the API server hang: connections stay open and nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused API server go on."""
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End both processes and remove their files."""
        self.stop()
        if self._etcd is not None:
            _end(self._etcd)
            self._etcd = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def request(self, method: str, path: str, body: Any = None, *, content: str = JSON, accept: str = JSON) -> Answer:
        """One request as the administrator. Raises OSError or HTTPException when there is no answer.

        `body` is sent as JSON, `content` is its media type (patches and server-side apply have their own), `accept`
        what is wanted in return (tables have their own).
        """
        if self._connection is None:
            context = ssl.create_default_context(cafile=str(self._folder / "apiserver.crt"))
            self._connection = HTTPSConnection(LOOPBACK, self._port, timeout=30, context=context)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content, "Accept": accept}
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, HTTPException):
            self._disconnect()
            raise
        is_json = "json" in (response.getheader("Content-Type") or "")
        return Answer(response.status, json.loads(text) if is_json else {"text": text.decode()})

    def kubectl(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl to its end; the caller looks at the return code."""
        return commands.run(
            [built(KUBERNETES, "kubectl"), "--kubeconfig", str(self.kubeconfig), *args],
            check=False,
            stdin=stdin,
            seconds=60,
            env=commands.environment(KUBECACHEDIR=str(self._folder / "kubectl")),
            error=ClusterError,
        )

    def stored(self, prefix: str) -> Mapping[str, bytes]:
        """What etcd holds under /registry/<prefix>, by key: the truth about what a request changed."""
        key = f"/registry/{prefix}".encode()
        end = key[:-1] + bytes([key[-1] + 1])
        connection = HTTPConnection(LOOPBACK, self._etcd_port, timeout=30)
        query = {"key": b64encode(key).decode(), "range_end": b64encode(end).decode()}
        connection.request("POST", "/v3/kv/range", json.dumps(query))
        found = json.loads(connection.getresponse().read()).get("kvs", [])
        connection.close()
        return {b64decode(pair["key"]).decode(): b64decode(pair["value"]) for pair in found}

    def _write_identities(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        (self._folder / "tokens.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        (self._folder / "users.csv").write_text(f'{self._token},admin,admin,"system:masters"\n')

    def _start_etcd(self) -> None:
        client, peer = f"http://{LOOPBACK}:{self._etcd_port}", f"http://{LOOPBACK}:{self._peer_port}"
        command = [
            built(ETCD, "etcd"), "--data-dir", str(self._folder / "etcd"), "--log-level", "error",
            "--unsafe-no-fsync", "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        ]  # fmt: skip
        self._etcd = self._spawn("etcd", command)
        self._wait(self._etcd_answers, self._etcd, "etcd")

    def _etcd_answers(self) -> bool:
        connection = HTTPConnection(LOOPBACK, self._etcd_port, timeout=2)
        connection.request("GET", "/health")
        answer = connection.getresponse().status
        connection.close()
        return answer == 200

    def _server_command(self) -> list[str]:
        tokens = self._folder / "tokens.key"
        return [
            built(KUBERNETES, "kube-apiserver"),
            f"--etcd-servers=http://{LOOPBACK}:{self._etcd_port}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self._port}",
            f"--cert-dir={self._folder}",
            f"--token-auth-file={self._folder / 'users.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            f"--service-account-issuer={self.url}",
            f"--service-account-key-file={tokens}",
            f"--service-account-signing-key-file={tokens}",
            # Nothing makes the accounts that this plugin waits for: there is no controller manager.
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
        ]

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder
            )

    def _wait(self, answers: Callable[[], bool], process: subprocess.Popen[bytes], name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if answers():
                    return
            except (OSError, HTTPException):
                pass  # it does not listen yet, or has not written its certificate
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise ClusterError(
                    f"{name} did not become ready (exit status {process.returncode})",
                    "what it wrote last is above",
                    output=tail,
                )
            time.sleep(POLL)

    def _write_kubeconfig(self) -> None:
        authority = b64encode((self._folder / "apiserver.crt").read_bytes()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "api", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "api", "context": {"cluster": "api", "user": "admin"}}],
            "current-context": "api",
        }
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(document))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            raise ClusterError("the API server is stopped", "start it first")
        return self._server

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different: they are reserved together before any is let go."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
