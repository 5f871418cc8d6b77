"""Identity, denied networks, policy destinations and families: the one evaluator."""

import json
from ipaddress import ip_address
from typing import Any

import pytest

from sluice_proxy.core.decision import Permitted, decide, identify
from sluice_proxy.core.policy import Policy, Snapshot, SnapshotError, parse_snapshot
from sluice_proxy.core.refusal import Refusal


def document(**changes: Any) -> dict[str, Any]:
    policy = {
        "id": 5,
        "namespace": "billing",
        "name": "partners",
        "sources": ["240.0.0.5", "100:0:0:1::5"],
        "addresses": ["192.0.2.17", "2001:db8::17"],
        "destinations": None,
        "otherwise": "Drop",
    }
    return {"version": 1, "pool": "p", "policies": [policy | changes], "denied": ["10.244.0.0/16", "fd00:10::/64"]}


def snapshot(**changes: Any) -> Snapshot:
    return parse_snapshot(json.dumps(document(**changes)).encode(), "p")


def judge(address: str, port: int = 443, **changes: Any) -> str:
    """`permitted`, or the reason of the refusal."""
    state = snapshot(**changes)
    verdict = decide(state, state.policies[5], [ip_address(address)], port)
    return "permitted" if isinstance(verdict, Permitted) else verdict.reason


@pytest.mark.parametrize("mark", [5, 0x10000005, 0x0FFF0005, 0xC005])
def test_the_policy_is_the_low_fourteen_bits_of_the_mark(mark: int) -> None:
    policy = identify(mark, snapshot())
    assert isinstance(policy, Policy)
    assert policy.label == "billing/partners"


@pytest.mark.parametrize(("mark", "reason"), [(0, "not-selected"), (0x10000000, "not-selected"), (6, "unknown-policy")])
def test_who_no_policy_of_the_pool_selects_is_refused(mark: int, reason: str) -> None:
    refusal = identify(mark, snapshot())
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (403, reason)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("203.0.113.1", "permitted"),
        ("10.1.0.1", "permitted"),
        ("10.244.3.4", "cluster-address"),
        ("fd00:10::7", "cluster-address"),
        ("64:ff9b::10.244.3.4", "cluster-address"),
        ("64:ff9b::203.0.113.1", "permitted"),
        ("127.0.0.1", "forbidden-address"),
    ],
)
def test_the_cluster_is_never_outside_in_no_form_of_its_addresses(address: str, reason: str) -> None:
    assert judge(address) == reason


DESTINATIONS = [
    {"cidrs": ["198.51.100.0/24", "2001:db8:1::/48"], "except": ["198.51.100.8/32"], "ports": [
        {"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 8000, "endPort": 8010}]},
    {"cidrs": ["203.0.113.0/24"], "ports": [{"protocol": "UDP", "port": 53}]},
    {"cidrs": ["64:ff9b::/96"], "except": ["192.0.2.0/24"]},
]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "port", "reason"),
    [
        ("198.51.100.7", 443, "permitted"),
        ("198.51.100.7", 8000, "permitted"),
        ("198.51.100.7", 8010, "permitted"),
        ("198.51.100.7", 8011, "port"),
        ("198.51.100.7", 80, "port"),
        ("198.51.100.8", 443, "destination"),
        ("2001:db8:1::1", 443, "permitted"),
        ("2001:db8:2::1", 443, "destination"),
        ("203.0.113.1", 53, "port"),
        ("9.9.9.9", 443, "destination"),
        ("64:ff9b::9.9.9.9", 25, "permitted"),
        ("64:ff9b::192.0.2.1", 25, "destination"),
    ],
)
def test_only_what_an_entry_holds_and_opens_is_permitted(address: str, port: int, reason: str) -> None:
    assert judge(address, port, destinations=DESTINATIONS) == reason


def test_no_destinations_at_all_permit_nothing() -> None:
    assert judge("203.0.113.1", destinations=[]) == "destination"


def test_a_family_without_egress_address_is_not_dialled() -> None:
    assert judge("2001:db8:9::1", addresses=["192.0.2.17"]) == "no-egress-address"
    assert judge("203.0.113.1", addresses=["192.0.2.17"]) == "permitted"


def test_of_several_addresses_only_the_permitted_ones_are_dialled_in_their_order() -> None:
    state = snapshot()
    addresses = [ip_address(text) for text in ("127.0.0.1", "203.0.113.2", "10.244.0.1", "203.0.113.1")]
    verdict = decide(state, state.policies[5], addresses, 443)
    assert verdict == Permitted((addresses[1], addresses[3]))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"id": 0}, "policies[0].id"),
        ({"id": 16384}, "policies[0].id"),
        ({"id": True}, "policies[0].id"),
        ({"id": "5"}, "policies[0].id"),
        ({"name": ""}, "policies[0].name"),
        ({"namespace": None}, "policies[0].namespace"),
        ({"sources": ["240.0.0.6"]}, "policies[0].sources"),
        ({"sources": ["192.0.2.17"]}, "policies[0].sources"),
        ({"addresses": ["x"]}, "policies[0].addresses[0]"),
        ({"addresses": "192.0.2.1"}, "policies[0].addresses"),
        ({"destinations": [{}]}, "policies[0].destinations[0].cidrs"),
        ({"destinations": [{"cidrs": ["192.0.2.1/24"]}]}, "policies[0].destinations[0].cidrs[0]"),
        ({"destinations": [{"cidrs": [], "except": "x"}]}, "policies[0].destinations[0].except"),
        ({"destinations": [{"cidrs": [], "ports": [{"protocol": "SCTP", "port": 1}]}]}, "ports[0].protocol"),
        ({"destinations": [{"cidrs": [], "ports": [{"protocol": "TCP", "port": 0}]}]}, "ports[0].port"),
        (
            {"destinations": [{"cidrs": [], "ports": [{"protocol": "TCP", "port": 9, "endPort": 8}]}]},
            "ports[0].endPort",
        ),
    ],
)
def test_a_snapshot_with_a_fault_is_refused_and_the_fault_named(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        snapshot(**changes)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1, "pool": "q"}', b'{"version": 1, "pool": "p"}', b"\xff"],
)
def test_a_line_that_is_no_snapshot_of_this_pool_is_refused(line: bytes) -> None:
    with pytest.raises(SnapshotError):
        parse_snapshot(line, "p")


def test_two_policies_with_one_id_are_refused() -> None:
    data = document()
    data["policies"] *= 2
    with pytest.raises(SnapshotError, match="twice"):
        parse_snapshot(json.dumps(data).encode(), "p")


def test_keys_of_a_later_agent_are_ignored() -> None:
    assert judge("203.0.113.1", novelty={"x": 1}) == "permitted"
