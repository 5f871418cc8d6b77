"""Everything that is none of Sluice's business works as without it."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from tests.cluster.system.world import LABELS, NAMESPACE, World, ask

from testbed import binaries
from testbed.system import Pod, wait_for

WEB = "web"


@pytest.fixture(scope="module")
def web(world: World) -> Iterator[Pod]:
    """A selected pod that serves HTTP, with readiness probes and a NodePort Service."""
    system = world.system
    node = system.cluster.nodes[1]
    system.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": WEB, "namespace": NAMESPACE, "labels": {**LABELS, "serves": WEB}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": WEB,
                        "image": "sluice/traffic:dev",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python3", "-m", "http.server", "8000", "--bind", "::", "--directory", "/usr/lib"],
                        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
                    }
                ],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": WEB, "namespace": NAMESPACE},
            "spec": {
                "type": "NodePort",
                "ipFamilyPolicy": "PreferDualStack",
                "selector": {"serves": WEB},
                "ports": [{"port": 80, "targetPort": 8000, "nodePort": 30080}],
            },
        },
    )
    yield system.pod(NAMESPACE, WEB)
    system.delete("service", WEB, NAMESPACE)
    system.delete("pod", WEB, NAMESPACE)


def fetch(world: World, pod: Pod, url: str) -> str:
    """HTTP status of a GET from a pod."""
    argv = ["curl", "-skg", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", url]
    return world.system.exec(pod, *argv, check=False)


@pytest.mark.cluster
def test_unselected_pods_leave_with_the_address_of_their_node(world: World) -> None:
    for node, pod in world.others.items():
        own = {str(a) for a in world.system.cluster.host(node).addresses}
        for answer in world.ask(pod, "tcp", port=443) + world.ask(pod, "udp", port=443):
            assert answer["ok"], answer
            assert answer["address"] in own


@pytest.mark.cluster
def test_pods_reach_pods_and_services_of_the_cluster(world: World, web: Pod) -> None:
    callers = [*world.selected.values(), *world.others.values()]
    for caller in callers:
        for address in web.addresses:
            host = f"[{address}]" if ":" in address else address
            assert fetch(world, caller, f"http://{host}:8000/") == "200", (caller, address)
        assert fetch(world, caller, f"http://{WEB}.{NAMESPACE}.svc/") == "200", caller


@pytest.mark.cluster
def test_replies_to_ingress_through_a_node_port_go_back_the_way_they_came(world: World, web: Pod) -> None:
    assert web.node
    for node in world.system.cluster.nodes:
        for address in world.system.cluster.host(node).addresses:
            host = f"[{address}]" if address.version == 6 else address
            url = f"http://{host}:30080/"
            argv = ["curl", "-sg", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", url]
            assert world.system.outside.host.run(argv, check=False).stdout == "200", url


@pytest.mark.cluster
def test_names_of_the_cluster_and_of_the_outside_resolve_in_selected_pods(world: World) -> None:
    pod = next(iter(world.selected.values()))
    for name in ("kubernetes.default.svc.cluster.local", "api.partner.example"):
        assert world.system.exec(pod, "getent", "ahosts", name).strip(), name


@pytest.mark.cluster
def test_selected_pods_reach_the_api_server(world: World) -> None:
    for pod in world.selected.values():
        assert fetch(world, pod, "https://kubernetes.default.svc/version") in ("200", "401", "403")


@pytest.mark.cluster
def test_kubelet_probes_reach_a_selected_pod(world: World, web: Pod) -> None:
    status = world.system.get("pod", web.name, NAMESPACE)["status"]
    assert status["containerStatuses"][0]["restartCount"] == 0
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"


@pytest.mark.cluster
def test_kubectl_exec_logs_and_port_forward_work_for_a_selected_pod(world: World, web: Pod) -> None:
    system = world.system
    assert system.exec(web, "echo", "hello").strip() == "hello"
    assert "GET /" in system.kubectl("logs", "-n", NAMESPACE, WEB)
    kubectl = str(binaries.program_path(binaries.KUBERNETES, "kubectl"))
    argv = [kubectl, f"--kubeconfig={system.cluster.kubeconfig}", "port-forward", "-n", NAMESPACE, WEB, ":8000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stdout is not None
            port = forwarding.stdout.readline().split("127.0.0.1:")[1].split(" ")[0]
            url = f"http://127.0.0.1:{port}/"
            curl = ["curl", "-s", "--noproxy", "*", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", url]
            answer = subprocess.run(curl, capture_output=True, text=True, check=False).stdout
        finally:
            forwarding.terminate()
    assert answer == "200"


@pytest.mark.cluster
def test_a_selected_pod_reaches_its_own_node_and_other_nodes(world: World) -> None:
    pod = next(iter(world.selected.values()))
    nodes = [f"--target={a}:1" for n in world.system.cluster.nodes for a in world.system.cluster.host(n).addresses[:1]]
    answers = wait_for("nodes answer pings", lambda: ask(world.system, pod, "ping", nodes), 10)
    assert [a["ok"] for a in answers] == [True] * len(nodes), json.dumps(answers)
