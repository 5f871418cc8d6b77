"""The kind backend: nodes are containers of a Docker engine, and so are the hosts outside.

The address plan is the local cluster's: the Docker network is the LAN, the router of the nodes is the host `outside`,
`far` is behind it. Faults are what an engine can do: a power cut is `docker kill` (the node's network namespace goes
with it), a pause is `docker pause`. It cannot drop frames between two containers, and says so.
Invariant: what it removes is found by the cluster's own name: its kind cluster, its two outside containers, its two
networks.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from testbed import binaries
from testbed.cluster import Address, ClusterError, ClusterOptions
from testbed.local import dns
from testbed.local.api import is_ready
from testbed.local.plan import CONTROL_PLANE, FAR, FAR_MTU, LAN, OUTSIDE, TRANSFER, Network, Plan, checked
from testbed.local.process import run, wait_until
from testbed.local.state import State

CODE = Path(__file__).resolve().parent.parent
HOST_IMAGE = "sluice-testbed-host:dev"
HOST_DOCKERFILE = """FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes --no-install-recommends iproute2 iputils-ping nftables python3 \\
 && rm -rf /var/lib/apt/lists/*
"""
MANIFESTS = "/etc/kubernetes/manifests"
STATIC = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SERVICES = ("kubelet", "containerd")
READY_SECONDS = 120


def kind_config(plan: Plan) -> str:
    """kind's Cluster document (kind.x-k8s.io/v1alpha4): a control plane without pods, and the nodes."""
    networking = {
        "ipFamily": plan.options.ip_family,
        "kubeProxyMode": plan.options.proxy_mode,
        "podSubnet": ",".join(str(net) for net in plan.pods),
        "serviceSubnet": ",".join(str(net) for net in plan.services),
    }
    nodes = [{"role": "control-plane"}, *({"role": "worker"} for _ in plan.nodes)]
    kind = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "networking": networking, "nodes": nodes}
    return json.dumps(kind)


def node_names(options: ClusterOptions) -> tuple[str, ...]:
    """kind's names of the workers: NAME-worker, NAME-worker2, ..."""
    return tuple(f"{options.name}-worker{i if i > 1 else ''}" for i in range(1, options.nodes + 1))


def network_command(network: str, ranges: Sequence[Network], *, mtu: int) -> list[str]:
    """`docker network create` with the plan's ranges; the engine itself takes the last address of each."""
    argv = ["docker", "network", "create", "--driver=bridge", f"--opt=com.docker.network.driver.mtu={mtu}"]
    for net in ranges:
        argv += [f"--subnet={net}", f"--gateway={net[254]}"]
        argv += ["--ipv6"] if net.version == 6 else []
    return [*argv, network]


def host_command(plan: Plan, host: str, *, network: str, logs: Path) -> list[str]:
    """`docker run` of a host outside, on its first network; it sees this code and its own log folder."""
    argv = ["docker", "run", "--detach", "--init", "--privileged", "--sysctl=net.ipv6.conf.all.disable_ipv6=0"]
    argv += [f"--name={plan.options.name}-{host}", f"--hostname={host}", f"--network={network}"]
    argv += [f"--ip{'6' if a.version == 6 else ''}={a}" for a in plan.host(host).lan]
    argv += [f"--volume={CODE}:{CODE}:ro", f"--volume={logs}:{logs}"]
    return [*argv, HOST_IMAGE, "sleep", "infinity"]


@dataclass(frozen=True, slots=True)
class Container:
    """A host that is a container."""

    name: str
    container: str
    addresses: tuple[Address, ...]
    logs: Path

    def command(self, argv: Sequence[str]) -> list[str]:
        """`docker exec`; the caller's own Python stands for the container's."""
        return ["docker", "exec", "--interactive", self.container, *_python(argv)]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess's own word
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end inside. Raises ClusterError when it fails and `check` is set."""
        return run(self.command(argv), check=check, stdin=input, shown=argv)

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
        """Start a program that stays; its pid in the container."""
        settings = [f"{key}={value}" for key, value in (env or {}).items()]
        script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
        words = [str(self.logs / self.name / f"{name}.log"), "env", *settings, *_python(argv)]
        return int(self.run(["sh", "-c", script, "sh", *words]).stdout)


@dataclass(frozen=True, slots=True)
class KindCluster:
    """One cluster of a Docker engine. `say` is told what happens during the long operations."""

    options: ClusterOptions
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        checked(self.options)
        if self.options.cni != "ptp":
            raise ClusterError(
                "kind brings its own network plugin (pods on point-to-point links)", "leave --cni at ptp"
            )

    @property
    def plan(self) -> Plan:
        """Addresses and ranges."""
        return State(self.options.name).load() or Plan(self.options)

    @property
    def kubeconfig(self) -> Path:
        """Administrator's kubeconfig."""
        return State(self.options.name).kubeconfig

    @property
    def logs(self) -> Path:
        """Folder of the logs of the hosts outside; components log inside their containers."""
        return State(self.options.name).logs

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the workers."""
        return node_names(self.plan.options)

    @property
    def networks(self) -> dict[str, str]:
        """Docker's networks by the bridges of the plan."""
        return {"lan0": f"sluice-{self.options.name}", "far0": f"sluice-{self.options.name}-far"}

    # -- life

    def up(self, images: Sequence[Path] = ()) -> None:
        """Start it, with these images on its nodes; interrupted or failed, it is removed again."""
        binaries.ensure(binaries.FOR_KIND, say=self.say)
        self.down()
        try:
            self._start(Plan(self.options))
            for archive in images:
                self.load_image(archive)
        except BaseException:
            self.down()
            raise

    def _start(self, plan: Plan) -> None:
        state = State(self.options.name)
        state.save(plan)
        for host in plan.outside_hosts:
            (self.logs / host).mkdir(parents=True, exist_ok=True)
        run(["docker", "build", "--quiet", f"--tag={HOST_IMAGE}", "-"], stdin=HOST_DOCKERFILE)
        for network, ranges, mtu in ((self.networks["lan0"], LAN, 1500), (self.networks["far0"], TRANSFER, FAR_MTU)):
            run(network_command(network, [net for net in ranges if net.version in plan.versions], mtu=mtu))
        self._start_outside(plan)
        self.say("starting kind")
        self._kind(
            "create", "cluster", "--config=-", f"--kubeconfig={self.kubeconfig}", f"--wait={READY_SECONDS}s",
            stdin=kind_config(plan),
        )  # fmt: skip
        for node in self.nodes:
            self._route(node)
        corefile = {"data": {"Corefile": dns.corefile(plan)}}
        self.kubectl("--namespace=kube-system", "patch", "configmap", "coredns", f"--patch={json.dumps(corefile)}")
        self.kubectl("--namespace=kube-system", "rollout", "restart", "deployment/coredns")
        timeout = f"--timeout={READY_SECONDS}s"
        self.kubectl("--namespace=kube-system", "rollout", "status", "deployment/coredns", timeout)

    def _start_outside(self, plan: Plan) -> None:
        for name in plan.outside_hosts:
            first = plan.host(name).ports[0]
            run(host_command(plan, name, network=self.networks[first.bridge], logs=self.logs))
            for port in plan.host(name).ports[1:]:
                fixed = [f"--ip{'6' if i.version == 6 else ''}={i.ip}" for i in port.addresses]
                run(["docker", "network", "connect", *fixed, self.networks[port.bridge], f"{plan.options.name}-{name}"])
            host = self.host(name)
            # the engine's own way out: nothing of a cluster leaves the machine
            for family in ("-4", "-6"):
                host.run(["ip", family, "route", "del", "default"], check=False)
            for address in plan.host(name).loopback:
                host.run(["ip", "address", "add", str(address), "dev", "lo"])
            for route in plan.host(name).routes:
                via = ["via", str(route.via)] if route.via else []
                host.run(["ip", "route", "replace", str(route.to), *via, "dev", route.device])
            if plan.host(name).forwards:
                host.run(["sysctl", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])

    def down(self) -> None:
        """Remove the containers, the networks and the folder."""
        # where kind was never built, it never made anything
        if not binaries.missing((binaries.KIND,)):
            self._kind("delete", "cluster", f"--kubeconfig={self.kubeconfig}")
        for host in (OUTSIDE, FAR):
            run(["docker", "rm", "--force", "--volumes", f"{self.options.name}-{host}"], check=False)
        for network in self.networks.values():
            run(["docker", "network", "rm", network], check=False)
        State(self.options.name).remove()

    # -- use

    def status(self) -> Mapping[str, Mapping[str, str]]:
        """State of each container."""
        hosts = (OUTSIDE, FAR, CONTROL_PLANE, *self.nodes)
        return {name: {"container": self._inspect(name)["State"]["Status"]} for name in hosts}

    def host(self, name: str) -> Container:
        """A node, the control plane (`cp`) or an outside host."""
        container = self._container(name)
        if name in self.plan.outside_hosts:
            return Container(name, container, self.plan.addresses_of(name), self.logs)
        found = self._inspect(name)["NetworkSettings"]["Networks"][self.networks["lan0"]]
        texts = (found["IPAddress"], found["GlobalIPv6Address"])
        return Container(name, container, tuple(ip_address(text) for text in texts if text), self.logs)

    def kubectl(self, *args: str, check: bool = True, input: str | None = None) -> str:  # noqa: A002
        """Run kubectl as administrator; its standard output."""
        program = binaries.built(binaries.KUBECTL, "kubectl")
        return run([program, f"--kubeconfig={self.kubeconfig}", *args], check=check, stdin=input).stdout

    def load_image(self, archive: Path) -> None:
        """Import an OCI archive on every node."""
        self._kind("load", "image-archive", str(archive))

    # -- faults

    def power_off(self, node: str) -> None:
        """`docker kill`: every process and the network namespace are gone."""
        run(["docker", "kill", self._node(node)])

    def boot(self, node: str) -> None:
        """Start it at the addresses it had, and wait until it is Ready."""
        container = self._node(node)
        fixed = [f"--ip{'6' if a.version == 6 else ''}={a}" for a in self._last_addresses(node)]
        network = self.networks["lan0"]
        run(["docker", "network", "disconnect", "--force", network, container])
        run(["docker", "network", "connect", *fixed, network, container])
        booted = time.time()
        run(["docker", "start", container])
        self._route(node)

        def ready() -> bool:
            text = self.kubectl("get", "node", node, "--output=json", check=False)
            return bool(text) and is_ready(json.loads(text), after=booted)

        wait_until(ready, seconds=READY_SECONDS, what=f"{node} to be Ready")

    def pause(self, node: str) -> None:
        """`docker pause`."""
        run(["docker", "pause", self._node(node)])

    def resume(self, node: str) -> None:
        """`docker unpause`."""
        run(["docker", "unpause", self._node(node)])

    def partition(self, a: str, b: str) -> None:
        """Not possible."""
        raise ClusterError(
            f"kind cannot part {a} from {b}: an engine does not drop frames between two containers",
            "use a local cluster (root on Linux, SLUICE_TESTBED_BACKEND=local)",
        )

    def heal(self, a: str, b: str) -> None:
        """Nothing can be parted, so nothing has to be healed."""

    def stop(self, component: str, host: str) -> None:
        """Stop a component: a service of a node, or a static pod of the control plane."""
        where = self.host(host)
        if component in SERVICES:
            where.run(["systemctl", "stop", component])
            return
        self._static(component, host)
        where.run(["mv", f"{MANIFESTS}/{component}.yaml", "/etc/kubernetes/"])
        listed = ["crictl", "ps", "--quiet", f"--name=^{component}$"]
        wait_until(lambda: not where.run(listed).stdout.strip(), seconds=60, what=f"{component} to end")

    def start(self, component: str, host: str) -> None:
        """Undo `stop`."""
        where = self.host(host)
        if component in SERVICES:
            where.run(["systemctl", "start", component])
            return
        self._static(component, host)
        where.run(["mv", f"/etc/kubernetes/{component}.yaml", MANIFESTS])

    def restart(self, component: str, host: str) -> None:
        """Stop and start it."""
        self.stop(component, host)
        self.start(component, host)

    # -- parts

    def _static(self, component: str, host: str) -> None:
        if component not in STATIC or host != CONTROL_PLANE:
            raise ClusterError(
                f"kind cannot stop {component} on {host}", f"there are {', '.join((*SERVICES, *STATIC))}"
            )

    def _node(self, node: str) -> str:
        if node not in self.nodes:
            raise ClusterError(f"no node {node!r}", f"there are {', '.join(self.nodes)}")
        return node

    def _container(self, host: str) -> str:
        if host in (OUTSIDE, FAR):
            return f"{self.options.name}-{host}"
        return f"{self.options.name}-control-plane" if host == CONTROL_PLANE else self._node(host)

    def _inspect(self, host: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(["docker", "inspect", self._container(host)]).stdout)[0]
        return found

    def _last_addresses(self, node: str) -> tuple[Address, ...]:
        """Of a node that may be off: those that its Node object names."""
        path = '{.status.addresses[?(@.type=="InternalIP")].address}'
        text = self.kubectl("get", "node", node, f"--output=jsonpath={path}")
        return tuple(map(ip_address, text.split()))

    def _route(self, node: str) -> None:
        """Everything that leaves the cluster goes by the host `outside`, nothing by the engine's uplink."""
        for gateway in self.plan.host(OUTSIDE).lan:
            family = "-6" if gateway.version == 6 else "-4"
            self.host(node).run(["ip", family, "route", "replace", "default", "via", str(gateway)])

    def _kind(self, *args: str, stdin: str | None = None) -> None:
        program = binaries.built(binaries.KIND, "kind")
        settings = {"KIND_EXPERIMENTAL_PROVIDER": "docker", "KIND_EXPERIMENTAL_DOCKER_NETWORK": self.networks["lan0"]}
        command = ["env", *(f"{k}={v}" for k, v in settings.items()), program, *args, f"--name={self.options.name}"]
        run(command, stdin=stdin, shown=["kind", *args])


def _python(argv: Sequence[str]) -> list[str]:
    return ["python3" if word == sys.executable else word for word in argv]
