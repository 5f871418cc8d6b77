"""A pool with an address that somebody has: it is refused by name, nobody gets the address, and nothing breaks."""

import ipaddress
import json
import time
from collections.abc import Iterator

import pytest
from tests.cluster.system.world import NAMESPACE, World

from testbed.system import policy, pool, wait_for

NOWHERE = {"gateways": {"nodeSelector": {"no": "node"}}}
"""These pools are about addresses: they need no gateways."""
STRANGER = "02:00:00:00:00:99"
SELECTED = {"app": "nobody"}


def _whose(world: World) -> dict[str, tuple[str, str]]:
    """Name of a pool -> an address that is not free, and how its owner is named."""
    system, (first, *_) = world.system, world.system.cluster.nodes
    host = system.cluster.host(first)
    (route,) = json.loads(host.run(["ip", "-j", "-4", "route", "show", "default"]).stdout)
    lan = next(
        ipaddress.ip_interface(f"{entry['local']}/{entry['prefixlen']}").network
        for link in json.loads(host.run(["ip", "-j", "-4", "address", "show", "dev", route["dev"]]).stdout)
        for entry in link["addr_info"]
    )
    api = system.get("endpointslice", "kubernetes", "default")["endpoints"][0]["addresses"][0]
    pod = next(str(a) for a in world.others[first].addresses if a.count("."))
    # not a Service's own, but of their range: it may be the next one's
    service = ipaddress.ip_address(system.get("service", "kubernetes", "default")["spec"]["clusterIP"]) + 77
    return {
        "of-a-node": (str(host.addresses[0]), f"node {first}"),
        "of-the-api-server": (api, "the API server: EndpointSlice default/kubernetes"),
        "of-the-gateway": (route["gateway"], "gateway of a route, seen by node"),
        "of-nobody": (str(lan.broadcast_address), f"broadcast address of {lan} on {route['dev']}"),
        "of-a-pod": (pod, "pods of node"),
        "of-services": (str(service), "ServiceCIDR kubernetes"),
    }


@pytest.fixture(name="taken", scope="module")
def _taken(world: World) -> Iterator[dict[str, tuple[str, str]]]:
    """A pool and a policy for each address that is not free."""
    found = _whose(world)
    for name, (address, _) in found.items():
        world.system.apply(pool(name, address, **NOWHERE), policy(NAMESPACE, name, name, SELECTED))
    yield found
    for name in found:
        world.system.delete("egresspolicy", name, NAMESPACE)
        world.system.delete("egresspool", name, wait=False)


@pytest.mark.cluster
def test_each_is_refused_with_its_owner_and_given_to_nobody(world: World, taken: dict[str, tuple[str, str]]) -> None:
    for name, (address, owner) in taken.items():
        found = world.system.wait_condition("egresspool", name, "Accepted", status="False", seconds=30)
        assert found["reason"] == "AddressTaken", (name, found)
        assert f"{address} (" in found["message"] or f"{address} in " in found["message"], (name, found)
        assert owner in found["message"], (name, found)
    addresses = {address for address, _ in taken.values()}
    assert not addresses & {entry["spec"]["address"] for entry in world.system.objects("egressips")}


@pytest.mark.cluster
def test_the_nodes_stay_ready_and_the_traffic_of_others_flows(world: World, taken: dict[str, tuple[str, str]]) -> None:
    assert taken
    time.sleep(5)
    for node in world.system.objects("nodes"):
        ready = next(entry for entry in node["status"]["conditions"] if entry["type"] == "Ready")
        assert ready["status"] == "True", node["metadata"]["name"]
    for pod in world.selected.values():
        for answer in world.ask(pod, "tcp"):
            assert answer["ok"], answer
            assert answer["address"] in world.egress()


@pytest.mark.cluster
def test_a_machine_that_a_node_sees_on_its_link_keeps_its_address(world: World) -> None:
    system, node = world.system, world.system.cluster.nodes[1]
    host = system.cluster.host(node)
    host.run(["ip", "neigh", "replace", "198.18.0.99", "lladdr", STRANGER, "dev", "eth0", "nud", "permanent"])
    try:
        time.sleep(35)  # a node looks at its links each 30 s
        started = time.monotonic()
        system.apply(pool("link", "198.18.0.99-198.18.0.100", **NOWHERE), policy(NAMESPACE, "link", "link", SELECTED))
        found = wait_for("an address", lambda: system.addresses_of(NAMESPACE, "link"), 30)
        print(f"assigned {time.monotonic() - started:.1f} s after the pool was applied")
        assert list(found) == ["198.18.0.100"]
        said = system.wait_condition("egresspool", "link", "Accepted", status="False", seconds=30)
        assert f"198.18.0.99 (neighbour {STRANGER} on eth0, seen by node {node})" in said["message"]
    finally:
        host.run(["ip", "neigh", "del", "198.18.0.99", "dev", "eth0"])
        system.delete("egresspolicy", "link", NAMESPACE)
        system.delete("egresspool", "link", wait=False)
