"""The snapshot arranged by what a plan asks of it, built once a plan.

Invariants:
- Everything here is derived, so that planning costs one pass over each kind of object and a few look-ups a policy.
- Pure: no I/O, no clock.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sluice_operator.core.snapshot import (
    ClusterNode,
    EgressIP,
    EgressNode,
    NodePolicy,
    NodeTrouble,
    PolicyKey,
    Snapshot,
)

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Index:
    """Look-ups over one snapshot.

    `working` are the nodes whose agents program policies (not being emptied), in order of their revision.
    `silent_open` are the silent nodes on which pods may start; `unheard`: of some agents it is not known whether they
    live. `pool_troubles` and `policy_troubles` are what nodes could not do for a pool or policy, by node.
    """

    claims_of: Mapping[PolicyKey, tuple[EgressIP, ...]]
    claims_in: Mapping[str, tuple[EgressIP, ...]]
    policies_of: Mapping[str, tuple[PolicyKey, ...]]
    reports: Mapping[PolicyKey, tuple[tuple[str, NodePolicy], ...]]
    listed: frozenset[PolicyKey]
    working: tuple[EgressNode, ...]
    revisions: tuple[int, ...]
    ready_gateways: Mapping[str, tuple[str, ...]]
    silent: frozenset[str]
    silent_open: frozenset[str]
    unheard: bool
    pool_troubles: Mapping[str, tuple[tuple[str, NodeTrouble], ...]]
    policy_troubles: Mapping[PolicyKey, tuple[str, ...]]

    def behind(self, revision: int) -> tuple[EgressNode, ...]:
        """The nodes whose agents have not programmed `revision` yet."""
        return self.working[: bisect_left(self.revisions, revision)]


def build(snapshot: Snapshot) -> Index:
    """Arrange a snapshot."""
    claims_of: defaultdict[PolicyKey, list[EgressIP]] = defaultdict(list)
    claims_in: defaultdict[str, list[EgressIP]] = defaultdict(list)
    for claim in sorted(snapshot.egress_ips.values(), key=lambda claim: (claim.address.version, int(claim.address))):
        claims_of[claim.policy].append(claim)
        claims_in[claim.pool].append(claim)
    policies_of: defaultdict[str, list[PolicyKey]] = defaultdict(list)
    for key in sorted(snapshot.policies):
        policies_of[snapshot.policies[key].pool].append(key)
    reports: defaultdict[PolicyKey, list[tuple[str, NodePolicy]]] = defaultdict(list)
    listed: set[PolicyKey] = set()
    for name in sorted(snapshot.nodes):
        node = snapshot.nodes[name]
        for report in node.policies:
            listed.add(report.key)
            if not node.removing:
                reports[report.key].append((name, report))
    pool_troubles: defaultdict[str, list[tuple[str, NodeTrouble]]] = defaultdict(list)
    policy_troubles: defaultdict[PolicyKey, list[str]] = defaultdict(list)
    for name in sorted(snapshot.nodes):
        for trouble in () if snapshot.nodes[name].removing else snapshot.nodes[name].troubles:
            if trouble.policy is not None:
                policy_troubles[trouble.policy].append(name)
            elif trouble.pool:
                pool_troubles[trouble.pool].append((name, trouble))
    working = sorted(
        (node for node in snapshot.nodes.values() if not node.removing), key=lambda n: (n.revision, n.name)
    )
    return Index(
        claims_of=_frozen(claims_of),
        claims_in=_frozen(claims_in),
        policies_of=_frozen(policies_of),
        reports=_frozen(reports),
        listed=frozenset(listed),
        working=tuple(working),
        revisions=tuple(node.revision for node in working),
        ready_gateways=ready_gateways(snapshot.nodes.values()),
        silent=snapshot.silent,
        silent_open=frozenset(name for name in snapshot.silent if _admits_pods(snapshot.cluster_nodes.get(name))),
        unheard=bool(snapshot.unheard),
        pool_troubles=_frozen(pool_troubles),
        policy_troubles=_frozen(policy_troubles),
    )


def _admits_pods(node: ClusterNode | None) -> bool:
    return node is not None and node.ready and not node.unschedulable


def ready_gateways(nodes: Iterable[EgressNode]) -> dict[str, tuple[str, ...]]:
    """Pool -> nodes that are its gateways and alive.

    A node says itself that it is a gateway, and a node that lost power goes on saying so. Hence the others are heard:
    a gateway that most of the nodes probing it find dead is not ready. (A majority, since the last word of a node
    that died itself may be wrong.)
    """
    heard: defaultdict[str, list[bool]] = defaultdict(list)
    candidates: defaultdict[str, list[str]] = defaultdict(list)
    for node in nodes:
        for other, alive in node.gateways_alive:
            if other != node.name:
                heard[other].append(alive)
        if not node.removing:
            for pool in node.gateway_for:
                candidates[pool].append(node.name)
    dead = {name for name, votes in heard.items() if 2 * votes.count(False) > len(votes)}
    return {pool: tuple(sorted(set(names) - dead)) for pool, names in candidates.items()}


def _frozen(lists: Mapping[Key, list[Value]]) -> dict[Key, tuple[Value, ...]]:
    return {key: tuple(values) for key, values in lists.items()}
