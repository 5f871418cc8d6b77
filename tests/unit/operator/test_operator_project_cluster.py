"""What is kept of the cluster's own objects, and that nothing else of them wakes anybody."""

from ipaddress import ip_address, ip_network
from typing import Any

from sluice_operator.core import project_cluster
from sluice_operator.core.snapshot import ClusterNode, Settings, Taint
from sluice_operator.shell.view import View


def _node(version: int = 1, *, heartbeat: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "n1", "uid": "u1", "resourceVersion": str(version), "labels": {"zone": "a"}},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"], **spec},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.11"},
                {"type": "InternalIP", "address": "2001:db8::11"},
                {"type": "ExternalIP", "address": "203.0.113.11"},
                {"type": "Hostname", "address": "n1"},
            ],
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat},
            ],
            "images": [{"names": ["example.com/some/image"], "sizeBytes": 1}],
        },
    }


def test_a_node_is_its_addresses_pod_ranges_labels_taints_and_whether_it_takes_pods() -> None:
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    assert project_cluster.cluster_node(_node(unschedulable=True, taints=[taint])) == ClusterNode(
        name="n1",
        uid="u1",
        addresses=tuple(map(ip_address, ("192.0.2.11", "2001:db8::11", "203.0.113.11"))),
        pod_cidrs=(ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")),
        labels={"zone": "a"},
        taints=(Taint("dedicated", "db", "NoSchedule"),),
        unschedulable=True,
        ready=True,
    )


def test_a_node_that_says_nothing_yet_is_read_as_it_is() -> None:
    assert project_cluster.cluster_node({"metadata": {"name": "n1"}}) == ClusterNode("n1", "", ready=False)


def test_a_heartbeat_of_a_node_wakes_nobody_and_a_change_of_it_does() -> None:
    woken: list[str] = []
    view = View(Settings(namespace="sluice-system", gateway_image="image"), wake=woken.append)
    view.cluster_nodes.put(_node(1))
    woken.clear()
    view.cluster_nodes.put(_node(2, heartbeat="2026-01-01T00:05:00Z"))
    assert not woken
    view.cluster_nodes.put(_node(3, unschedulable=True))
    assert woken == ["cluster node n1"]
