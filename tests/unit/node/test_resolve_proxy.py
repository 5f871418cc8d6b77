"""A proxy is told exactly the policies of its pool, in words that it understands."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from sluice_node.core.desired import Destination, PortRange
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressIP, Key, Node, Policy, Selector
from sluice_node.core.resolve_proxy import proxy_line
from sluice_node.core.snapshot import Snapshot
from sluice_proxy.core.policy import parse_snapshot

ADDRESS = ip_address("198.51.100.7")
POLICY = Policy(
    Key("ns", "a"),
    1,
    "1",
    "p",
    Selector(),
    destinations=(
        Destination((ip_network("203.0.113.0/24"),), (ip_network("203.0.113.9/32"),), (PortRange("TCP", 443, 450),)),
        Destination((ip_network("2001:db8::/32"),)),
    ),
    otherwise="Drop",
    policy_id=5,
    addresses=(ADDRESS,),
)
BASE = Snapshot(
    node=Node("n1", "uid", (ip_address("192.0.2.1"),), (ip_network("10.1.0.0/24"),)),
    links=Links(),
    policies=(POLICY,),
    egress_ips=(EgressIP(Key("", str(ADDRESS)), ADDRESS, "p", POLICY.key),),
)


def told(pool: str = "p", **changes: Any) -> dict[str, Any]:
    line = proxy_line(pool, replace(BASE, **changes))
    parse_snapshot(line, pool)
    assert line.count(b"\n") == 1
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_policy_is_told_whole() -> None:
    assert told()["policies"] == [
        {
            "id": 5,
            "namespace": "ns",
            "name": "a",
            "sources": ["240.0.0.5", "100:0:0:1::5"],
            "addresses": ["198.51.100.7"],
            "destinations": [
                {
                    "cidrs": ["203.0.113.0/24"],
                    "except": ["203.0.113.9/32"],
                    "ports": [{"protocol": "TCP", "port": 443, "endPort": 450}],
                },
                {"cidrs": ["2001:db8::/32"], "except": [], "ports": []},
            ],
            "otherwise": "Drop",
        }
    ]


def test_policies_of_other_pools_and_pending_ones_are_not_told() -> None:
    assert told("q")["policies"] == []
    assert told(policies=(replace(POLICY, policy_id=None),))["policies"] == []
    assert told(egress_ips=())["policies"] == []


def test_what_is_inside_the_cluster_is_denied() -> None:
    assert {"10.1.0.0/24", "192.0.2.1/32", "127.0.0.0/8"} <= set(told()["denied"])
