"""No address that is somebody's hurts the cluster, whatever is written into the API.

The operator refuses such addresses, so here it is put to sleep, and claims are written past it as an administrator
could: the agents are the last who can say no.
"""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest
from tests.cluster.system.world import POOL, World

from testbed.system import NAMESPACE as SLUICE
from testbed.system import pool, traffic_pod, wait_for

THIEVES = "thieves"
LAN_MACHINE = "198.18.0.77"
"""An address that the host outside also has: on the nodes' link, and in nobody's tables."""
MENDED = 30
OPERATOR = ("deployment/sluice-operator", "--namespace", SLUICE)


@pytest.fixture
def machine(world: World) -> Iterator[str]:
    """A machine on the link, which has been silent so far."""
    host = world.system.outside.host
    host.run(["ip", "address", "add", f"{LAN_MACHINE}/32", "dev", "eth0"])
    yield LAN_MACHINE
    host.run(["ip", "address", "del", f"{LAN_MACHINE}/32", "dev", "eth0"])


@pytest.mark.cluster
def test_gateways_find_a_machine_on_the_link_before_its_address_is_given(world: World, machine: str) -> None:
    system = world.system
    system.apply(pool("lan", "198.18.0.76-198.18.0.79", gateways={"replicas": 1, "proxy": {"enabled": False}}))
    try:

        def seen() -> list[str]:
            return [
                entry["by"]
                for node in system.objects("egressnodes")
                for entry in node.get("status", {}).get("occupied", ())
                if entry["address"] == machine
            ]

        (by, *_) = wait_for("a gateway hears who has the address", seen, 90)
        assert by.startswith("neighbour ")
        assert by.endswith(" on eth0")
        wait_for("the pool says so", lambda: machine in json.dumps(system.get("egresspool", "lan")["status"]), 15)
    finally:
        system.delete("egresspool", "lan")


def taken(world: World) -> dict[str, str]:
    """Addresses of everything that must not be taken, by whose they are."""
    system = world.system
    node = system.cluster.host(system.cluster.nodes[1])
    (api, *_) = system.objects(
        "endpointslices", "--namespace=default", "--selector=kubernetes.io/service-name=kubernetes"
    )
    (own,) = json.loads(node.run(["ip", "-j", "-4", "address", "show", "eth0"]).stdout)[0]["addr_info"]
    found = {
        "the API server's": api["endpoints"][0]["addresses"][0],
        "a Service's": system.get("service", "kubernetes", "default")["spec"]["clusterIP"],
        "the broadcast address": str(ip_interface(f"{own['local']}/{own['prefixlen']}").network.broadcast_address),
    }
    found |= {f"a node's, IPv{ip_address(str(a)).version}": str(a) for a in node.addresses}
    found |= {f"a pod's, IPv{ip_address(a).version}": a for a in world.others[system.cluster.nodes[2]].addresses}
    return found | {f"the gateway's, IPv{ip_address(a).version}": a for a in gateways(world)}


def gateways(world: World) -> list[str]:
    """The next hops of the nodes' default routes."""
    node = world.system.cluster.host(world.system.cluster.nodes[1])
    texts = (node.run(["ip", "-j", *family, "route", "show", "default"]).stdout for family in ((), ("-6",)))
    return [route["gateway"] for text in texts if text.strip() for route in json.loads(text)]


def claim(world: World, number: int, address: str) -> None:
    """A policy with that address, and the claim of it, as the operator would write them."""
    system, name = world.system, f"thief-{number}"
    system.apply(
        {
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "EgressPolicy",
            "metadata": {"name": name, "namespace": THIEVES},
            "spec": {"pool": POOL, "podSelector": {"matchLabels": {"thief": str(number)}}},
        }
    )
    uid = system.get("egresspolicy", name, THIEVES)["metadata"]["uid"]
    spec = {"address": address, "pool": POOL, "policy": {"namespace": THIEVES, "name": name, "uid": uid}}
    egress_ip = ip_address(address).exploded.replace(":", "-")
    system.apply(
        {"apiVersion": "sluice.dev/v1alpha1", "kind": "EgressIP", "metadata": {"name": egress_ip}, "spec": spec}
    )
    nodes = enumerate(system.cluster.nodes, 1)
    slices = [{"node": node, "ports": f"{1024 * index}-{1024 * index + 1023}"} for index, node in nodes]
    patch(world, "egressip", egress_ip, {"slices": slices})
    patch(world, "egresspolicy", name, {"id": 16000 + number, "addresses": [address], "revision": 1}, THIEVES)


def patch(world: World, kind: str, name: str, status: Mapping[str, Any], namespace: str | None = None) -> None:
    where = ["--namespace", namespace] if namespace else []
    document = json.dumps({"status": status})
    world.system.kubectl("patch", kind, name, *where, "--subresource=status", "--type=merge", "-p", document)


@pytest.fixture
def asleep(world: World) -> Iterator[World]:
    """The operator does nothing; afterwards it does, and nothing of the thieves is left."""
    system = world.system
    replicas = system.get("deployment", "sluice-operator", SLUICE)["spec"]["replicas"]
    system.kubectl("scale", *OPERATOR, "--replicas=0")
    wait_for(
        "the operator is gone",
        lambda: not system.objects("pods", "--namespace", SLUICE, "--selector=app.kubernetes.io/name=sluice-operator"),
        60,
    )
    system.namespace(THIEVES)
    yield world
    remove(world)
    system.kubectl("scale", *OPERATOR, f"--replicas={replicas}")
    system.kubectl("rollout", "status", *OPERATOR, "--timeout=120s")
    system.delete("namespace", THIEVES, wait=False)


def remove(world: World) -> None:
    """Policies and claims go, as an administrator would have them go."""
    system = world.system
    system.kubectl("delete", "egresspolicies", "--all", "--namespace", THIEVES)
    claims = system.objects("egressips")
    ours = [e["metadata"]["name"] for e in claims if e["spec"]["policy"]["namespace"] == THIEVES]
    if ours:
        system.kubectl("delete", "egressip", *ours)


def renewals(world: World) -> dict[str, float]:
    """When each kubelet renewed its Lease last, by its own clock."""
    leases = world.system.objects("leases", "--namespace=kube-node-lease")
    return {
        lease["metadata"]["name"]: datetime.fromisoformat(lease["spec"]["renewTime"].replace("Z", "+00:00")).timestamp()
        for lease in leases
    }


def all_is_well(world: World) -> None:
    """Every kubelet speaks and is Ready, and pods, selected by another pool's policy and not, go on."""
    system = world.system
    started = time.monotonic()
    since = time.time()
    wait_for("every kubelet renews its Lease", lambda: all(at > since for at in renewals(world).values()), MENDED)
    for node in system.objects("nodes"):
        (ready,) = (c for c in node["status"]["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True", (node["metadata"]["name"], ready)
    print(f"every kubelet spoke within {time.monotonic() - started:.1f} s")
    for pod in (*world.selected.values(), *world.others.values()):
        port = 7000 if pod in world.selected.values() else 8080
        wait_for(
            f"{pod.name} gets out",
            lambda pod=pod, port=port: all(a["ok"] for a in world.ask(pod, "tcp", port=port, timeout=2)),
            MENDED,
        )
    assert not world.leaks()


@pytest.mark.cluster
def test_whosever_address_is_claimed_past_the_operator_keeps_it(asleep: World, machine: str) -> None:
    world, system = asleep, asleep.system
    kinds = taken(world)
    (thief,) = system.start_pods(
        traffic_pod(THIEVES, "thief", node=system.cluster.nodes[0], labels={"thief": "0"}), seconds=90
    )
    for number, address in enumerate((*kinds.values(), machine)):
        claim(world, number, address)

    api_server = kinds["the API server's"]

    def refused() -> bool:
        """Each by somebody, and the API server's, which all know, by everybody."""
        said = [json.dumps(node["status"].get("troubles", ())) for node in system.objects("egressnodes")]
        return all(f'"{api_server}"' in text for text in said) and all(
            any(f'"{address}"' in text for text in said) for address in kinds.values()
        )

    wait_for("every agent says whose addresses it refuses", refused, MENDED)
    all_is_well(world)
    assert not any(answer["ok"] for answer in world.ask(thief, "tcp", timeout=1)), "dropped, not let out"
    remove(world)
    wait_for(
        "nobody refuses anything",
        lambda: not any(n["status"].get("troubles") for n in system.objects("egressnodes")),
        MENDED,
    )
    all_is_well(world)
    for node in system.cluster.nodes:
        host = system.cluster.host(node)
        for address in (machine, *gateways(world)):
            wait_for(
                f"{address} answers {node}",
                lambda host=host, address=address: (
                    host.run(["ping", "-c1", "-W2", address], check=False).returncode == 0
                ),
                MENDED,
            )
