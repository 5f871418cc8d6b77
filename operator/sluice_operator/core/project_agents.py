"""The agents' DaemonSet and Leases -> what is concluded from them.

Invariants:
- Total, like `project`: what cannot be read is as if it were not there. A term of an affinity that says what is not
  understood here admits no node, since a node that is expected wrongly would be called silent for ever.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sluice_operator.core.agents import AgentSet, Toleration
from sluice_operator.core.project import selector
from sluice_operator.core.snapshot import Expression, Selector

Document = Mapping[str, Any]

_NEVER: Final = Selector(expressions=(Expression("", "never"),))


def agent_set(document: Document) -> AgentSet:
    """Where a DaemonSet runs."""
    pod = _mapping(_mapping(_mapping(document.get("spec")).get("template")).get("spec"))
    return AgentSet(
        selector=selector({"matchLabels": pod.get("nodeSelector") or {}}),
        tolerations=tuple(toleration(_mapping(entry)) for entry in pod.get("tolerations") or ()),
        affinity=_affinity(_mapping(_mapping(pod.get("affinity")).get("nodeAffinity"))),
    )


def renewals(leases: Iterable[Document]) -> dict[str, str]:
    """Lease -> when it was renewed last, by the clock of whoever renewed it: only good to see that it changes."""
    return {
        lease["metadata"]["name"]: str(renewed)
        for lease in leases
        if (renewed := _mapping(lease.get("spec")).get("renewTime"))
    }


def toleration(entry: Document) -> Toleration:
    exists = entry.get("operator") == "Exists"
    return Toleration(
        key=str(entry.get("key") or ""),
        value=None if exists else str(entry.get("value") or ""),
        effect=str(entry.get("effect") or ""),
    )


def _affinity(node_affinity: Document) -> tuple[Selector, ...] | None:
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return None
    return tuple(_term(_mapping(entry)) for entry in _mapping(required).get("nodeSelectorTerms") or ())


def _term(entry: Document) -> Selector:
    if entry.get("matchFields") or not entry.get("matchExpressions"):
        return _NEVER
    return selector({"matchExpressions": entry["matchExpressions"]})


def _mapping(value: object) -> Document:
    return value if isinstance(value, Mapping) else {}
