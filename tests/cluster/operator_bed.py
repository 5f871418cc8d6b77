"""An API server with Sluice's CRDs, operator processes against it, and agents that the test plays."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sluice_api.occupied import digest
from testbed.apiserver import ApiServer
from testbed.binaries import HELM, program_path

Document = dict[str, Any]
ROOT = Path(__file__).parents[2]
NAMESPACE = "sluice-system"
JSON = "application/json"
GROUP = "/apis/sluice.dev/v1alpha1"


class OperatorProcess:
    """`sluice-operator run`, as another replica would run it."""

    def __init__(self, bed: "OperatorBed", identity: str) -> None:
        self.identity = identity
        self.log = bed.server.kubeconfig.parent / f"operator-{identity}.log"
        argv = [sys.executable, "-m", "sluice_operator", "run", "--gateway-image", "sluice/proxy:test"]
        argv += ["--identity", identity, "--namespace", NAMESPACE, "--metrics-port", "0"]
        with self.log.open("ab") as log:
            environment = bed.environment("sluice-operator")
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment, start_new_session=True)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(20)

    def resident_mebibytes(self) -> int:
        """Memory of the process."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) // 1024


class OperatorBed:
    """Requests by the administrator, and the parts of agents that the operator sees."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._operators: list[OperatorProcess] = []

    def prepare(self) -> None:
        """Install the CRDs and the namespace."""
        self.kubectl("apply", "-f", str(ROOT / "crds"))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        self.kubectl("create", "namespace", NAMESPACE)
        for template, account in (("operator/rbac.yaml", "sluice-operator"), ("uninstall.yaml", "sluice-uninstall")):
            self._permit(template, account)

    def _permit(self, template: str, account: str) -> None:
        """Give a service account what the chart gives it, no more, and make a kubeconfig of its token."""
        self._apply(template)
        token = self.kubectl("-n", NAMESPACE, "create", "token", account).strip()
        kubeconfig = json.loads(self.server.kubeconfig.read_text())
        kubeconfig["users"][0]["user"] = {"token": token}
        self._kubeconfig(account).write_text(json.dumps(kubeconfig))

    def permit_users(self) -> None:
        """Make the roles that the chart gives to users."""
        self._apply("user-roles.yaml")

    def _apply(self, template: str) -> None:
        """Apply what the chart makes of a template, but for Jobs."""
        helm = str(program_path(HELM, "helm"))
        command = [helm, "template", "sluice", "charts/sluice", "-n", NAMESPACE, "-s", f"templates/{template}"]
        command += ["--set", "image.registry=registry.example"]
        text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        documents = [document for document in yaml.safe_load_all(text) if document and document["kind"] != "Job"]
        done = self.server.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
        assert done.returncode == 0, done.stderr

    def _kubeconfig(self, account: str) -> Path:
        return self.server.kubeconfig.parent / f"kubeconfig-{account}"

    def environment(self, account: str) -> dict[str, str]:
        """The environment of a process that is this service account."""
        return {**os.environ, "KUBECONFIG": str(self._kubeconfig(account))}

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl as the administrator; its output."""
        done = self.server.kubectl(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def operator(self, identity: str) -> OperatorProcess:
        """Start a replica."""
        started = OperatorProcess(self, identity)
        self._operators.append(started)
        return started

    def clean(self) -> None:
        """End every replica and remove what a test made; pytest shows what they logged when the test fails."""
        for operator in self._operators:
            operator.kill()
            print(f"--- replica {operator.identity}\n{operator.log.read_text()}")
            operator.log.unlink()
        self._operators.clear()
        for name in self.items("egresspools"):
            self.merge(f"{GROUP}/egresspools/{name}", {"metadata": {"finalizers": None}})
        ours = "egresspools,egresspolicies,egressips,egressnodes"
        self.kubectl("delete", ours, "--all", "--all-namespaces", "--wait=false")
        self.kubectl("-n", NAMESPACE, "delete", "deploy,svc,pdb,lease,cm", "--all", "--wait=false")
        self.kubectl("delete", "node", "--all", "--wait=false")

    def call(self, method: str, path: str, body: Document | None = None, *, content: str = JSON) -> Document:
        """One request; an error is an AssertionError."""
        answer = self.server.request(method, path, body, content=content)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.message}"
        return answer.body

    def create(self, kind: str, plural: str, name: str, spec: Document, *, namespace: str = "") -> Document:
        """Create one of our objects."""
        where = f"{GROUP}/namespaces/{namespace}/{plural}" if namespace else f"{GROUP}/{plural}"
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        body = {"apiVersion": "sluice.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
        return self.call("POST", where, body)

    def pool(self, name: str, addresses: list[str], **spec: Any) -> Document:
        """Create a pool."""
        return self.create("EgressPool", "egresspools", name, {"addresses": addresses, **spec})

    def policy(self, namespace: str, name: str, pool: str, **spec: Any) -> Document:
        """Create a policy."""
        body = {"pool": pool, "podSelector": {"matchLabels": {}}, **spec}
        return self.create("EgressPolicy", "egresspolicies", name, body, namespace=namespace)

    def node(self, name: str) -> Document:
        """What an agent makes when it starts."""
        return self.create("EgressNode", "egressnodes", name, {})

    def items(self, plural: str) -> dict[str, Document]:
        """All our objects of a kind."""
        found = self.call("GET", f"{GROUP}/{plural}")["items"]
        return {
            "/".join(filter(None, (item["metadata"].get("namespace"), item["metadata"]["name"]))): item
            for item in found
        }

    def merge(self, path: str, patch: Document) -> Document:
        """A merge patch."""
        return self.call("PATCH", path, patch, content="application/merge-patch+json")

    def report(
        self,
        node: str,
        *,
        gateway_for: tuple[str, ...] = (),
        pods: dict[str, int] | None = None,
        occupied: dict[str, str] | None = None,
    ) -> None:
        """What an agent says after it has programmed everything there is."""
        policies, pools = self.items("egresspolicies"), self.items("egresspools")
        status = {
            "surveyed": digest((name, pool["metadata"]["generation"]) for name, pool in pools.items()),
            "occupied": [{"address": address, "by": by} for address, by in (occupied or {}).items()],
            "revision": max((p.get("status", {}).get("revision", 0) for p in policies.values()), default=0),
            "gatewayFor": list(gateway_for),
            "policies": [
                {
                    "namespace": name.partition("/")[0],
                    "name": name.partition("/")[2],
                    "generation": policies[name]["metadata"]["generation"],
                    "pods": count,
                }
                for name, count in (pods or {}).items()
                if name in policies
            ],
        }
        self.merge(f"{GROUP}/egressnodes/{node}/status", {"status": status})

    def lease(self) -> Document:
        """The spec of the leader's lease; empty when there is none."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/sluice-operator"
        spec: Document = self.server.request("GET", path).body.get("spec") or {}
        return spec


def condition(document: Document, kind: str) -> tuple[str, str]:
    """(status, reason) of a condition."""
    found = next(entry for entry in document["status"]["conditions"] if entry["type"] == kind)
    return found["status"], found["reason"]


def eventually(check: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """The first truthy answer of `check`, which may raise AssertionError or KeyError until then."""
    end = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            answer = check()
            if answer:
                return answer
            last = None
        except (AssertionError, KeyError, StopIteration) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s; last: {last!r}")


@contextmanager
def operator_bed() -> Iterator[OperatorBed]:
    """A bed that is gone when the block ends."""
    with ApiServer() as server:
        bed = OperatorBed(server)
        bed.prepare()
        yield bed
