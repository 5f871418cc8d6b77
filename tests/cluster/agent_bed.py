"""An agent in this process, a real API server, and a kernel that only remembers what it was told."""

import asyncio
import json
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http.client import HTTPConnection
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from sluice_api.names import API_VERSION, EGRESS_IPS, EGRESS_NODES, GROUP, POLICIES, POOLS, VERSION
from sluice_node.agent.agent import Agent, Settings
from sluice_node.agent.kube_client import KubeClient
from sluice_node.agent.kube_config import from_kubeconfig
from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.flows import Flow
from sluice_node.core.frames import Echo
from sluice_node.core.links import Links
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.report import Report
from testbed.apiserver import ApiServer

ROOT = Path(__file__).parents[2]
NODE, NODE_ADDRESS = "n1", "192.0.2.11"
NAMESPACE = "sluice-system"
SLUICE = f"/apis/{GROUP}/{VERSION}"
MERGE = "application/merge-patch+json"


class FakeKernel:
    """Takes everything, unless told to refuse."""

    def __init__(self) -> None:
        self.applied: list[DesiredNode] = []
        self.refusal: str | None = None
        self.intact = True
        self.removals = 0
        self.told: Callable[[DesiredNode], None] = lambda desired: None
        """Called with what is programmed, as something outside may change by it."""

    @property
    def holds(self) -> DesiredNode:
        return self.applied[-1]

    def apply(self, desired: DesiredNode, /, *, anew: bool = False) -> Report:
        if self.refusal is not None:
            raise KernelError(self.refusal)
        self.applied.append(desired)
        self.intact = True
        self.told(desired)
        return Report()

    def check(self) -> bool:
        return self.intact

    def counters(self) -> Mapping[str, int]:
        return {"leak": 3}

    def opened_by(self, source: Address) -> list[Flow]:
        return []

    def egress_ips(self) -> frozenset[Address]:
        return frozenset()

    def remove(self) -> None:
        self.removals += 1


def no_link(interface: str) -> Any:
    """There is no link to ask on."""
    raise KernelError(f"interface {interface} is not there")


class FakeProbes:
    """Every probe to one of `answering` comes back at once."""

    def __init__(self, answering: set[str]) -> None:
        self._answering = answering
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._echoes: list[Echo] = []

    def fileno(self) -> int:
        return self._near.fileno()

    def send(self, *, gateway: str, sequence: int) -> bool:
        if gateway in self._answering:
            self._echoes.append(Echo(gateway, sequence, 0))
            self._far.send(b"x")
        return True

    def received(self) -> list[Echo]:
        with suppress(BlockingIOError):
            self._near.recv(4096)
        echoes, self._echoes = self._echoes, []
        return echoes

    def close(self) -> None:
        self._near.close()
        self._far.close()


class Bed:
    """The API server with what an agent needs, and short ways to change and to look."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        self.api = api
        self.kernel = FakeKernel()
        self.announced: list[Mapping[Address, str]] = []
        self.answering: set[str] = set()
        self.socket = folder / "agent.sock"
        self.agent: Agent | None = None

    def prepare(self) -> None:
        """Node and namespaces."""
        self.make("/api/v1/namespaces", {"kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.make(
            "/api/v1/nodes",
            {"kind": "Node", "metadata": {"name": NODE}, "spec": {"podCIDRs": ["10.1.0.0/24"]}},
        )
        self.status(f"/api/v1/nodes/{NODE}", {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]})

    def make(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object."""
        answer = self.api.request("POST", path, body)
        assert answer.status in (201, 409), answer.body
        return answer.body

    def status(self, path: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Set fields of an object's status."""
        answer = self.api.request("PATCH", f"{path}/status", {"status": status}, content=MERGE)
        assert answer.status == 200, answer.body
        return answer.body

    def pool(self, name: str = "partners") -> None:
        body = {"apiVersion": API_VERSION, "kind": "EgressPool", "metadata": {"name": name}}
        self.make(f"{SLUICE}/egresspools", body | {"spec": {"addresses": ["198.51.100.0/24"]}})
        self.status(f"{SLUICE}/egresspools/{name}", {"proxyPort": 13128})

    def policy(self, name: str, *, number: int, address: str) -> int:
        """A policy with everything assigned; returns its revision."""
        body = {"apiVersion": API_VERSION, "kind": "EgressPolicy", "metadata": {"name": name}}
        spec = {"pool": "partners", "podSelector": {"matchLabels": {"app": name}}}
        made = self.make(f"{SLUICE}/namespaces/default/egresspolicies", body | {"spec": spec})
        claim = {"apiVersion": API_VERSION, "kind": "EgressIP", "metadata": {"name": address}}
        owner = {"namespace": "default", "name": name, "uid": made["metadata"]["uid"]}
        self.make(f"{SLUICE}/egressips", claim | {"spec": {"address": address, "pool": "partners", "policy": owner}})
        self.slices(address, {"1024-2047": NODE})
        revision = int(made["metadata"]["resourceVersion"])
        self.status(
            f"{SLUICE}/namespaces/default/egresspolicies/{name}",
            {"id": number, "addresses": [address], "revision": revision},
        )
        return revision

    def slices(self, address: str, owners: Mapping[str, str]) -> None:
        entries = [{"ports": ports, "node": node} for ports, node in owners.items()]
        self.status(f"{SLUICE}/egressips/{address}", {"slices": entries})

    def pod(self, name: str, address: str, *, namespace: str = "default", labels: Mapping[str, str]) -> None:
        """A running, ready pod of the node."""
        spec = {"nodeName": NODE, "containers": [{"name": "c", "image": "none"}]}
        self.make(
            f"/api/v1/namespaces/{namespace}/pods",
            {"kind": "Pod", "metadata": {"name": name, "labels": dict(labels)}, "spec": spec},
        )
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}
        self.status(f"/api/v1/namespaces/{namespace}/pods/{name}", status)

    def gateway(self, name: str, address: str, mac: str) -> None:
        """Another node that says it is a gateway of the pool."""
        body = {"apiVersion": API_VERSION, "kind": "EgressNode", "metadata": {"name": name}, "spec": {}}
        self.make(f"{SLUICE}/egressnodes", body)
        tunnel = {"address": address, "port": 4797, "mac": mac}
        self.status(
            f"{SLUICE}/egressnodes/{name}", {"addresses": [address], "tunnel": tunnel, "gatewayFor": ["partners"]}
        )

    def delete(self, path: str) -> None:
        answer = self.api.request("DELETE", path, {"kind": "DeleteOptions", "gracePeriodSeconds": 0})
        assert answer.status in (200, 404), answer.body

    def clear(self) -> None:
        """Delete every object of Sluice, and every pod."""
        kinds = [f"{SLUICE}/{plural}" for plural in (POLICIES, EGRESS_IPS, POOLS, EGRESS_NODES)]
        for collection in (*kinds, "/api/v1/pods"):
            root, plural = collection.rsplit("/", 1)
            for item in self._listed(collection):
                namespace = item["metadata"].get("namespace")
                where = f"{root}/namespaces/{namespace}/{plural}" if namespace else collection
                self.delete(f"{where}/{item['metadata']['name']}")

    def _listed(self, collection: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 20
        while (answer := self.api.request("GET", collection)).status != 200:
            # An API server that has just come back does not serve every kind at once.
            assert time.monotonic() < deadline, answer.body
            time.sleep(0.1)
        return list(answer.body["items"])

    def reported(self) -> dict[str, Any]:
        """The status of this node's EgressNode, empty when there is none."""
        answer = self.api.request("GET", f"{SLUICE}/egressnodes/{NODE}")
        return dict(answer.body.get("status", {})) if answer.status == 200 else {}

    def condition(self) -> tuple[str, str]:
        """Status and reason of the Programmed condition."""
        entry = (self.reported().get("conditions") or [{}])[0]
        return str(entry.get("status")), str(entry.get("reason"))

    def delete_behind_its_back(self, key: str) -> None:
        """Delete from etcd what /registry/<key> holds: a change that no watch will ever tell."""
        connection = HTTPConnection("127.0.0.1", self.api._etcd_port, timeout=10)
        body = json.dumps({"key": b64encode(f"/registry/{key}".encode()).decode()})
        connection.request("POST", "/v3/kv/deleterange", body)
        assert json.loads(connection.getresponse().read()).get("deleted") == "1"
        connection.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """The agent, from start to stop."""
        settings = Settings(
            node=NODE,
            namespace=NAMESPACE,
            never_redirected=frozenset(),
            socket=self.socket,
            metrics_host="127.0.0.1",
            metrics_port=0,
        )
        links = Links((("eth0", ip_interface(f"{NODE_ADDRESS}/24")),), {4: "eth0"})
        client = KubeClient(from_kubeconfig(self.api.kubeconfig))
        self.agent = Agent(
            settings,
            client=client,
            kernel=self.kernel,
            open_probes=lambda _: FakeProbes(self.answering),
            links=lambda: links,
            announce=self.announced.append,
            open_link=no_link,
        )
        task = asyncio.create_task(self.agent.run())
        try:
            yield self.agent
            if task.done():
                task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            client.close()


async def until(holds: Callable[[], bool], what: str, *, seconds: float = 15.0) -> float:
    """Wait until something holds; returns how long it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while not await asyncio.to_thread(holds):
        assert loop.time() - start < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)
    return loop.time() - start


POD = ip_address("10.1.0.5")
