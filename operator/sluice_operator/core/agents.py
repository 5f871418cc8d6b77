"""Which nodes ought to have an agent, and whose agent is silent.

Invariants:
- Time is what the operator itself spent watching, never a clock of a node: a Lease's own times are compared with each
  other only. Whoever was not heard before is neither alive nor silent until it was watched for SILENCE seconds.
- A gap in the watching (an outage of the API server, an operator that stood still) starts everybody's time anew.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from sluice_api.names import agent_lease
from sluice_api.timers import SILENCE, SILENCE_LOOK
from sluice_operator.core.snapshot import ClusterNode, EgressNode, Selector, Taint

LONGEST_GAP: Final = 2 * SILENCE_LOOK
"""Seconds between two looks beyond which nothing is concluded from what was not heard meanwhile."""

_TOLERATED: Final = frozenset(
    {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.kubernetes.io/unschedulable",
        "node.kubernetes.io/network-unavailable",
    }
)
"""Taints that the DaemonSet controller tolerates on behalf of every pod on the host network (Kubernetes documentation,
"DaemonSet: Taints and tolerations")."""


@dataclass(frozen=True, slots=True)
class Toleration:
    """One toleration of a pod; `key` empty tolerates every key, `effect` empty every effect."""

    key: str = ""
    value: str | None = None
    effect: str = ""

    def covers(self, taint: Taint) -> bool:
        """Whether it tolerates a taint; `value` None is operator Exists."""
        return (
            self.key in ("", taint.key)
            and (self.value is None or self.value == taint.value)
            and self.effect in ("", taint.effect)
        )


@dataclass(frozen=True, slots=True)
class AgentSet:
    """What the agents' DaemonSet says of where it runs. `affinity` are the terms of its required node affinity, of
    which one must hold; None when there are none."""

    selector: Selector
    tolerations: tuple[Toleration, ...] = ()
    affinity: tuple[Selector, ...] | None = None

    def admits(self, node: ClusterNode) -> bool:
        """Whether the DaemonSet controller runs an agent there."""
        if not self.selector.matches(node.labels):
            return False
        if self.affinity is not None and not any(term.matches(node.labels) for term in self.affinity):
            return False
        return all(
            taint.effect == "PreferNoSchedule"
            or taint.key in _TOLERATED
            or any(toleration.covers(taint) for toleration in self.tolerations)
            for taint in node.taints
        )


def expected(
    agents: AgentSet | None, nodes: Mapping[str, ClusterNode], reports: Mapping[str, EgressNode]
) -> frozenset[str]:
    """The nodes that ought to have an agent: those that the DaemonSet admits, and those whose agent has reported.

    A node that is being emptied of Sluice is not one of them, nor one whose Node is gone. Without a DaemonSet
    (`agents` None) only those that have reported are known.
    """
    return frozenset(
        name
        for name, node in nodes.items()
        if not (name in reports and reports[name].removing)
        and (name in reports or (agents is not None and agents.admits(node)))
    )


class Voice(Enum):
    """What is known of an agent."""

    UNHEARD = "unheard"
    HEARD = "heard"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Presence:
    """An agent as it was last heard: its latest renewal (None: there is no Lease) and for how long it has been quiet,
    in seconds of watching."""

    renewal: str | None
    quiet: float = 0.0
    voice: Voice = Voice.UNHEARD


def listen(
    before: Mapping[str, Presence], wanted: Iterable[str], renewals: Mapping[str, str], *, elapsed: float
) -> dict[str, Presence]:
    """What is known after one more look: `renewals` are the latest ones by the name of the Lease, `elapsed` the
    seconds since the look before."""
    return {node: _heard(before.get(node), renewals.get(agent_lease(node)), elapsed=elapsed) for node in sorted(wanted)}


def _heard(known: Presence | None, renewal: str | None, *, elapsed: float) -> Presence:
    if known is None:
        return Presence(renewal)
    if renewal is not None and renewal != known.renewal:
        return Presence(renewal, voice=Voice.HEARD)
    if known.voice is Voice.SILENT:
        return known
    quiet = known.quiet + elapsed if elapsed <= LONGEST_GAP else 0.0
    return replace(known, quiet=quiet, voice=Voice.SILENT if quiet >= SILENCE else known.voice)


def having(voice: Voice, presences: Mapping[str, Presence]) -> frozenset[str]:
    """The nodes whose agents have this voice."""
    return frozenset(node for node, presence in presences.items() if presence.voice is voice)
