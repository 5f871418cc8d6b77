"""What a silent agent means for the policies and pools it ought to serve, in words.

Invariants:
- Unknown, not False: what the node's kernel was told stays in force there, and nobody says whether it is still right.
- A silent node on which pods may start concerns every policy: a new pod there leaves as without one, and the operator
  does not see pods. A silent node on which none may start concerns the policies with pods there.
- While it is not known of every agent whether it lives (the operator has just started), what was said of silence stays.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable

from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core.conditions import Verdict
from sluice_operator.core.degraded import Shortfall
from sluice_operator.core.index import Index
from sluice_operator.core.snapshot import NodePolicy, PolicyStatus
from sluice_operator.core.words import names


def of_policy(
    old: PolicyStatus, index: Index, *, reports: Iterable[tuple[str, NodePolicy]], waiting: Iterable[str]
) -> Shortfall | None:
    """Why it is not known whether a policy is programmed: agents that are silent. None when all speak that must.

    `reports` are what agents said last of this policy, `waiting` the nodes that have not acknowledged it.
    """
    if index.unheard:
        before = next((entry for entry in old.conditions if entry.type == ConditionType.PROGRAMMED), None)
        if before is not None and before.reason == Reason.AGENT_SILENT:
            return Shortfall(Reason.AGENT_SILENT, before.message)
    if not index.silent:
        return None
    concerned = {name for name, report in reports if report.pods or report.overridden}
    silent = index.silent_open | (index.silent & concerned.union(waiting))
    if not silent:
        return None
    return Shortfall(
        Reason.AGENT_SILENT,
        f"no sign of life from the agent of {names(sorted(silent))}: what the kernel there was told last stays in "
        "force, but pods that start or change there are not noticed, and may leave as without this policy; see the "
        "sluice-agent pod there, or delete the Node if it is gone for good",
    )


def unknown(shortfall: Shortfall) -> Verdict:
    """The Programmed condition while agents are silent."""
    return Verdict(ConditionType.PROGRAMMED, "Unknown", shortfall.reason, shortfall.message)


def of_gateways(gateways: Iterable[str], index: Index) -> Iterable[Shortfall]:
    """What a pool lacks whose gateways answer probes while the agents of their nodes are silent."""
    silent = sorted(index.silent.intersection(gateways))
    if silent:
        yield Shortfall(
            Reason.AGENT_SILENT,
            f"no sign of life from the agent of gateway {names(silent)}: it answers probes and carries traffic, but "
            "follows no change of policies, addresses or holders; see the sluice-agent pod there",
        )
