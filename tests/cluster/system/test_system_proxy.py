"""Clients of the gateways' proxy: selected pods leave with their egress IP, the others are told why they do not."""

import json

import pytest
from tests.cluster.system.world import POOL, World

from testbed.system import NAMESPACE as SLUICE
from testbed.system import Pod

PROXY = f"http://{POOL}.{SLUICE}.svc:3128"
PORT = 8080


def through_proxy(world: World, pod: Pod, url: str, *extra: str) -> tuple[str, str]:
    """(HTTP status, body) of a GET through the proxy; of the CONNECT where that is what failed."""
    argv = ["curl", "-sgk", "-m", "10", "-x", PROXY, "-w", "\n%{http_code} %{http_connect}", *extra, url]
    output = world.system.exec(pod, *argv, check=False)
    body, _, codes = output.rpartition("\n")
    status, connect = codes.split()
    return (connect if status == "000" else status), body


@pytest.mark.cluster
@pytest.mark.parametrize("extra", [[], ["--proxytunnel"]], ids=["absolute-form", "CONNECT"])
def test_a_selected_pod_of_every_node_gets_the_egress_ip(world: World, extra: list[str]) -> None:
    egress, owners = world.egress(), world.slices()
    for pod in world.selected.values():
        for address in world.system.outside.host.addresses:
            host = f"[{address}]" if address.version == 6 else str(address)
            status, body = through_proxy(world, pod, f"http://{host}:{PORT}/whoami", *extra)
            assert status == "200", body
            seen = json.loads(body)
            assert seen["address"] in egress
            assert (seen["address"], seen["port"]) in owners


@pytest.mark.cluster
def test_names_are_resolved_by_the_proxy(world: World) -> None:
    pod = next(iter(world.selected.values()))
    status, body = through_proxy(world, pod, f"http://api.partner.example:{PORT}/whoami")
    assert status == "200", body
    assert json.loads(body)["address"] in world.egress()


@pytest.mark.cluster
def test_an_unselected_pod_is_refused_and_told_why(world: World) -> None:
    target = f"http://{world.system.outside.address(4)}:{PORT}/whoami"
    for pod in world.others.values():
        status, body = through_proxy(world, pod, target)
        assert status == "403"
        assert POOL in body
        assert "polic" in body
        status, _ = through_proxy(world, pod, target, "--proxytunnel")
        assert status == "403"


@pytest.mark.cluster
def test_no_destination_in_the_cluster_on_a_node_or_link_local_is_reached(world: World) -> None:
    system = world.system
    pod = next(iter(world.selected.values()))
    nodes = [str(a) for n in system.cluster.nodes for a in system.cluster.host(n).addresses]
    inside = [
        "kubernetes.default.svc.cluster.local:443",
        "10.96.0.1:443",
        "[fd00:10:96::1]:443",
        "127.0.0.1:3128",
        "127.1:80",
        "0x7f000001:80",
        "2130706433:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:10.96.0.1]:443",
        "[64:ff9b::a9fe:a9fe]:80",
        "localhost:10248",
        "0.0.0.0:80",
        "169.254.169.254:80",
        "[fd00:ec2::254]:80",
        "[fe80::1]:80",
        "240.0.0.1:80",
        *(f"[{a}]:10250" if ":" in a else f"{a}:10250" for a in nodes),
        *(f"[{a}]:8000" if ":" in a else f"{a}:8000" for a in world.others[pod.node].addresses),
    ]
    for target in inside:
        for extra in ([], ["--proxytunnel"]):
            status, body = through_proxy(world, pod, f"http://{target}/", *extra)
            assert status in ("400", "403"), (target, extra, status, body)


@pytest.mark.cluster
def test_gateway_pods_hold_no_credentials_and_no_capabilities(world: World) -> None:
    pods = world.system.objects("pods", "-n", SLUICE, "-l", f"sluice.dev/pool={POOL}")
    assert pods
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
