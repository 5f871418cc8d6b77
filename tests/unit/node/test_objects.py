"""Documents that someone else wrote are read strictly, or refused by the name of the field."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from sluice_node.core import objects
from sluice_node.core.desired import Destination, PortRange, SliceOwner
from sluice_node.core.objects import Key, Requirement, Selector, TunnelEnd
from sluice_node.core.objects_fields import MalformedError

META = {"name": "a", "namespace": "ns", "uid": "u", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"}
POLICY = {"metadata": META, "spec": {"pool": "p", "podSelector": {}}}
CLAIM_SPEC = {"address": "198.51.100.7", "pool": "p", "policy": {"namespace": "ns", "name": "a", "uid": "u"}}

POD: dict[str, Any] = {
    "metadata": META | {"labels": {"app.kubernetes.io/name": "sluice-gateway", "sluice.dev/pool": "p"}},
    "spec": {"serviceAccountName": "robot", "hostNetwork": True},
    "status": {
        "phase": "Running",
        "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
ASSIGNED: dict[str, Any] = {
    "metadata": META,
    "spec": {
        "pool": "p",
        "podSelector": {
            "matchLabels": {"app": "x"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["test"]}],
        },
        "serviceAccounts": ["robot"],
        "destinations": [
            {
                "cidrs": ["203.0.113.0/24"],
                "except": ["203.0.113.9/32"],
                "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "UDP", "port": 50, "endPort": 60}],
            }
        ],
        "otherwise": "Drop",
        "priority": -5,
    },
    "status": {"id": 7, "addresses": ["198.51.100.7"], "revision": 12},
}
CLAIM: dict[str, Any] = {
    "metadata": {"name": "198.51.100.7"},
    "spec": CLAIM_SPEC,
    "status": {"holder": "n1", "slices": [{"ports": "2048-3071", "node": "n2"}]},
}
REPORTED: dict[str, Any] = {
    "metadata": {"name": "n1", "annotations": {"sluice.dev/remove": "true"}},
    "status": {
        "addresses": ["192.0.2.1"],
        "podCIDRs": ["10.1.0.0/24"],
        "gatewayFor": ["p"],
        "revision": 9,
        "tunnel": {"address": "192.0.2.1", "port": 4797, "mac": "02:65:00:00:00:01"},
    },
}
POOL: dict[str, Any] = {
    "metadata": META,
    "spec": {
        "portsPerSlice": 1024,
        "gateways": {"proxy": {"enabled": True}},
        "announcement": {"mode": "L2", "interface": "eth1"},
    },
    "status": {"proxyPort": 13128},
}
NODE: dict[str, Any] = {
    "metadata": META,
    "spec": {"podCIDRs": ["10.1.0.0/24"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
}
WHOLE: list[tuple[Callable[[dict[str, Any]], object], dict[str, Any]]] = [
    (objects.pod, POD),
    (objects.policy, ASSIGNED),
    (objects.pool, POOL),
    (objects.egress_ip, CLAIM),
    (objects.egress_node, REPORTED),
    (objects.service_cidr, {"metadata": META, "spec": {"cidrs": ["10.96.0.0/16"]}}),
    (objects.node, NODE),
]


def test_a_pod_is_read() -> None:
    pod = objects.pod(POD)
    assert pod.addresses == (ip_address("10.0.0.1"), ip_address("fd00::1"))
    assert (pod.service_account, pod.host_network, pod.ready, pod.gateway_for) == ("robot", True, True, "p")
    assert not pod.finished
    assert not pod.terminating


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_ended_is_finished(phase: str) -> None:
    assert objects.pod({"metadata": META, "status": {"phase": phase}}).finished


def test_a_pod_without_a_status_has_no_address() -> None:
    assert objects.pod({"metadata": META, "spec": {}}).addresses == ()


def test_the_pool_label_alone_makes_no_gateway() -> None:
    assert objects.pod({"metadata": META | {"labels": {"sluice.dev/pool": "p"}}}).gateway_for is None


def test_a_policy_is_read_with_its_assignment() -> None:
    policy = objects.policy(ASSIGNED)
    assert policy.key == Key("ns", "a")
    assert policy.selector == Selector((("app", "x"),), (Requirement("tier", "NotIn", frozenset({"test"})),))
    assert policy.destinations == (
        Destination(
            (ip_network("203.0.113.0/24"),),
            (ip_network("203.0.113.9/32"),),
            (PortRange("TCP", 443, 443), PortRange("UDP", 50, 60)),
        ),
    )
    assert (policy.otherwise, policy.priority, policy.policy_id, policy.revision) == ("Drop", -5, 7, 12)
    assert policy.addresses == (ip_address("198.51.100.7"),)


def test_a_new_policy_has_nothing_assigned() -> None:
    policy = objects.policy(POLICY)
    assert (policy.policy_id, policy.addresses, policy.revision, policy.destinations) == (None, (), 0, None)


def test_a_pool_says_where_the_search_for_its_next_address_stands() -> None:
    status = {"ipv4": {"lastAssigned": "198.51.100.7"}, "ipv6": {"total": 0}}
    read = objects.pool({"metadata": META, "spec": {"addresses": ["198.51.100.0/24"]}, "status": status})
    assert (read.last_ipv4, read.last_ipv6) == (ip_address("198.51.100.7"), None)


def test_a_pool_without_a_proxy_has_no_proxy_port() -> None:
    spec = {"gateways": {"proxy": {"enabled": False}}}
    assert objects.pool({"metadata": META, "spec": spec, "status": {"proxyPort": 13128}}).proxy_port is None


def test_a_claim_is_read_with_its_slices() -> None:
    claim = objects.egress_ip(CLAIM)
    assert claim.slices == (SliceOwner(ip_address("198.51.100.7"), 2048, 1024, "n2"),)
    assert (claim.holder, claim.policy) == ("n1", Key("ns", "a"))


def test_an_egress_node_without_a_report_has_no_tunnel() -> None:
    assert objects.egress_node({"metadata": {"name": "n1"}, "spec": {}}).tunnel is None


def test_an_egress_node_is_read() -> None:
    node = objects.egress_node(REPORTED)
    assert node.tunnel == TunnelEnd(ip_address("192.0.2.1"), "02:65:00:00:00:01")
    assert node.remove
    assert node.gateway_for == {"p"}


def test_only_internal_addresses_of_a_node_count() -> None:
    entries = [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "192.0.2.1"}]
    assert objects.node({"metadata": META, "status": {"addresses": entries}}).addresses == (ip_address("192.0.2.1"),)


@pytest.mark.parametrize(
    ("read", "document", "field"),
    [
        (objects.pod, {"metadata": {}}, "metadata.name"),
        (objects.pod, {"metadata": META, "status": {"podIPs": [{"ip": "fe80::1%eth0"}]}}, "status.podIPs[0].ip"),
        (objects.policy, {"metadata": META, "spec": {"pool": "p"}}, "spec.podSelector"),
        (objects.policy, POLICY | {"status": {"id": 16384}}, "status.id"),
        (objects.policy, POLICY | {"status": {"id": True}}, "status.id"),
        (objects.policy, POLICY | {"status": {"addresses": ["198.51.100.007"]}}, "status.addresses[0]"),
        (
            objects.policy,
            {"metadata": META, "spec": {"pool": "p", "podSelector": {"matchExpressions": [{"key": "a"}]}}},
            "spec.podSelector.matchExpressions[0].operator",
        ),
        (
            objects.policy,
            {"metadata": META, "spec": {"pool": "p", "podSelector": {}, "destinations": [{"cidrs": []}]}},
            "spec.destinations[0].cidrs",
        ),
        (
            objects.pool,
            {"metadata": META, "spec": {"announcement": {"interface": 'x" accept'}}},
            "spec.announcement.interface",
        ),
        (
            objects.egress_ip,
            {"metadata": META, "spec": CLAIM_SPEC, "status": {"slices": [{"ports": "1025-2048", "node": "n"}]}},
            "status.slices[0].ports",
        ),
        (
            objects.egress_node,
            {"metadata": META, "status": {"tunnel": {"address": "192.0.2.1", "mac": "01:00:5e:00:00:01"}}},
            "status.tunnel.mac",
        ),
        (objects.service_cidr, {"metadata": META, "spec": {"cidrs": ["10.0.0.0/33"]}}, "spec.cidrs[0]"),
    ],
)
def test_what_is_malformed_is_refused_by_the_name_of_its_field(
    read: Callable[[dict[str, Any]], object], document: dict[str, Any], field: str
) -> None:
    with pytest.raises(MalformedError) as raised:
        read(document)
    assert str(raised.value).startswith(f"{field}: ")


JUNK: list[Any] = [None, True, -1, 1 << 70, 1.5, "", "%", "x" * 100, [], [None], ["x"], {}, {"x": None}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a document."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*path, key))


@pytest.mark.parametrize(("read", "document"), WHOLE, ids=lambda item: getattr(item, "__name__", ""))
def test_junk_in_any_place_raises_nothing_but_what_is_promised(
    read: Callable[[dict[str, Any]], object], document: dict[str, Any]
) -> None:
    read(document)
    for *way, last in places(document):
        for junk in JUNK:
            broken = deepcopy(document)
            inner: Any = broken
            for step in way:
                inner = inner[step]
            inner[last] = junk
            with suppress(MalformedError):
                read(broken)


def test_what_was_heard_on_links_is_read_back_and_nothing_else() -> None:
    said = ("neighbour 02:00:00:00:00:aa on eth0", "neighbour of the strange kind", "pod", "interface eth0")
    entries = [{"address": f"198.51.100.{index}", "by": by} for index, by in enumerate(said)]
    document = {"metadata": {"name": "n1"}, "status": {"occupied": entries}}
    assert objects.heard(document) == ((ip_address("198.51.100.0"), "02:00:00:00:00:aa", "eth0"),)
    assert objects.heard({"metadata": {"name": "n1"}}) == ()
