"""What is wrong with one pool, policy or address is said there, and holds back nothing else."""

from dataclasses import replace
from ipaddress import IPv4Interface, ip_address
from typing import Any

import pytest

from sluice_api.reasons import Reason
from sluice_node.core.desired import DesiredNode, PolicyProgram
from sluice_node.core.failures import Failure, keeping
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressIP, EgressNode, Key, Node, Pod, Policy, Pool, Selector
from sluice_node.core.report import Verdict, condition, node_status, programmed_account, refused_account
from sluice_node.core.resolve import resolve
from sluice_node.core.select import Selection, select
from sluice_node.core.snapshot import Snapshot
from sluice_node.core.troubles import MOST, Trouble, documents, troubles
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.isolate import MOST_REFUSED, split

GOOD, BAD = ip_address("198.51.100.7"), ip_address("203.0.113.7")
ONE = Policy(Key("a", "one"), 3, "1", "good", Selector(), policy_id=5, addresses=(GOOD,), revision=50)
TWO = Policy(Key("b", "two"), 4, "1", "bad", Selector(), policy_id=6, addresses=(BAD,), revision=60)
CLAIMS = (
    EgressIP(Key("", str(GOOD)), GOOD, "good", ONE.key),
    EgressIP(Key("", str(BAD)), BAD, "bad", TWO.key),
)
POOLS = {"good": Pool(Key("", "good"), 1024, True), "bad": Pool(Key("", "bad"), 1024, True, interface="eth7")}
LINKS = Links((("eth0", IPv4Interface("192.0.2.1/24")), ("lan", IPv4Interface("192.0.2.65/26"))), {4: "eth0"})


def gateway(pool: str) -> Pod:
    pod = Pod(Key("sluice-system", f"{pool}-gw"), "1", {}, "default", (ip_address("192.0.2.1"),), True)
    return replace(pod, ready=True, gateway_for=pool)


BASE = Snapshot(
    node=Node("n1", "uid", (ip_address("192.0.2.1"),), ()),
    links=LINKS,
    pods=(gateway("good"), gateway("bad")),
    policies=(ONE, TWO),
    pools=POOLS,
    egress_ips=CLAIMS,
)


def found(snapshot: Snapshot = BASE, *failures: Failure) -> tuple[Trouble, ...]:
    return troubles(snapshot, resolve(snapshot, Selection()), failures)


def status(snapshot: Snapshot = BASE, *failures: Failure) -> dict[str, Any]:
    selection = select(snapshot.pods, snapshot.policies)
    account = programmed_account(snapshot, selection, before=0, troubles=found(snapshot, *failures))
    said = condition(Verdict(True, Reason.PROGRAMMED, ""), last=None, now="")
    return node_status(account, {}, said)


def test_an_interface_that_is_not_there_is_said_at_its_pool_with_those_that_are() -> None:
    (trouble,) = found()
    assert (trouble.pool, trouble.policy, trouble.address) == ("bad", None, None)
    assert trouble.message == (
        "spec.announcement.interface: interface eth7 is not on node n1; its interfaces with an address are eth0, lan"
    )


@pytest.mark.parametrize(
    "snapshot",
    [
        replace(BASE, links=replace(LINKS, names=frozenset({"eth7"}))),
        replace(BASE, pods=(gateway("good"),)),
        replace(BASE, pools=POOLS | {"bad": replace(POOLS["bad"], announces=False)}),
    ],
    ids=["it has come, though without an address", "the node is no gateway of the pool", "nothing is announced"],
)
def test_there_is_no_trouble_with_an_interface_when(snapshot: Snapshot) -> None:
    assert found(snapshot) == ()


def test_an_address_that_no_interface_leads_to_is_said() -> None:
    pools = POOLS | {"bad": replace(POOLS["bad"], interface=None)}
    (trouble,) = found(replace(BASE, pools=pools, links=replace(LINKS, defaults={}), egress_ips=CLAIMS[1:]))
    assert (trouble.pool, trouble.address, trouble.unanswered) == ("bad", BAD, True)
    assert "no interface of node n1 leads to 203.0.113.7" in trouble.message


def test_an_egress_ip_that_is_somebodys_is_said_at_its_policy_and_costs_no_gateway() -> None:
    snapshot = replace(BASE, links=replace(LINKS, gateways=frozenset({GOOD})), pools={"good": POOLS["good"]})
    (trouble,) = (entry for entry in found(snapshot) if entry.address == GOOD)
    assert (trouble.pool, trouble.policy, trouble.unanswered) == ("good", ONE.key, False)
    assert "next hop of a route" in trouble.message
    assert "spec.exclude of pool good" in trouble.message
    assert "good" in status(snapshot)["gatewayFor"]


def test_a_node_that_cannot_answer_is_no_gateway_of_that_pool_and_stays_one_of_others() -> None:
    assert status()["gatewayFor"] == ["good"]
    refused = Failure("cannot set proxy neighbour", unanswered=GOOD)
    assert status(replace(BASE, links=replace(LINKS, names=frozenset({"eth7"}))), refused)["gatewayFor"] == ["bad"]


def test_the_nodes_own_pods_do_not_use_it_as_a_gateway_without_the_interface_either() -> None:
    desired = resolve(BASE, Selection())
    assert desired.live_gateways == {"good": ("n1",), "bad": ()}
    assert desired.announced == {GOOD: "eth0"}


def test_what_the_kernel_refuses_is_said_at_what_it_was_for() -> None:
    snapshot = replace(BASE, pods=(gateway("good"),))
    failures = (
        Failure("no memory", unanswered=GOOD),
        Failure("no such rule", policy_id=6),
        Failure("cannot set peer 02:00:00:00:00:02 at 192.0.2.2: Invalid argument"),
    )
    assert status(snapshot, *failures)["troubles"] == [
        {"policy": {"namespace": "b", "name": "two"}, "message": "no such rule"},
        {"pool": "good", "address": str(GOOD), "message": "no memory"},
        {"message": "cannot set peer 02:00:00:00:00:02 at 192.0.2.2: Invalid argument"},
    ]


def test_a_refused_policy_is_listed_as_not_programmed_and_the_revision_passes_it() -> None:
    pods = tuple(Pod(Key(ns, "pod"), "1", {}, "default", (ip_address(f"10.1.0.{n}"),)) for n, ns in enumerate("ab", 5))
    owned = tuple(replace(claim, slices=()) for claim in CLAIMS)
    none_left = {name: replace(pool, slice_size=1024) for name, pool in POOLS.items()}
    snapshot = replace(BASE, pods=pods, egress_ips=owned[1:], pools=none_left)
    waits = status(snapshot)  # ONE's claim has not come: it holds back itself and all that is later
    assert waits["revision"] == 0
    refused = status(replace(snapshot, policies=(replace(ONE, addresses=()), TWO)), Failure("no", policy_id=6))
    assert [(p["name"], p["generation"]) for p in refused["policies"]] == [("one", 3), ("two", 0)]
    assert refused["revision"] == 60


def test_while_nothing_is_known_of_the_kernel_what_it_may_hold_stays_listed() -> None:
    own = EgressNode(Key("", "n1"), listed=frozenset({Key("c", "gone")}))
    first = refused_account(replace(BASE, egress_nodes=(own,)), Selection(), last=None)
    assert first.selection.pods == {Key("c", "gone"): 0}
    last = programmed_account(BASE, Selection(pods={ONE.key: 2}), before=0)
    later = refused_account(replace(BASE, policies=()), Selection(pods={TWO.key: 1}), last=last)
    assert later.selection.pods == {ONE.key: 0, TWO.key: 1}


def test_troubles_are_bounded_and_the_last_says_how_many_more() -> None:
    many = tuple(Trouble(f"{number}") for number in range(MOST + 9))
    assert len(documents(many)) == MOST
    assert documents(many)[-1] == {"message": "and 10 more: see the agent's log"}
    assert len(documents(many[:MOST])) == MOST


def test_a_policy_left_out_blocks_its_pods() -> None:
    pods = {ip_address("10.1.0.5"): 5, ip_address("10.1.0.6"): 6}
    programs = (PolicyProgram(5, "good", (GOOD,)), PolicyProgram(6, "bad", (BAD,)))
    desired = DesiredNode("n1", ("eth0",), ip_address("192.0.2.1"), "02:00:00:00:00:01", policies=programs, pods=pods)
    kept = keeping(desired, programs[:1])
    assert kept.policies == programs[:1]
    assert (kept.pods, kept.blocked_pods) == ({ip_address("10.1.0.5"): 5}, {ip_address("10.1.0.6")})
    assert keeping(desired, programs) is desired


class Picky:
    """A kernel that takes no transaction with one of `bad` in it; `holds` is what it took last."""

    def __init__(self, bad: set[int]) -> None:
        self.bad, self.holds, self.attempts = bad, [-1], 0

    def take(self, items: Any) -> None:
        self.attempts += 1
        if self.bad & set(items):
            raise KernelError(f"no: {sorted(self.bad & set(items))}")
        self.holds = list(items)


@pytest.mark.parametrize("bad", [{0}, {7}, {999}, {3, 4}, {0, 500, 999}, {998, 999}])
def test_the_kernel_holds_all_but_the_items_that_it_refuses(bad: set[int]) -> None:
    kernel = Picky(bad)
    taken, refused = split(list(range(1000)), kernel.take, good=range(0))
    assert set(taken) == set(kernel.holds) == set(range(1000)) - bad
    assert refused.keys() == bad
    assert kernel.attempts <= 3 + 22 * len(bad)


def test_what_is_new_puts_nothing_at_risk_that_was_taken_before() -> None:
    kernel = Picky({7})
    taken, refused = split(list(range(10)), kernel.take, good=set(range(10)) - {7})
    assert set(taken) == set(range(10)) - {7}
    assert refused == {7: "no: [7]"}
    assert kernel.attempts == 2


@pytest.mark.parametrize(
    ("bad", "good"), [({1}, {0, 1, 2}), (set(range(MOST_REFUSED + 1)), set())], ids=["taken before", "too many"]
)
def test_what_is_no_items_fault_is_the_whole_nodes(bad: set[int], good: set[int]) -> None:
    with pytest.raises(KernelError, match="no: "):
        split(list(range(MOST_REFUSED + 3)) if not good else [0, 1, 2], Picky(bad).take, good=good)
