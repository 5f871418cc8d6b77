"""The local backend: `up`, `down` and the faults, made of the plan, namespaces and cgroups.

Invariants: `down` goes by what is there (cgroups, namespaces, one link, one folder, all found by the cluster's name),
never by what was written down; so it ends a cluster in any half state. `up` begins with it.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from testbed import binaries
from testbed.cluster import Address, ClusterError, ClusterOptions
from testbed.local import config, disk, dns, pki
from testbed.local.api import Api
from testbed.local.host import LocalHost, LocalNode
from testbed.local.images import pause_program, system_images
from testbed.local.limits import check_inotify
from testbed.local.network import NAMESPACES, Network, free_link, remove_all
from testbed.local.plan import API_PORT, CONTROL_PLANE, OUTSIDE, Plan, checked
from testbed.local.process import Cgroup, alive, kill, run, spawn, wait_until
from testbed.local.state import State, exclusive
from testbed.prerequisites import ensure_local

NODE_ROOT = Path(__file__).with_name("node-root.sh")
READY_SECONDS = 150


@dataclass(slots=True)
class LocalCluster:
    """One cluster on this machine. `say` is told what happens during the long operations."""

    options: ClusterOptions
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        checked(self.options)

    # -- where things are

    @property
    def state(self) -> State:
        """The cluster's folder."""
        return State(self.options.name)

    @property
    def plan(self) -> Plan:
        """What the running cluster was started with. Raises ClusterError when there is none."""
        plan = self.state.load()
        if plan is None:
            raise ClusterError(f"there is no cluster {self.options.name!r}", "start it with `up`")
        return plan

    @property
    def kubeconfig(self) -> Path:
        """Administrator's kubeconfig."""
        return self.state.kubeconfig

    @property
    def logs(self) -> Path:
        """Folder of the logs, one folder a host."""
        return self.state.logs

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return self.plan.nodes

    def host(self, name: str) -> LocalHost:
        """Any host of the cluster."""
        plan = self.plan
        return (LocalNode if name in plan.nodes else LocalHost)(plan, self.state, plan.host(name).name)

    def node(self, name: str) -> LocalNode:
        """A node. Raises ClusterError when that is none."""
        self.plan.node_index(name)
        return LocalNode(self.plan, self.state, name)

    # -- life

    def up(self, images: Sequence[Path] = ()) -> None:
        """Start it, with these images on its nodes. Interrupted or failed, it is taken down again; the logs of a
        failure stay for reading."""
        ensure_local(say=self.say)
        binaries.ensure(say=self.say)
        with exclusive(self.options.name):
            self._remove()
            check_inotify(nodes=self.options.nodes)
            started = time.monotonic()
            try:
                self._start(started, images)
            except BaseException as failure:
                self._remove(keep_logs=isinstance(failure, ClusterError))
                raise

    def down(self) -> None:
        """Remove every trace."""
        with exclusive(self.options.name):
            self._remove()

    def _start(self, started: float, images: Sequence[Path]) -> None:
        def step(what: str) -> None:
            self.say(f"{what} ({time.monotonic() - started:.1f} s)")

        with exclusive("all"):
            plan = Plan(self.options, free_link())
            self.state.save(plan)
            Network(plan).create()
        for host in plan.hosts:
            Cgroup(f"{plan.cgroup}/{host.name}").create()
        pki.write(self.state.folder / config.PKI, plan)
        self._write_kubeconfigs(plan)
        step("network and certificates")
        self._launch("etcd", CONTROL_PLANE)
        self._launch("kube-apiserver", CONTROL_PLANE)
        archives = system_images()
        with ThreadPoolExecutor() as pool:
            prepared = [pool.submit(self._prepare_node, node, archives) for node in plan.nodes]
            self._wait_for_api()
            step("API server")
            for component in ("kube-controller-manager", "kube-scheduler"):
                self._launch(component, CONTROL_PLANE)
            self._apply([config.node_object(plan, node) for node in plan.nodes])
            for future in prepared:
                future.result()
        for node in plan.nodes:
            for component in ("kubelet", "kube-proxy"):
                self._launch(component, node)
        # while the components wait for each other, the processor has time for this
        with ThreadPoolExecutor() as pool:
            loaded = [pool.submit(self._import_all, node, images) for node in plan.nodes]
            self._apply(dns.manifests(plan))
            self._wait_for_nodes(plan.nodes)
            step(f"{len(plan.nodes)} nodes Ready")
            self._wait_for_dns()
            step("cluster DNS")
            for future in loaded:
                future.result()
        if images:
            step("images on the nodes")

    def _remove(self, *, keep_logs: bool = False) -> None:
        name = self.options.name
        plan = Plan(self.options)
        cgroup = Cgroup(plan.cgroup)
        if cgroup.exists():
            for host in cgroup.children():
                host.freeze(frozen=False)
            cgroup.kill()
            cgroup.remove()
        remove_all(name, plan.link_device)
        disk.wait_released(self.state.folder)
        self.state.remove(keep_logs=keep_logs)

    # -- parts of `up`

    def _write_kubeconfigs(self, plan: Plan) -> None:
        folder = self.state.folder / config.PKI
        inside = f"https://{_literal(plan.api_address)}:{API_PORT}"
        for component in ("kube-controller-manager", "kube-scheduler"):
            (self.state.folder / f"{component}.kubeconfig").write_text(pki.kubeconfig(folder, component, inside))
        outside = f"https://{plan.link_addresses[1].ip}:{API_PORT}"
        self.state.kubeconfig.touch(mode=0o600)
        self.state.kubeconfig.write_text(pki.kubeconfig(folder, "admin", outside))
        for node in plan.nodes:
            etc = self.state.node(node) / "etc"
            kubernetes = etc / "kubernetes"
            kubernetes.mkdir(parents=True)
            (etc / "cni" / "net.d").mkdir(parents=True)
            for suffix in ("crt", "key"):
                shutil.copy(folder / f"kubelet-{node}.{suffix}", kubernetes / f"kubelet.{suffix}")
            shutil.copy(folder / "ca.crt", kubernetes)
            for name, subject in (("kubelet", f"kubelet-{node}"), ("kube-proxy", "kube-proxy")):
                (kubernetes / f"{name}.kubeconfig").write_text(pki.kubeconfig(folder, subject, inside))
            (kubernetes / "kubelet.yaml").write_text(config.kubelet(plan, node))
            (kubernetes / "kube-proxy.yaml").write_text(config.kube_proxy(plan))
            (kubernetes / "containerd.toml").write_text(config.containerd())
            (etc / "cni" / "net.d" / "10-pods.conflist").write_text(config.cni(plan, node))
            servers = plan.addresses_of(OUTSIDE)
            (etc / "resolv.conf").write_text("".join(f"nameserver {a}\n" for a in servers))
            (etc / "hosts").write_text(config.hosts_file(plan))
            (etc / "hostname").write_text(f"{node}\n")

    def _prepare_node(self, node: str, archives: Iterable[Path]) -> None:
        self._power_on(node)
        self._import_all(node, archives)

    def _power_on(self, node: str) -> None:
        """PID 1 and containerd."""
        host = self.node(node)
        host.cgroup.create()
        disk.make(self.state.node(node))
        folders = [str(binaries.folder(g)) for g in (binaries.KUBERNETES, binaries.CONTAINERD)]
        root = ["sh", str(NODE_ROOT), str(self.state.node(node)), node, *folders, str(pause_program())]
        # nsenter and not `ip netns exec`, which covers /sys and with it the cgroups
        network = f"--net={NAMESPACES / self.plan.netns(node)}"
        unshare = ["nsenter", network, "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", *root]
        spawn(unshare, cgroup=host.cgroup, log=host.log("init"))
        wait_until(lambda: host.init() is not None, seconds=20, what=f"PID 1 of {node}", log=host.log("init"))
        self._launch("containerd", node)

    def _import_all(self, node: str, archives: Iterable[Path]) -> None:
        for archive in archives:
            self._import(node, archive)

    def _import(self, node: str, archive: Path) -> None:
        host = self.node(node)
        command = host.command(["ctr", "--namespace=k8s.io", "images", "import", "-"])
        with archive.open("rb") as content:
            run(
                command,
                stdin=content,
                shown=f"importing {archive.name} on {node}",
                remedy=f"see {host.log('containerd')}",
            )

    def _api(self) -> Api:
        return Api(str(self.plan.link_addresses[1].ip), self.state.folder / config.PKI)

    def _wait_for_api(self) -> None:
        api = self._api()

        def ready() -> bool:
            self._require("kube-apiserver", CONTROL_PLANE)
            return api.ready()

        log = self.state.log(CONTROL_PLANE, "kube-apiserver")
        wait_until(ready, seconds=READY_SECONDS, what="the API server", log=log)

    def _wait_for_nodes(self, nodes: Iterable[str], *, after: float = 0) -> None:
        """Ready, by a heartbeat later than the Unix time `after`: what a dead kubelet said may still stand."""
        wanted, api = set(nodes), self._api()

        def ready() -> bool:
            for node in wanted:
                self._require("kubelet", node)
            return wanted <= api.ready_nodes(after=after)

        what = f"{', '.join(sorted(wanted))} to be Ready"
        wait_until(ready, seconds=READY_SECONDS, what=what, log=self.state.logs)

    def _wait_for_dns(self) -> None:
        self.kubectl(
            "--namespace=kube-system", "rollout", "status", "deployment/coredns", f"--timeout={READY_SECONDS}s"
        )

    def _apply(self, objects: list[dict[str, object]]) -> None:
        content = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--filename=-", input=content)

    # -- use

    def kubectl(self, *args: str, check: bool = True, input: str | None = None) -> str:  # noqa: A002
        """Run kubectl as administrator; its standard output."""
        program = binaries.built(binaries.KUBERNETES, "kubectl")
        return run([program, f"--kubeconfig={self.kubeconfig}", *args], check=check, stdin=input).stdout

    def load_image(self, archive: Path) -> None:
        """Import an OCI archive on every node that is on."""
        on = [node for node in self.nodes if self.node(node).init()]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: self._import(node, archive), on))

    def commands(self, host: str) -> dict[str, list[str]]:
        """Components of a host and their commands, in the order they start."""
        plan = self.plan
        if host == CONTROL_PLANE:
            return config.control_plane_commands(plan, str(self.state.folder))
        return config.node_commands(plan, host) if host in plan.nodes else {}

    def status(self) -> Mapping[str, Mapping[str, str]]:
        """State of each component of each host, from the processes themselves."""
        result: dict[str, dict[str, str]] = {}
        for plan in self.plan.hosts:
            host = self.host(plan.name)
            if isinstance(host, LocalNode) and host.init() is None:
                result[host.name] = {"node": "off"}
                continue
            state = "paused" if host.cgroup.frozen() else "running"
            result[host.name] = {c: state if host.component(c) else "stopped" for c in self.commands(host.name)}
        return result

    # -- faults

    def power_off(self, node: str) -> None:
        """Off at the plug: link down, every process gone, network namespace gone."""
        host, plan = self.node(node), self.plan
        network = Network(plan)
        network.unplug(plan.host(node))
        host.cgroup.kill()
        host.cgroup.remove()
        network.remove_host(plan.host(node))
        disk.wait_released(self.state.node(node))

    def boot(self, node: str) -> None:
        """Power on again; waits until the node is Ready."""
        host, plan = self.node(node), self.plan
        if host.init() is not None:
            raise ClusterError(f"node {node} is on", "`power-off` it first")
        network = Network(plan)
        network.remove_host(plan.host(node))
        network.add_host(plan.host(node))
        booted = time.time()
        self._power_on(node)
        self.start("kubelet", node)
        self.start("kube-proxy", node)
        self._wait_for_nodes([node], after=booted)

    def pause(self, node: str) -> None:
        """Freeze every process of the node; its kernel goes on forwarding."""
        self._running(node).cgroup.freeze(frozen=True)

    def resume(self, node: str) -> None:
        """Undo `pause`."""
        self._running(node).cgroup.freeze(frozen=False)

    def partition(self, a: str, b: str) -> None:
        """Drop every frame between two hosts, both ways."""
        Network(self.plan).partition(a, b)

    def heal(self, a: str, b: str) -> None:
        """Undo `partition`."""
        Network(self.plan).heal(a, b)

    def stop(self, component: str, host: str) -> None:
        """Kill a component and leave it stopped."""
        self._command(component, host)
        where = self.host(host)

        def gone() -> bool:
            left = where.component(component)
            for process in left:
                kill(process.pid)
            return not left

        wait_until(gone, seconds=20, what=f"{component} on {host} to end")

    def start(self, component: str, host: str) -> None:
        """Start a component; waits until it serves where others depend on it at once."""
        if component == "kubelet" and self._api().ready():
            # a Node that was deleted meanwhile comes back with its pod ranges
            self._apply([config.node_object(self.plan, host)])
        self._launch(component, host)

    def _launch(self, component: str, host: str) -> None:
        command, where = self._command(component, host), self.host(host)
        if where.component(component):
            raise ClusterError(f"{component} on {host} runs already", "`stop` it first, or `restart` it")
        pid, log = where.spawn(component, command), where.log(component)

        def runs() -> bool:
            if not alive(pid):
                self._require(component, host)
            return bool(where.component(component))

        wait_until(runs, seconds=20, what=f"{component} on {host}", log=log)
        if component != "containerd":
            return

        def serves() -> bool:
            self._require(component, host)
            version = ["ctr", f"--address={config.CONTAINERD_SOCKET}", "version"]
            return where.run(version, check=False).returncode == 0

        wait_until(serves, seconds=READY_SECONDS, what=f"containerd on {host}", log=log)

    def _require(self, component: str, host: str) -> None:
        """Raises ClusterError when a component that is waited for has ended: waiting on is of no use."""
        where = self.host(host)
        if not where.component(component):
            raise ClusterError(f"{component} on {host} ended by itself", f"see {where.log(component)}")

    def restart(self, component: str, host: str) -> None:
        """Kill a component and start it again."""
        self.stop(component, host)
        self.start(component, host)

    def _command(self, component: str, host: str) -> list[str]:
        commands = self.commands(host)
        if component not in commands:
            raise ClusterError(f"no component {component!r} on {host}", f"there are: {', '.join(commands) or 'none'}")
        return commands[component]

    def _running(self, node: str) -> LocalNode:
        host = self.node(node)
        if host.init() is None:
            raise ClusterError(f"node {node} is off", "`boot` it first")
        return host


def _literal(address: Address) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if address.version == 6 else str(address)
