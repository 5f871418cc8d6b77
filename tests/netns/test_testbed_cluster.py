"""A local cluster keeps its promises: it comes up, each fault is what it says, and nothing of it stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.cluster import ClusterError, ClusterOptions
from testbed.local import config, disk
from testbed.local.backend import LocalCluster
from testbed.local.process import Cgroup

pytestmark = [
    pytest.mark.netns,
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
SHARED, CRASHED = "tc-shared", "tc-crash"
IMAGE = "docker.io/sluice/coredns:dev"  # the one image with a program that every cluster has
COREFILE = ".:1053 {\n  errors\n}\n"
"""Enough for it to run: what it does without a file needs plugins that are not built."""


@dataclass(frozen=True)
class Traces:
    """What a cluster could leave on the machine."""

    processes: tuple[str, ...]
    cgroups: tuple[str, ...]
    mounts: tuple[str, ...]
    namespaces: tuple[str, ...]
    links: tuple[str, ...]
    disks: tuple[str, ...]
    files: tuple[str, ...]


def traces(name: str) -> Traces:
    """Everything on the machine that belongs to the cluster `name`."""
    cluster = LocalCluster(ClusterOptions(name=name))
    folder = cluster.state.folder
    path = f"sluice-testbed/{name}"
    netns = Path("/run/netns")
    return Traces(
        processes=tuple(p.name for p in Cgroup(path).processes()),
        cgroups=tuple(str(p) for p in Path("/sys/fs/cgroup").glob(f"*/{path}")),
        mounts=tuple(
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(folder) in line or f"sluice.{name}." in line
        ),
        namespaces=tuple(p.name for p in netns.glob(f"sluice.{name}.*")),
        links=tuple(p.name for p in Path("/sys/class/net").glob(f"sl-{name}")),
        disks=tuple(disk.in_use(folder)),
        files=tuple(str(p) for p in folder.glob("*")),
    )


NOTHING = Traces((), (), (), (), (), (), ())


def eventually(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    cluster = LocalCluster(ClusterOptions(name=SHARED, nodes=2))
    cluster.up()
    try:
        yield cluster
    finally:
        cluster.down()


def reaches(cluster: LocalCluster, source: str, target: str) -> bool:
    address = str(cluster.host(target).addresses[0])
    return cluster.host(source).run(["ping", "-c1", "-W1", address], check=False).returncode == 0


def ready(cluster: LocalCluster, node: str) -> str:
    path = '{.status.conditions[?(@.type=="Ready")].status}'
    return cluster.kubectl("get", "node", node, f"--output=jsonpath={path}", check=False)


def daemon_set(name: str) -> str:
    container = {
        "name": "c",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [
            {"name": "corefile", "mountPath": "/etc/coredns"},
            {"name": "sysctls", "mountPath": "/host/net"},
            {"name": "run", "mountPath": "/run/sluice"},
        ],
    }
    volumes = [
        {"name": "corefile", "configMap": {"name": name}},
        {"name": "sysctls", "hostPath": {"path": "/proc/sys/net", "type": "Directory"}},
        {"name": "run", "hostPath": {"path": "/run/sluice", "type": "DirectoryOrCreate"}},
    ]
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
    labels = {"app": name}
    corefile = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"Corefile": COREFILE}}
    pods = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [corefile, pods]})


def test_pods_of_every_node_run_in_the_range_that_its_node_object_names(cluster: LocalCluster) -> None:
    cluster.kubectl("apply", "--filename=-", input=daemon_set("everywhere"))
    cluster.kubectl("rollout", "status", "daemonset/everywhere", "--timeout=60s")
    listed = json.loads(cluster.kubectl("get", "pods", "--selector=app=everywhere", "--output=json"))["items"]
    assert {p["spec"]["nodeName"] for p in listed} == set(cluster.nodes)
    for pod in listed:
        node = pod["spec"]["nodeName"]
        ranges = json.loads(cluster.kubectl("get", "node", node, "--output=json"))["spec"]["podCIDRs"]
        assert [str(net) for net in cluster.plan.pod_ranges(node)] == ranges
        prefixes = (f"10.244.{node[1:]}.", f"fd00:10:244:{node[1:]}:")
        assert [a["ip"].startswith(p) for a, p in zip(pod["status"]["podIPs"], prefixes, strict=True)] == [True, True]


def test_what_a_pod_writes_on_its_node_stays_off_the_machine(cluster: LocalCluster) -> None:
    assert cluster.host("n1").run(["test", "-d", "/run/sluice"], check=False).returncode == 0
    cluster.host("n1").run(["touch", "/etc/written-by-a-test", "/var/written-by-a-test"])
    assert not Path("/etc/written-by-a-test").exists()
    assert not Path("/var/written-by-a-test").exists()
    assert cluster.host("n1").run(["touch", "/usr/written-by-a-test"], check=False).returncode != 0


def test_services_are_resolved_by_the_cluster_dns(cluster: LocalCluster) -> None:
    query = """
import socket, sys
name = b"".join(bytes([len(p)]) + p for p in b"kubernetes.default.svc.cluster.local".split(b".")) + b"\\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(b"\\x12\\x34\\x01\\0\\0\\1\\0\\0\\0\\0\\0\\0" + name + b"\\0\\1\\0\\1", ("10.96.0.10", 53))
sys.stdout.write(socket.inet_ntoa(s.recv(512)[-4:]))
"""
    # the machine's own python, on a node: it reaches Services through kube-proxy like a pod does
    answer = cluster.host("n1").run(["/usr/bin/python3", "-c", query])
    assert answer.stdout == "10.96.0.1"


def test_logs_and_exec_reach_the_kubelet(cluster: LocalCluster) -> None:
    assert cluster.kubectl("logs", "--namespace=kube-system", "--selector=k8s-app=kube-dns", "--tail=5")
    pod = cluster.kubectl("get", "pods", "--selector=app=everywhere", "--output=name").split()[0]
    assert "CoreDNS-" in cluster.kubectl("exec", pod, "--", "/coredns", "-version")


def test_an_argument_reaches_a_program_in_a_node_as_it_is(cluster: LocalCluster) -> None:
    awkward = "a 'b' \"c\" $HOME `id` ; * \\"
    assert cluster.host("n1").run(["printf", "%s", awkward]).stdout == awkward


def test_outside_hosts_are_reached_and_the_far_one_only_by_small_packets(cluster: LocalCluster) -> None:
    assert reaches(cluster, "n1", "outside")
    assert reaches(cluster, "n1", "far")
    big = ["ping", "-c1", "-W1", "-M", "do", "-s", "1400", str(cluster.host("far").addresses[0])]
    answer = cluster.host("n2").run(big, check=False)
    assert "mtu = 1300" in answer.stdout + answer.stderr


def test_nothing_in_a_cluster_has_a_way_to_the_machine(cluster: LocalCluster) -> None:
    machine = str(cluster.plan.link_addresses[0].ip)
    for host in ("n1", "outside", "far"):
        assert cluster.host(host).run(["ping", "-c1", "-W1", machine], check=False).returncode != 0, host


def test_a_partition_parts_two_hosts_and_no_other_until_healed(cluster: LocalCluster) -> None:
    cluster.partition("n1", "n2")
    assert (reaches(cluster, "n1", "n2"), reaches(cluster, "n2", "n1")) == (False, False)
    assert (reaches(cluster, "n1", "outside"), reaches(cluster, "cp", "n1")) == (True, True)
    cluster.heal("n1", "n2")
    # the kernel asks for a neighbour that did not answer once a second
    eventually(lambda: reaches(cluster, "n1", "n2"), "the hosts reach each other again")


def test_a_partition_of_hosts_with_a_router_between_is_refused(cluster: LocalCluster) -> None:
    with pytest.raises(ClusterError, match="not on one link"):
        cluster.partition("n1", "far")


def test_a_paused_node_goes_silent_but_forwards_and_comes_back(cluster: LocalCluster) -> None:
    cluster.pause("n2")
    assert cluster.status()["n2"]["kubelet"] == "paused"
    assert reaches(cluster, "n1", "n2"), "its kernel goes on"
    eventually(lambda: ready(cluster, "n2") == "Unknown", "the silent node is noticed")
    cluster.resume("n2")
    eventually(lambda: ready(cluster, "n2") == "True", "the node comes back")


def test_components_restart_and_a_stopped_api_server_stays_away_until_started(cluster: LocalCluster) -> None:
    for component, host in (("etcd", "cp"), ("containerd", "n1"), ("kubelet", "n1"), ("kube-proxy", "n1")):
        before = {p.pid for p in cluster.host(host).component(component)}
        cluster.restart(component, host)
        after = {p.pid for p in cluster.host(host).component(component)}
        assert before
        assert after
        assert not before & after, component
    cluster.stop("kube-apiserver", "cp")
    assert cluster.status()["cp"]["kube-apiserver"] == "stopped"
    assert cluster.kubectl("get", "nodes", "--request-timeout=2s", check=False) == ""
    cluster.start("kube-apiserver", "cp")
    eventually(lambda: cluster.kubectl("get", "--raw=/readyz", check=False) == "ok", "the API server comes back")
    eventually(lambda: ready(cluster, "n1") == "True", "the node is Ready after its kubelet's restart")


def test_power_off_leaves_nothing_of_the_node_and_boot_starts_with_a_fresh_network(cluster: LocalCluster) -> None:
    cluster.host("n2").run(["nft", "add", "table", "inet", "left-by-a-test"])
    cluster.host("n2").run(["touch", "/var/lib/written-before"])
    cluster.host("n2").run(["ip", "route", "add", "192.0.2.128/25", "dev", "eth0", "table", "7777"])
    cluster.power_off("n2")
    assert cluster.status()["n2"] == {"node": "off"}
    assert cluster.host("n2").cgroup.processes() == []
    assert not Path("/run/netns", cluster.plan.netns("n2")).exists()
    assert not reaches(cluster, "n1", "n2")
    with pytest.raises(ClusterError, match="n2 is off"):
        cluster.host("n2").run(["true"])

    cluster.boot("n2")
    assert ready(cluster, "n2") == "True"
    cluster.host("n2").run(["test", "-e", "/var/lib/written-before"])
    assert "left-by-a-test" not in cluster.host("n2").run(["nft", "list", "tables"]).stdout
    assert cluster.host("n2").run(["ip", "route", "show", "table", "7777"], check=False).stdout == ""
    cluster.kubectl("rollout", "status", "daemonset/everywhere", "--timeout=60s")


def test_a_node_that_was_deleted_comes_back_with_its_pod_ranges(cluster: LocalCluster) -> None:
    cluster.kubectl("delete", "node", "n2")
    cluster.restart("kubelet", "n2")
    eventually(lambda: ready(cluster, "n2") == "True", "the node registers again")
    node = json.loads(cluster.kubectl("get", "node", "n2", "--output=json"))
    assert node["spec"]["podCIDRs"] == ["10.244.2.0/24", "fd00:10:244:2::/64"]


def test_down_leaves_nothing_and_is_harmless_when_repeated(cluster: LocalCluster) -> None:
    before = traces(SHARED)
    assert all((before.processes, before.cgroups, before.namespaces, before.links, before.disks, before.files))
    cluster.pause("n1")  # frozen processes cannot die: `down` must see to it
    cluster.down()
    assert traces(SHARED) == NOTHING
    cluster.down()
    assert traces(SHARED) == NOTHING


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_up_that_ends_in_the_middle_leaves_nothing_after_down(end: signal.Signals) -> None:
    argv = [sys.executable, "-m", "testbed", "up", "--name", CRASHED, "--nodes", "1"]
    hack = str(Path(__file__).resolve().parents[2] / "hack")
    environment = {**os.environ, "PYTHONPATH": hack, "SLUICE_TESTBED_BACKEND": "local"}
    cluster = LocalCluster(ClusterOptions(name=CRASHED, nodes=1))
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        try:
            eventually(lambda: cluster.state.load() is not None and bool(traces(CRASHED).processes), "it starts")
            eventually(lambda: "containerd" in traces(CRASHED).processes, "the node starts")
            up.send_signal(end)
            assert up.wait(60) != 0
            if end is signal.SIGKILL:
                assert traces(CRASHED) != NOTHING
                cluster.down()
            assert traces(CRASHED) == NOTHING
        finally:
            up.kill()
            cluster.down()


def test_a_component_that_ends_by_itself_is_named_with_its_log_which_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "containerd", lambda: "this is no configuration")
    cluster = LocalCluster(ClusterOptions(name=CRASHED, nodes=1))
    try:
        with pytest.raises(ClusterError, match=r"containerd on n1.*containerd\.log") as failure:
            cluster.up()
        log = Path(str(failure.value).rsplit(" ", 1)[1])
        assert "this is no configuration" in log.read_text() or "toml" in log.read_text()
        left = traces(CRASHED)
        assert (left.processes, left.cgroups, left.namespaces, left.links, left.disks) == ((), (), (), (), ())
    finally:
        cluster.down()
    assert traces(CRASHED) == NOTHING
