"""Conditions and their reasons: the words by which Sluice says how it is.

Every reason has one documented meaning; docs/reasons.md is made from this module and nothing else. Alerts and scripts
compare reasons, so a reason never gets another meaning.
Standard library only, no I/O.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ConditionType(StrEnum):
    """What a condition speaks of."""

    ACCEPTED = "Accepted"
    ASSIGNED = "Assigned"
    PROGRAMMED = "Programmed"
    READY = "Ready"
    DEGRADED = "Degraded"
    STALLED = "Stalled"

    @property
    def meaning(self) -> str:
        """What status True says."""
        return _TYPES[self]

    @property
    def abnormal(self) -> bool:
        """Whether status True is the bad news. False for most: then anything but True is."""
        return self in (ConditionType.DEGRADED, ConditionType.STALLED)


class Reason(StrEnum):
    """Why a condition is as it is."""

    PENDING = "Pending"
    ACCEPTED = "Accepted"
    ASSIGNED = "Assigned"
    PROGRAMMED = "Programmed"
    READY = "Ready"
    AS_EXPECTED = "AsExpected"
    INVALID_SPEC = "InvalidSpec"
    POOL_NOT_FOUND = "PoolNotFound"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    OVERLAPS_POOL = "OverlapsPool"
    POOL_EXHAUSTED = "PoolExhausted"
    QUOTA_EXCEEDED = "QuotaExceeded"
    ADDRESS_NOT_IN_POOL = "AddressNotInPool"
    ADDRESS_IN_USE = "AddressInUse"
    ADDRESS_TAKEN = "AddressTaken"
    ADDRESS_CHANGED = "AddressChanged"
    PORTS_EXHAUSTED = "PortsExhausted"
    WAITING_FOR_NODES = "WaitingForNodes"
    AGENT_SILENT = "AgentSilent"
    NO_GATEWAY_READY = "NoGatewayReady"
    NO_HOLDER = "NoHolder"
    RESTING = "Resting"
    GATEWAY_REJECTED = "GatewayRejected"
    GATEWAYS_MISSING = "GatewaysMissing"
    FAMILY_UNAVAILABLE = "FamilyUnavailable"
    DESTINATIONS_IN_CLUSTER = "DestinationsInCluster"
    OVERRIDDEN = "Overridden"
    IN_USE = "InUse"
    KERNEL_ERROR = "KernelError"
    NODE_TROUBLE = "NodeTrouble"
    MARKS_IN_USE = "MarksInUse"
    UNSUPPORTED_KERNEL = "UnsupportedKernel"
    REMOVED = "Removed"

    @property
    def meaning(self) -> str:
        """What it means and what to do, in a sentence or two."""
        return _MEANINGS[self]

    @property
    def lasting(self) -> bool:
        """Whether waiting is no use: what a person wrote, or did not write, is in the way (Stalled)."""
        return self in _LASTING


_MEANINGS = {
    Reason.PENDING: "Nothing has been decided yet. If it stays, see whether the operator runs and what it logs.",
    Reason.ACCEPTED: "The spec is valid and may be acted on.",
    Reason.ASSIGNED: "Every wanted family has an egress IP.",
    Reason.PROGRAMMED: "Every node concerned has this generation in its kernel.",
    Reason.READY: "Traffic leaves as the spec says.",
    Reason.AS_EXPECTED: "There is nothing to complain of: what Degraded and Stalled say when they are False.",
    Reason.INVALID_SPEC: "The spec contradicts itself; the message names the field and what to write instead.",
    Reason.POOL_NOT_FOUND: "spec.pool names a pool that does not exist. Create it or correct the name.",
    Reason.NAMESPACE_NOT_ALLOWED: "The pool's spec.namespaces does not select the policy's namespace.",
    Reason.OVERLAPS_POOL: "An older pool has some of the same addresses. Remove them from one of the two.",
    Reason.QUOTA_EXCEEDED: "The namespace has as many addresses as the pool's spec.quota lets one namespace have, "
    "resting ones included. Delete policies, or have the quota raised.",
    Reason.POOL_EXHAUSTED: "The pool has no free address of a wanted family. Add addresses or remove policies. When "
    "resting addresses are in the way, the message says when the next comes free.",
    Reason.ADDRESS_NOT_IN_POOL: "A requested address is not in the pool. Request another, or add it to the pool.",
    Reason.ADDRESS_IN_USE: "A requested address belongs to another policy, rests for one that had it a while ago, "
    "or is reserved for another.",
    Reason.ADDRESS_TAKEN: "Something that is not Sluice's has an address of the pool: a node, a Service, the API "
    "server, a gateway, a pod, a machine on the link. No policy gets it. Exclude it from the pool, or free it.",
    Reason.ADDRESS_CHANGED: "The policy leaves with another address than a while ago; the message names both. Whoever "
    "admits its traffic by the address must admit the new one. The old one rests for this policy.",
    Reason.PORTS_EXHAUSTED: "There are more nodes than port slices; nodes that the message names have none. "
    "Use a pool with smaller slices (spec.portsPerSlice).",
    Reason.WAITING_FOR_NODES: "Nodes that the message names have not acknowledged this generation yet.",
    Reason.AGENT_SILENT: "Agents of nodes that the message names give no sign of life (or were never there), so what "
    "is true on these nodes is not known. See the sluice-agent pods there.",
    Reason.NO_GATEWAY_READY: "No gateway of the pool is ready, so selected traffic is dropped. "
    "The pool's conditions say why, and where to look.",
    Reason.NO_HOLDER: "No live gateway says that it answers for the address, so what is sent to it does not arrive. It "
    "lasts a moment when an address is new; after that see the agents of the pool's gateways.",
    Reason.RESTING: "No policy uses the address at the moment. It is kept for the one that had it, for as long as "
    "spec.quarantine of the pool says.",
    Reason.GATEWAY_REJECTED: "The API server refuses a Deployment, Service or PodDisruptionBudget of the pool; "
    "the message has its words. Correct spec.gateways, or what refuses it. It is tried again from time to time.",
    Reason.GATEWAYS_MISSING: "Fewer gateways are ready than spec.gateways.replicas asks for: traffic leaves, with less "
    "in reserve. See the pods of the pool's gateway Deployment.",
    Reason.FAMILY_UNAVAILABLE: "No Node of the cluster has an address or a pod range of this family, so no packet can "
    "ever use these addresses.",
    Reason.DESTINATIONS_IN_CLUSTER: "Every destination of the policy is inside the cluster, where traffic goes its "
    "usual way: the policy changes nothing.",
    Reason.OVERRIDDEN: "Some pods are selected by a policy that takes precedence: a higher priority, or older.",
    Reason.IN_USE: "The pool is being deleted and policies still use it; the message says how to list them.",
    Reason.KERNEL_ERROR: "The node's agent could not program the kernel; the message is the kernel's.",
    Reason.NODE_TROUBLE: "A node could not do what this pool or policy needs, and did everything else; the message "
    "names node and cause, and EgressNode.status.troubles lists them. It is tried again until it works.",
    Reason.MARKS_IN_USE: "Other programs on the node test or set packet mark bits that Sluice needs, so the agent "
    "programs nothing there; the message names their rules. Pods of that node leave as without a policy.",
    Reason.UNSUPPORTED_KERNEL: "The node's kernel lacks something that Sluice needs, so the agent programs nothing "
    "there; the message says what. Pods of that node leave as without a policy.",
    Reason.REMOVED: "Sluice was taken out: of the node, as asked by an annotation, or of the cluster, by an uninstall.",
}

_TYPES = {
    ConditionType.ACCEPTED: "The spec is valid and may be acted on.",
    ConditionType.ASSIGNED: "The policy has an egress IP of every family it wants, and ports of it on every node.",
    ConditionType.PROGRAMMED: "Every node concerned has acknowledged that its kernel does what the resource says.",
    ConditionType.READY: "All of the above, and traffic can leave.",
    ConditionType.DEGRADED: "Less is there than was asked for, though traffic may leave. True is the bad news.",
    ConditionType.STALLED: "It will not get better by itself: somebody has to change something. True is the bad news.",
}

_LASTING = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.POOL_NOT_FOUND,
        Reason.NAMESPACE_NOT_ALLOWED,
        Reason.OVERLAPS_POOL,
        Reason.POOL_EXHAUSTED,
        Reason.QUOTA_EXCEEDED,
        Reason.ADDRESS_NOT_IN_POOL,
        Reason.ADDRESS_IN_USE,
        Reason.ADDRESS_TAKEN,
        Reason.PORTS_EXHAUSTED,
        Reason.GATEWAY_REJECTED,
    }
)


@dataclass(frozen=True, slots=True)
class ConditionReasons:
    """The reasons that a condition of a kind may have: when all is well (True, or False if it is abnormal), and else.

    A kind's rows are in the order in which its conditions are written, and all of them are always there: before the
    writer has looked at the object they are Unknown.
    """

    kind: str
    type: ConditionType
    good: tuple[Reason, ...]
    bad: tuple[Reason, ...]


_POOL_ACCEPTED = (Reason.PENDING, Reason.INVALID_SPEC, Reason.OVERLAPS_POOL, Reason.ADDRESS_TAKEN)
_POLICY_ACCEPTED = (Reason.PENDING, Reason.INVALID_SPEC, Reason.POOL_NOT_FOUND, Reason.NAMESPACE_NOT_ALLOWED)
_ASSIGNED = (
    Reason.PENDING,
    Reason.POOL_EXHAUSTED,
    Reason.QUOTA_EXCEEDED,
    Reason.ADDRESS_NOT_IN_POOL,
    Reason.ADDRESS_IN_USE,
    Reason.ADDRESS_TAKEN,
    Reason.PORTS_EXHAUSTED,
)

CONDITIONS: Final = (
    ConditionReasons("EgressPool", ConditionType.ACCEPTED, good=(Reason.ACCEPTED,), bad=_POOL_ACCEPTED),
    ConditionReasons(
        "EgressPool",
        ConditionType.READY,
        good=(Reason.READY,),
        bad=(
            *_POOL_ACCEPTED,
            Reason.GATEWAY_REJECTED,
            Reason.NODE_TROUBLE,
            Reason.NO_GATEWAY_READY,
            Reason.IN_USE,
            Reason.REMOVED,
        ),
    ),
    ConditionReasons(
        "EgressPool",
        ConditionType.DEGRADED,
        good=(Reason.AS_EXPECTED,),
        bad=(
            Reason.PENDING,
            Reason.NODE_TROUBLE,
            Reason.GATEWAY_REJECTED,
            Reason.GATEWAYS_MISSING,
            Reason.FAMILY_UNAVAILABLE,
            Reason.AGENT_SILENT,
            Reason.REMOVED,
        ),
    ),
    ConditionReasons(
        "EgressPool",
        ConditionType.STALLED,
        good=(Reason.AS_EXPECTED,),
        bad=(*_POOL_ACCEPTED, Reason.GATEWAY_REJECTED, Reason.REMOVED),
    ),
    ConditionReasons("EgressPolicy", ConditionType.ACCEPTED, good=(Reason.ACCEPTED,), bad=_POLICY_ACCEPTED),
    ConditionReasons(
        "EgressPolicy", ConditionType.ASSIGNED, good=(Reason.ASSIGNED, Reason.ADDRESS_CHANGED), bad=_ASSIGNED
    ),
    ConditionReasons(
        "EgressPolicy",
        ConditionType.PROGRAMMED,
        good=(Reason.PROGRAMMED,),
        bad=(Reason.PENDING, Reason.WAITING_FOR_NODES, Reason.AGENT_SILENT, Reason.REMOVED),
    ),
    ConditionReasons(
        "EgressPolicy",
        ConditionType.READY,
        good=(Reason.READY, Reason.OVERRIDDEN),
        bad=(
            *_POLICY_ACCEPTED,
            *_ASSIGNED[1:],
            Reason.WAITING_FOR_NODES,
            Reason.AGENT_SILENT,
            Reason.NO_GATEWAY_READY,
            Reason.REMOVED,
        ),
    ),
    ConditionReasons(
        "EgressPolicy",
        ConditionType.DEGRADED,
        good=(Reason.AS_EXPECTED,),
        bad=(
            Reason.PENDING,
            Reason.ADDRESS_TAKEN,
            Reason.FAMILY_UNAVAILABLE,
            Reason.DESTINATIONS_IN_CLUSTER,
            Reason.AGENT_SILENT,
            Reason.NODE_TROUBLE,
            Reason.REMOVED,
        ),
    ),
    ConditionReasons(
        "EgressPolicy",
        ConditionType.STALLED,
        good=(Reason.AS_EXPECTED,),
        bad=(*_POLICY_ACCEPTED, *_ASSIGNED[1:], Reason.REMOVED),
    ),
    ConditionReasons(
        "EgressIP",
        ConditionType.READY,
        good=(Reason.READY,),
        bad=(
            Reason.PENDING,
            Reason.RESTING,
            Reason.WAITING_FOR_NODES,
            Reason.NO_GATEWAY_READY,
            Reason.NO_HOLDER,
            Reason.AGENT_SILENT,
        ),
    ),
    ConditionReasons(
        "EgressNode",
        ConditionType.PROGRAMMED,
        good=(Reason.PROGRAMMED,),
        bad=(
            Reason.PENDING,
            Reason.KERNEL_ERROR,
            Reason.NODE_TROUBLE,
            Reason.MARKS_IN_USE,
            Reason.UNSUPPORTED_KERNEL,
            Reason.REMOVED,
        ),
    ),
)
