"""Sluice on a cluster, as a user sets it up: images, helm, YAML; and pods that send to the hosts outside.

What the demo and the system tests share. Every wait is for a condition, has a deadline, and says what it waited for.
Must not reach into Sluice: everything goes through helm and the Kubernetes API, and what a packet looks like is asked
of the hosts outside.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from testbed import binaries, commands
from testbed.cluster import Cluster, ClusterError, ClusterOptions, open_cluster
from testbed.dns.zone import Zone
from testbed.interruption import uninterrupted
from testbed.outside import OutsideHost
from testbed.prepare import prepare

NAMESPACE = "sluice-system"
RELEASE = "sluice"
CHART = Path(__file__).resolve().parent.parent.parent / "charts" / "sluice"
IMAGE_REGISTRY = "docker.io"
"""What the images are called on the nodes, where they are put by hand: nothing is pulled."""
IMAGE_TAG = "dev"
TRAFFIC_IMAGE = f"sluice/traffic:{IMAGE_TAG}"
INSTALL_SECONDS = 300

T = TypeVar("T")
Document = Mapping[str, Any]


def wait_for(what: str, condition: Callable[[], T | None], seconds: float, *, every: float = 0.1) -> T:
    """The first true answer of `condition`. Raises ClusterError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)


def pool(name: str, *addresses: str, **spec: Any) -> dict[str, Any]:
    """An EgressPool."""
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "EgressPool",
        "metadata": {"name": name},
        "spec": {"addresses": list(addresses), **spec},
    }


def policy(namespace: str, name: str, pool_name: str, labels: Mapping[str, str], **spec: Any) -> dict[str, Any]:
    """An EgressPolicy that selects pods by labels."""
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "EgressPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"pool": pool_name, "podSelector": {"matchLabels": dict(labels)}, **spec},
    }


def traffic_pod(namespace: str, name: str, *, node: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """A pod that waits to be told what to send; it runs without any privilege, as a workload would."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "traffic",
                    "image": TRAFFIC_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                }
            ],
        },
    }


@dataclass(frozen=True, slots=True)
class Pod:
    """A running pod."""

    namespace: str
    name: str
    node: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class System:
    """A cluster, and the hosts outside that tell what they see of it."""

    cluster: Cluster
    outside: OutsideHost
    far: OutsideHost

    def kubectl(self, *args: str, check: bool = True, stdin: str | None = None) -> str:
        """Run kubectl; its standard output."""
        return self.cluster.kubectl(*args, check=check, input=stdin)

    def apply(self, *documents: Document) -> None:
        """kubectl apply."""
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(d) for d in documents))

    def delete(self, kind: str, name: str, namespace: str | None = None, *, wait: bool = True) -> None:
        """Delete an object; one that is not there is no error."""
        where = ["-n", namespace] if namespace else []
        self.kubectl("delete", kind, name, *where, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """An object, {} when there is none."""
        where = ["-n", namespace] if namespace else []
        text = self.kubectl("get", kind, name, *where, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found

    def objects(self, kind: str, *selection: str) -> list[dict[str, Any]]:
        """Objects of a kind."""
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, *selection, "-o", "json"))["items"]
        return items

    def helm(self, *args: str, check: bool = True) -> str:
        """Run helm against the cluster; its standard output. Raises ClusterError with its message."""
        return commands.run(
            [binaries.built(binaries.HELM, "helm"), *args],
            check=check,
            shown=["helm", *args],
            env=commands.environment(KUBECONFIG=str(self.cluster.kubeconfig)),
            remedy=f"see the output above and the logs in {self.cluster.logs}",
            error=ClusterError,
        ).stdout

    def install(self, *values: str) -> None:
        """helm upgrade --install, and wait until operator and agents are ready. `values`: helm's --set arguments."""
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            }
        )
        named = (f"image.registry={IMAGE_REGISTRY}", f"image.tag={IMAGE_TAG}")
        sets = [word for value in (*named, *values) for word in ("--set", value)]
        self.helm(
            "upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE, *sets,
            "--wait", "--timeout", f"{INSTALL_SECONDS}s",
        )  # fmt: skip

    def uninstall(self) -> str:
        """helm uninstall, with the clean-up of the nodes; helm's words."""
        return self.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", f"{INSTALL_SECONDS}s")

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Make a namespace, or change its labels."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}})

    def start_pods(self, *documents: Document, seconds: float = 60) -> list[Pod]:
        """Create pods and wait until they run."""
        self.apply(*documents)
        return [self.pod(d["metadata"]["namespace"], d["metadata"]["name"], seconds=seconds) for d in documents]

    def pod(self, namespace: str, name: str, *, seconds: float = 60) -> Pod:
        """A pod once it is ready."""

        def ready() -> Pod | None:
            found = self.get("pod", name, namespace)
            status = found.get("status", {})
            conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
            if conditions.get("Ready") != "True":
                return None
            return Pod(namespace, name, found["spec"]["nodeName"], tuple(ip["ip"] for ip in status["podIPs"]))

        return wait_for(f"pod {namespace}/{name} ready", ready, seconds)

    def exec(self, target: Pod, *argv: str, check: bool = True) -> str:
        """Run a program in a pod; its standard output."""
        return self.kubectl("exec", "-n", target.namespace, target.name, "--", *argv, check=check)

    def wait_condition(
        self,
        kind: str,
        name: str,
        condition: str,
        *,
        namespace: str | None = None,
        status: str = "True",
        seconds: float,
    ) -> dict[str, Any]:
        """Wait until a condition of the object's current generation has that status; the condition."""

        def there() -> dict[str, Any] | None:
            found = self.get(kind, name, namespace)
            for c in found.get("status", {}).get("conditions", ()):
                current = c.get("observedGeneration", 0) == found["metadata"]["generation"]
                if c["type"] == condition and c["status"] == status and current:
                    return dict(c)
            return None

        try:
            return wait_for(f"{kind} {name}: {condition}={status}", there, seconds)
        except ClusterError as error:
            said = self.get(kind, name, namespace).get("status", {}).get("conditions", ())
            words = "; ".join(f"{c['type']}={c['status']} {c['reason']} {c.get('message', '')}" for c in said)
            raise ClusterError(f"{error}, but {words or 'nothing'}") from error

    def addresses_of(self, namespace: str, name: str) -> Sequence[str]:
        """The egress IPs of a policy."""
        addresses: list[str] = self.get("egresspolicy", name, namespace).get("status", {}).get("addresses", [])
        return addresses


Say = Callable[[str], None]


@contextmanager
def running(options: ClusterOptions, *, say: Say, keep: bool = False) -> Iterator[System]:
    """A new cluster with Sluice's images on its nodes, but Sluice not installed; removed at the end unless `keep`.

    Builds whatever is missing, with a line for each step. Raises ClusterError for what cannot be done here.
    """
    archives = prepare()
    cluster = open_cluster(options)
    started = time.monotonic()
    say(f"starting a cluster of {options.nodes} nodes: kube-proxy {options.proxy_mode}, {options.cni} CNI")
    try:
        cluster.up(tuple(archives.values()))
        say(f"the cluster is ready after {time.monotonic() - started:.0f} s")
        system = System(cluster, _outside(cluster, "outside"), _outside(cluster, "far"))
        system.outside.start(_zone(system))
        system.far.start()
        yield system
    finally:
        if not keep:
            say("removing the cluster")
            with uninterrupted():
                cluster.down()


def _outside(cluster: Cluster, name: str) -> OutsideHost:
    return OutsideHost(cluster.host(name), cluster.logs / name / "seen")


def _zone(system: System) -> Zone:
    hosts = {"api.partner.example": system.outside, "far.partner.example": system.far}
    return Zone("partner.example", {name: tuple(host.host.addresses) for name, host in hosts.items()})
