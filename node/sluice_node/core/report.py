"""What the agent says of its node: the status of its EgressNode.

Rules:
- The revision is the highest one of a policy up to which *all* is programmed. A policy whose claim, or whose slice for
  this node, has not been seen yet holds it back: its packets could not leave. That no slice is left for this node does
  not hold it back (the operator says PortsExhausted).
- It never decreases while the agent runs, and does not advance when the kernel refused.
- A policy is listed while it selects a pod here, whether or not it could be programmed: its egress IPs are in use. So
  is one that selects none any more, while the kernel may still hold it: before that its addresses must not be freed.
- What is wrong with one pool or policy is said in `troubles`, and holds back nothing else.
- Round-trip times are for people: a new one alone is not worth a write unless it doubled or halved.
Pure: no I/O, no clock.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sluice_api.names import OVERRIDDEN_BY_MAX, TUNNEL_PORT
from sluice_api.reasons import ConditionType, Reason
from sluice_api.slices import all_slices
from sluice_node.core.liveness import Sight
from sluice_node.core.objects import EgressIP, Key, Node, Policy, Pool
from sluice_node.core.resolve import gateway_for, tunnel_mac
from sluice_node.core.select import Selection
from sluice_node.core.snapshot import Snapshot
from sluice_node.core.troubles import Trouble, documents

_RTT_NOISE: Final = 1000
"""Microseconds below which no difference of round trips is worth a write."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The Programmed condition, without the time since when."""

    programmed: bool
    reason: Reason
    message: str

    @property
    def ready(self) -> bool:
        """Whether the agent does its work: what is wrong with one pool or policy is not the agent's fault."""
        return self.programmed or self.reason is Reason.NODE_TROUBLE


@dataclass(frozen=True, slots=True)
class Account:
    """What was programmed last. `generations` are those of the policies that the kernel has; `snapshot` and `selection`
    may be newer when the kernel refused, and then `gateway_for` is what still holds in both."""

    snapshot: Snapshot
    selection: Selection
    generations: Mapping[Key, int]
    gateway_for: frozenset[str]
    revision: int
    troubles: tuple[Trouble, ...] = ()


def acknowledged(snapshot: Snapshot, *, before: int, beside: Collection[Key] = ()) -> int:
    """The revision to report once `snapshot` is programmed; `before` is the one reported last. Policies that are said
    not to be programmed by themselves (`beside`) hold nothing back."""
    # A refused claim holds nothing back: it is said by itself, and must not keep others' policies waiting.
    claims = {claim.address: claim for claim in snapshot.egress_ips}
    waiting = [
        policy.revision
        for policy in snapshot.policies
        if policy.key not in beside
        and not all(_at_hand(policy, claims.get(address), snapshot) for address in policy.addresses)
    ]
    limit = min(waiting, default=None)
    return max(before, *(p.revision for p in snapshot.policies if limit is None or p.revision < limit), 0)


def _at_hand(policy: Policy, claim: EgressIP | None, snapshot: Snapshot) -> bool:
    if claim is None or claim.resting or claim.policy != policy.key:
        return False
    pool = snapshot.pools.get(claim.pool)
    return any(piece.node == snapshot.node.name for piece in claim.slices) or pool is None or _is_full(claim, pool)


def _is_full(claim: EgressIP, pool: Pool) -> bool:
    return len(claim.slices) >= sum(1 for _ in all_slices(pool.slice_size))


def programmed_account(
    snapshot: Snapshot, selection: Selection, *, before: int, troubles: tuple[Trouble, ...] = ()
) -> Account:
    """The account of a snapshot that the kernel took, but for what is in `troubles`."""
    beside = {trouble.policy for trouble in troubles if trouble.policy is not None}
    unanswered = {trouble.pool for trouble in troubles if trouble.unanswered}
    return Account(
        snapshot=snapshot,
        selection=selection,
        generations={policy.key: policy.generation for policy in snapshot.policies if policy.key not in beside},
        gateway_for=gateway_for(snapshot) - unanswered,
        revision=acknowledged(snapshot, before=before, beside=beside),
        troubles=troubles,
    )


def refused_account(snapshot: Snapshot, selection: Selection, *, last: Account | None) -> Account:
    """The account of a snapshot that the kernel refused, `last` being what it took before (None: nothing yet, so that
    what it holds is what the process before this one listed)."""
    if last is None:
        listed = {key for node in snapshot.egress_nodes for key in node.listed}
        before = Selection(pods=dict.fromkeys(listed, 0))
    else:
        before = last.selection
    return Account(
        snapshot=snapshot,
        selection=replace(selection, pods={**dict.fromkeys(before.pods, 0), **selection.pods}),
        generations=last.generations if last else {},
        gateway_for=last.gateway_for & gateway_for(snapshot) if last else frozenset(),
        revision=last.revision if last else 0,
        troubles=last.troubles if last else (),
    )


def node_status(account: Account, sights: Mapping[str, Sight], condition: Mapping[str, Any]) -> dict[str, Any]:
    """EgressNode.status. `sights` are the probed gateways by node; `condition` is from `condition`."""
    selection = account.selection
    listed = sorted(selection.pods.keys() | selection.overridden.keys())
    return _ends(account.snapshot.node) | {
        "tunnel": {
            "address": str(account.snapshot.node.addresses[0]),
            "port": TUNNEL_PORT,
            "mac": tunnel_mac(account.snapshot.node.name),
        },
        "revision": account.revision,
        "gatewayFor": sorted(account.gateway_for),
        "policies": [
            {
                "namespace": key.namespace,
                "name": key.name,
                "generation": account.generations.get(key, 0),
                "pods": selection.pods.get(key, 0),
                "overridden": selection.overridden.get(key, 0),
            }
            | _overridden_by(selection.winners.get(key, frozenset()))
            for key in listed
        ],
        "gateways": [
            {"node": node, "alive": sight.alive, "rttMicroseconds": round(sight.rtt * 1e6)}
            for node, sight in sorted(sights.items())
        ],
        "troubles": documents(account.troubles),
        "conditions": [dict(condition)],
    }


def _overridden_by(winners: frozenset[Key]) -> dict[str, Any]:
    """Names alone: policies select pods of their own namespace only, so the winner is of the same one."""
    return {"overriddenBy": sorted(key.name for key in winners)[:OVERRIDDEN_BY_MAX]} if winners else {}


def bare_status(node: Node, *, revision: int, condition: Mapping[str, Any]) -> dict[str, Any]:
    """EgressNode.status of a node on which nothing is programmed: no tunnel end, no policies, no gateway."""
    return _ends(node) | {"revision": revision, "conditions": [dict(condition)]}


def _ends(node: Node) -> dict[str, Any]:
    return {
        "addresses": [str(address) for address in node.addresses],
        "podCIDRs": [str(network) for network in node.pod_cidrs],
    }


def condition(verdict: Verdict, *, last: Mapping[str, Any] | None, now: str) -> dict[str, Any]:
    """The Programmed condition; `last` is the one written before, `now` the time in RFC 3339."""
    status: Literal["True", "False"] = "True" if verdict.programmed else "False"
    since = last["lastTransitionTime"] if last is not None and last["status"] == status else now
    return {
        "type": ConditionType.PROGRAMMED.value,
        "status": status,
        "reason": verdict.reason.value,
        "message": verdict.message,
        "lastTransitionTime": since,
    }


def stamped(status: Mapping[str, Any], *, generation: int) -> dict[str, Any]:
    """`status` as one that speaks of this generation of the EgressNode, in every condition too.

    `kubectl wait` and kstatus take a condition that speaks of an older generation for one that is not decided yet.
    """
    said = [{**entry, "observedGeneration": generation} for entry in status["conditions"]]
    return {**status, "observedGeneration": generation, "conditions": said}


def calm(status: dict[str, Any], *, written: Mapping[str, Any] | None) -> dict[str, Any]:
    """`status` with the round-trip times that were written before, where they are still about right."""
    told = {entry["node"]: entry["rttMicroseconds"] for entry in (written or {}).get("gateways", ())}
    gateways = []
    for entry in status.get("gateways", ()):
        old, new = told.get(entry["node"]), entry["rttMicroseconds"]
        same = old is not None and (abs(new - old) <= _RTT_NOISE or old / 2 <= new <= old * 2)
        gateways.append({**entry, "rttMicroseconds": old if same else new})
    return status | {"gateways": gateways} if gateways else status
