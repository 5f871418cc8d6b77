"""What a node reports is what its kernel has."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from sluice_api.names import OVERRIDDEN_BY_MAX
from sluice_api.reasons import Reason
from sluice_api.slices import all_slices
from sluice_node.core.desired import SliceOwner
from sluice_node.core.links import Links
from sluice_node.core.liveness import Sight
from sluice_node.core.objects import EgressIP, Key, Node, Pod, Policy, Pool, Selector
from sluice_node.core.report import (
    Verdict,
    acknowledged,
    bare_status,
    calm,
    condition,
    node_status,
    programmed_account,
    refused_account,
    stamped,
)
from sluice_node.core.select import Selection, select
from sluice_node.core.snapshot import Snapshot

ADDRESS = ip_address("198.51.100.7")
POLICY = Policy(Key("ns", "a"), 3, "1", "p", Selector(), policy_id=5, addresses=(ADDRESS,), revision=50)
MINE = SliceOwner(ADDRESS, 1024, 1024, "n1")
CLAIM = EgressIP(Key("", str(ADDRESS)), ADDRESS, "p", POLICY.key, None, (MINE,))
BASE = Snapshot(
    node=Node("n1", "uid", (ip_address("192.0.2.1"),), ()),
    links=Links(),
    pods=(Pod(Key("ns", "pod"), "1", {}, "default", (ip_address("10.1.0.5"),)),),
    policies=(POLICY,),
    pools={"p": Pool(Key("", "p"), 1024, announces=True)},
    egress_ips=(CLAIM,),
)
GOOD = condition(Verdict(True, Reason.PROGRAMMED, ""), last=None, now="2026-01-01T00:00:00Z")


def revision(*, before: int = 0, **changes: Any) -> int:
    return acknowledged(replace(BASE, **changes), before=before)


def test_the_revision_is_the_highest_of_all_policies() -> None:
    assert revision(policies=(POLICY, replace(POLICY, key=Key("ns", "b"), addresses=(), revision=70))) == 70


def test_it_never_decreases() -> None:
    assert revision(policies=(), before=99) == 99
    assert revision(before=99) == 99


@pytest.mark.parametrize(
    "claims",
    [(), (replace(CLAIM, slices=()),), (replace(CLAIM, policy=Key("ns", "b")),), (replace(CLAIM, resting=True),)],
    ids=["no claim seen", "no slice of this node", "another's claim", "a claim that rests"],
)
def test_what_cannot_leave_yet_holds_back_its_own_and_later_revisions_only(claims: tuple[EgressIP, ...]) -> None:
    earlier = replace(POLICY, key=Key("ns", "b"), addresses=(), revision=40)
    later = replace(POLICY, key=Key("ns", "c"), addresses=(), revision=60)
    assert revision(policies=(earlier, POLICY, later), egress_ips=claims) == 40


def test_a_node_for_which_no_slice_is_left_does_not_wait() -> None:
    others = tuple(SliceOwner(ADDRESS, piece.first, piece.size, "x") for piece in all_slices(1024))
    assert revision(egress_ips=(replace(CLAIM, slices=others),)) == 50


def status(*, gateways: dict[str, Sight] | None = None, snapshot: Snapshot = BASE) -> dict[str, Any]:
    selection = select(snapshot.pods, snapshot.policies)
    return node_status(programmed_account(snapshot, selection, before=0), gateways or {}, GOOD)


def test_a_policy_is_listed_with_what_it_selects_here() -> None:
    assert status()["policies"] == [{"namespace": "ns", "name": "a", "generation": 3, "pods": 1, "overridden": 0}]
    assert status(snapshot=replace(BASE, pods=()))["policies"] == []


def test_a_policy_that_is_overridden_is_listed_too() -> None:
    snapshot = replace(BASE, policies=(POLICY, replace(POLICY, key=Key("ns", "b"), policy_id=6)))
    assert [(p["name"], p["pods"], p["overridden"]) for p in status(snapshot=snapshot)["policies"]] == [
        ("a", 1, 0),
        ("b", 0, 1),
    ]


def test_the_loser_of_a_pod_names_the_winner_and_no_more_of_them_than_fit() -> None:
    losers = [replace(POLICY, key=Key("ns", name), created="2") for name in ("b", "c")]
    told = {
        p["name"]: p.get("overriddenBy") for p in status(snapshot=replace(BASE, policies=(POLICY, *losers)))["policies"]
    }
    assert told == {"a": None, "b": ["a"], "c": ["a"]}
    labels = [{"app": str(number)} for number in range(OVERRIDDEN_BY_MAX + 3)]
    pods = tuple(
        Pod(Key("ns", f"pod{number}"), "1", each, "default", (ip_address(f"10.1.0.{number + 5}"),))
        for number, each in enumerate(labels)
    )
    many = tuple(
        replace(POLICY, key=Key("ns", f"w{number}"), selector=Selector(labels=tuple(each.items())))
        for number, each in enumerate(labels)
    )
    found = status(snapshot=replace(BASE, pods=pods, policies=(*many, losers[0])))["policies"]
    assert len(next(entry["overriddenBy"] for entry in found if entry["name"] == "b")) == OVERRIDDEN_BY_MAX


def test_what_the_kernel_refused_is_in_use_but_not_acknowledged() -> None:
    selection = select(BASE.pods, BASE.policies)
    last = programmed_account(BASE, selection, before=0)
    newer = replace(BASE, policies=(replace(POLICY, generation=4, revision=80),))
    refused = node_status(refused_account(newer, selection, last=last), {}, GOOD)
    assert refused["revision"] == 50
    assert refused["policies"][0]["generation"] == 3
    never = node_status(refused_account(newer, selection, last=None), {}, GOOD)
    assert never["revision"] == 0
    assert never["policies"][0]["generation"] == 0


def test_a_node_whose_kernel_refuses_takes_no_new_gateway_role_and_gives_up_old_ones() -> None:
    pod = Pod(Key("sluice-system", "gw"), "1", {}, "d", (), ready=True, gateway_for="p")
    with_role, without = replace(BASE, pods=(pod,)), BASE
    account = programmed_account(with_role, Selection(), before=0)
    assert account.gateway_for == {"p"}
    assert refused_account(without, Selection(), last=account).gateway_for == frozenset()
    assert refused_account(with_role, Selection(), last=None).gateway_for == frozenset()


def test_a_removed_node_has_no_tunnel_no_policies_and_no_role() -> None:
    assert bare_status(BASE.node, revision=9, condition=GOOD).keys() == {
        "addresses",
        "podCIDRs",
        "revision",
        "conditions",
    }


def test_a_condition_keeps_the_time_since_when_it_holds() -> None:
    refused = Verdict(False, Reason.KERNEL_ERROR, "no")
    assert condition(Verdict(True, Reason.PROGRAMMED, "x"), last=GOOD, now="later")["lastTransitionTime"] != "later"
    assert condition(refused, last=GOOD, now="later")["lastTransitionTime"] == "later"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [(200, 900, 200), (5000, 9000, 5000), (5000, 11000, 11000), (9000, 4000, 4000)],
    ids=["below a millisecond", "within a factor of two", "doubled", "halved"],
)
def test_a_round_trip_is_told_again_only_when_it_changed_much(old: int, new: int, told: int) -> None:
    before = status(gateways={"n2": Sight(True, old / 1e6)})
    after = calm(status(gateways={"n2": Sight(True, new / 1e6)}), written=before)
    assert after["gateways"][0]["rttMicroseconds"] == told


def test_the_death_of_a_gateway_is_told_at_once() -> None:
    before = status(gateways={"n2": Sight(True, 0.001)})
    assert calm(status(gateways={"n2": Sight(False, 0.001)}), written=before) != before


def test_every_condition_names_the_generation_it_speaks_of_so_that_kubectl_wait_ends() -> None:
    """kubectl compares metadata.generation with the condition's observedGeneration, and waits while that is lower."""
    told = stamped(status(), generation=3)
    assert told["observedGeneration"] == 3
    assert [entry["observedGeneration"] for entry in told["conditions"]] == [3]
