"""Against a real API server: nobody's address becomes an egress IP, and tenants see their room and not each other."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.cluster.operator_bed import OperatorBed, condition, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
CORE = "/api/v1"
KUBECONFIG = "apiVersion: v1\nkind: Config\nclusters:\n- {name: '', cluster: {server: 'https://198.51.100.60:6443'}}\n"


def _service(bed: OperatorBed, name: str, *, external: list[str], ingress: list[str]) -> None:
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}], "externalIPs": external}
    metadata = {"name": name, "namespace": "default"}
    bed.call("POST", f"{CORE}/namespaces/default/services", {"metadata": metadata, "spec": spec})
    if ingress:
        status = {"loadBalancer": {"ingress": [{"ip": address} for address in ingress]}}
        bed.merge(f"{CORE}/namespaces/default/services/{name}/status", {"status": status})


def _owners(bed: OperatorBed) -> None:
    """Whatever may own an address, at 198.51.100.10, .20, .30 and so on."""
    bed.call("POST", f"{CORE}/nodes", {"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["198.51.100.16/29"]}})
    addresses = [{"type": "InternalIP", "address": "198.51.100.10"}, {"type": "Hostname", "address": "n1"}]
    # ready, so that it is waited for before the first address of a pool is given
    conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]
    bed.merge(f"{CORE}/nodes/n1/status", {"status": {"addresses": addresses, "conditions": conditions}})
    _service(bed, "front", external=[], ingress=["198.51.100.30"])
    _service(bed, "tenant", external=["198.51.100.40"], ingress=[])
    cidr = {"metadata": {"name": "extra"}, "spec": {"cidrs": ["198.51.100.48/29"]}}
    bed.call("POST", "/apis/networking.k8s.io/v1/servicecidrs", cidr)
    info = {"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": KUBECONFIG}}
    bed.call("POST", f"{CORE}/namespaces/kube-public/configmaps", info)


REFUSED = {
    "node": ("198.51.100.10", "node n1"),
    "pods": ("198.51.100.20", "pods of node n1: spec.podCIDRs"),
    "balancer": ("198.51.100.30", "a Service: status.loadBalancer"),
    "services": ("198.51.100.50", "ServiceCIDR extra"),
    "join": ("198.51.100.60", "the API server: ConfigMap kube-public/cluster-info"),
    "seen": ("198.51.100.70", "gateway of a route, seen by node n1"),
}


def test_each_kind_of_owner_refuses_the_pool_and_is_named(bed: OperatorBed) -> None:
    _owners(bed)
    operator = bed.operator("a")
    bed.node("n1")
    for name, (address, _) in REFUSED.items():
        bed.pool(name, [f"{address}-{address[:-1]}1"])
        bed.policy("default", name, name)
    bed.pool("tenant", ["198.51.100.40-198.51.100.41"])
    bed.policy("default", "tenant", "tenant")
    bed.report("n1", occupied={"198.51.100.70": "gateway of a route"})
    for name, (address, owner) in REFUSED.items():
        eventually(lambda name=name: condition(bed.items("egresspools")[name], "Accepted") == ("False", "AddressTaken"))
        text = str(bed.items("egresspools")[name]["status"]["conditions"])
        assert address in text, text
        assert owner in text, text
    eventually(lambda: "198.51.100.41" in bed.items("egressips"))
    eventually(lambda: condition(bed.items("egresspools")["tenant"], "Accepted") == ("False", "AddressTaken"))
    assert list(bed.items("egressips")) == ["198.51.100.41"]
    told = "Service default/front: status.loadBalancer"
    eventually(lambda: told in bed.kubectl("get", "events", "-A", "-o", "yaml"))
    print(bed.kubectl("get", "egresspools"))
    log = operator.log.read_text()
    assert "Traceback" not in log, log
    assert ": 403 " not in log, log  # not the milliseconds of a line


def test_a_pool_is_looked_at_again_when_a_node_or_a_service_changes(bed: OperatorBed) -> None:
    bed.operator("a")
    bed.pool("p", ["198.51.100.80-198.51.100.81"])
    bed.policy("default", "one", "p")
    eventually(lambda: bed.items("egresspolicies")["default/one"]["status"].get("addresses") == ["198.51.100.80"])
    _service(bed, "late", external=[], ingress=["198.51.100.80"])
    eventually(lambda: condition(bed.items("egresspools")["p"], "Accepted") == ("False", "AddressTaken"), seconds=5)
    eventually(
        lambda: condition(bed.items("egresspolicies")["default/one"], "Degraded") == ("True", "AddressTaken"),
        seconds=5,
    )
    assert bed.items("egresspolicies")["default/one"]["status"]["addresses"] == ["198.51.100.80"]
    bed.kubectl("delete", "service", "late")
    eventually(lambda: condition(bed.items("egresspools")["p"], "Accepted") == ("True", "Accepted"), seconds=5)


def test_the_first_address_comes_as_soon_as_the_nodes_have_looked(bed: OperatorBed) -> None:
    bed.operator("a")
    eventually(lambda: bed.lease()["holderIdentity"] == "a")
    bed.node("n2")
    bed.report("n2")
    bed.pool("p", ["198.51.100.90-198.51.100.91"])
    bed.policy("default", "one", "p")
    bed.report("n2", occupied={"198.51.100.90": "neighbour 02:00:00:00:00:07 on eth0"})
    started = time.monotonic()
    found = eventually(lambda: bed.items("egresspolicies")["default/one"]["status"].get("addresses"))
    print(f"assigned {1000 * (time.monotonic() - started):.0f} ms after the last node had looked")
    assert found == ["198.51.100.91"]


@pytest.fixture(name="tenant")
def _tenant(bed: OperatorBed) -> Callable[..., tuple[int, Any]]:
    """Requests of a tenant that has the built-in role view, and what the chart adds to it, in namespace mine."""
    bed.permit_users()
    for namespace in ("mine", "theirs"):
        bed.kubectl("create", "namespace", namespace)
    bed.kubectl("-n", "mine", "create", "serviceaccount", "tenant")
    for role in ("view", "sluice-policies-view", "sluice-policies-edit"):
        bed.kubectl(
            "-n", "mine", "create", "rolebinding", role, f"--clusterrole={role}", "--serviceaccount=mine:tenant"
        )
    token = bed.kubectl("-n", "mine", "create", "token", "tenant").strip()

    def ask(*arguments: str) -> tuple[int, Any]:
        done = bed.server.kubectl("--token", token, *arguments, "-o", "json")
        return done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr

    return ask


def test_a_tenant_sees_its_pools_and_their_room_and_nothing_of_others(
    bed: OperatorBed, tenant: Callable[..., tuple[int, Any]]
) -> None:
    bed.operator("a")
    bed.pool("shared", ["198.51.100.96/29"])
    bed.pool("theirs-only", ["198.51.100.112/29"], namespaces={"matchLabels": {"team": "y"}})
    bed.policy("theirs", "secret", "shared")
    bed.policy("mine", "ours", "shared")
    bed.policy("mine", "wrong", "nowhere")
    eventually(lambda: len(bed.items("egressips")) == 2)
    eventually(lambda: condition(bed.items("egresspolicies")["mine/wrong"], "Accepted")[1] == "PoolNotFound")
    eventually(lambda: bed.items("egresspools")["shared"]["status"]["display"]["free"] == "4 IPv4")

    status, pools = tenant("get", "egresspools")
    assert status == 0, pools
    shown = {pool["metadata"]["name"]: pool["status"]["display"] for pool in pools["items"]}
    assert (shown["shared"]["free"], shown["shared"]["namespaces"]) == ("4 IPv4", "all")
    assert shown["theirs-only"]["namespaces"] == "team=y"
    assert "secret" not in json.dumps([pool["status"] for pool in pools["items"]])

    status, policies = tenant("-n", "mine", "get", "egresspolicies")
    assert status == 0, policies
    text = json.dumps(policies)
    assert "namespace mine may use shared" in text
    for stranger in ("secret", "theirs"):
        assert stranger not in text
    for forbidden in (
        ("-n", "theirs", "get", "egresspolicies"),
        ("get", "egresspolicies", "-A"),
        ("get", "egressips"),
        ("get", "egressnodes"),
    ):
        status, complaint = tenant(*forbidden)
        assert status != 0
        assert "forbidden" in str(complaint).lower()
