"""Decisions -> documents of the API server.

Pure, and the inverse of `project`: what is written here and read there compares equal, or the operator would write
for ever.
"""

from typing import Any

from sluice_api.names import API_VERSION, LABEL_POLICY_NAME, LABEL_POLICY_NAMESPACE, LABEL_POOL
from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core.actions import Claim
from sluice_operator.core.snapshot import Condition, FamilyCount, PolicyStatus, PoolStatus, Slice

Document = dict[str, Any]


def claim(action: Claim) -> Document:
    """The EgressIP to create."""
    labels = {LABEL_POOL: action.pool, LABEL_POLICY_NAMESPACE: action.policy.namespace}
    if len(action.policy.name) <= 63:  # a label's value is shorter than an object's name may be
        labels[LABEL_POLICY_NAME] = action.policy.name
    return {
        "apiVersion": API_VERSION,
        "kind": "EgressIP",
        "metadata": {"name": action.name, "labels": labels},
        "spec": {
            "address": str(action.address),
            "pool": action.pool,
            "policy": {
                "namespace": action.policy.namespace,
                "name": action.policy.name,
                "uid": action.policy_uid,
            },
            "claimed": action.claimed,
        },
    }


def claim_status(
    slices: tuple[Slice, ...],
    *,
    resting_since: str = "",
    conditions: tuple[Condition, ...] = (),
    generation: int = 1,
) -> Document:
    """The operator's half of an EgressIP's status; a null takes a field away.

    The holder is the agents' to write, but nobody holds an address that rests.
    """
    return {
        "slices": [_slice(entry) for entry in slices],
        "nodes": sum(1 for entry in slices if not entry.vanished),
        "restingSince": resting_since or None,
        "observedGeneration": generation,
        "conditions": [_condition(condition) for condition in conditions],
    } | ({"holder": None} if resting_since else {})


def _slice(entry: Slice) -> Document:
    document = {"ports": f"{entry.first}-{entry.last}", "node": entry.node}
    return document | {"vanishedSince": entry.vanished} if entry.vanished else document


def policy_status(status: PolicyStatus) -> Document:
    """An EgressPolicy's status; a null takes a field away."""
    return {
        "observedGeneration": status.observed_generation,
        "id": status.id,
        "revision": status.revision,
        "addresses": [str(address) for address in status.addresses],
        "pods": status.pods,
        "nodes": {"concerned": status.nodes_concerned, "programmed": status.nodes_programmed},
        "display": {
            "addresses": ",".join(map(str, status.addresses)),
            "nodes": f"{status.nodes_programmed}/{status.nodes_concerned}",
            "reason": _shown_reason(status.conditions),
        },
        "conditions": [_condition(condition) for condition in status.conditions],
    }


def pool_status(status: PoolStatus) -> Document:
    """An EgressPool's status; a null takes a field away."""
    return {
        "observedGeneration": status.observed_generation,
        "ipv4": _family_count(status.ipv4),
        "ipv6": _family_count(status.ipv6),
        "gateways": {
            "desired": status.gateways_desired,
            "ready": status.gateways_ready,
            "nodes": list(status.gateway_nodes),
        },
        "policies": status.policies,
        "proxy": status.proxy or None,
        "proxyPort": status.proxy_port,
        "display": {
            "gateways": f"{status.gateways_ready}/{status.gateways_desired}",
            "ipv4": f"{status.ipv4.assigned}/{status.ipv4.total}",
            "ipv6": f"{status.ipv6.assigned}/{status.ipv6.total}",
            "free": _room(status),
            "namespaces": status.namespaces,
            "reason": _shown_reason(status.conditions),
        },
        "conditions": [_condition(condition) for condition in status.conditions],
    }


def _room(status: PoolStatus) -> str:
    """The FREE column of kubectl: of each family that the pool has, how many addresses it can still give."""
    families = (("IPv4", status.ipv4), ("IPv6", status.ipv6))
    return ", ".join(f"{count.free} {name}" for name, count in families if count.total)


def _shown_reason(conditions: tuple[Condition, ...]) -> str:
    """The REASON column of kubectl: that of Ready, or else of what is degraded; empty when there is nothing to say."""
    found = {entry.type: entry for entry in conditions}
    ready, degraded = found.get(ConditionType.READY), found.get(ConditionType.DEGRADED)
    if ready is not None and ready.reason != Reason.READY:
        return ready.reason
    return degraded.reason if degraded is not None and degraded.status == "True" else ""


def _condition(condition: Condition) -> Document:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": condition.last_transition_time,
    }


def _family_count(count: FamilyCount) -> Document:
    return {
        "total": count.total,
        "assigned": count.assigned,
        "resting": count.resting,
        "reserved": count.reserved,
        "free": count.free,
        "lastAssigned": None if count.last_assigned is None else str(count.last_assigned),
    }
