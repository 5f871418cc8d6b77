"""Which changes of a status are worth an Event.

Invariants:
- Ready speaks for all conditions (its reason is that of the first which fails), so its transitions are what is told.
- Reasons that every start and every change passes through are not told of: they would drown the others. Nor is an
  agent that falls silent, since that concerns every policy at once; the alert and the condition tell of it.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable
from typing import Final, Literal

from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core.actions import Notice
from sluice_operator.core.pools import Refusal
from sluice_operator.core.snapshot import Condition, Policy, Pool

_PASSING: Final = frozenset({Reason.PENDING, Reason.WAITING_FOR_NODES, Reason.AGENT_SILENT})


def of_policy(policy: Policy, after: Iterable[Condition]) -> tuple[Notice, ...]:
    """What to tell of a policy whose conditions become `after`."""
    changed = _transition(policy.status.conditions, after)
    if changed is None:
        return ()
    return (_notice("EgressPolicy", policy.key.namespace, policy.key.name, policy.uid, changed=changed),)


def of_pool(pool: Pool, after: Iterable[Condition], refusal: Refusal | None = None) -> tuple[Notice, ...]:
    """What to tell of a pool whose conditions become `after`; `refusal` may tell more than its condition may."""
    changed = _transition(pool.status.conditions, after)
    if changed is None:
        return ()
    full = refusal.told if refusal is not None and changed.reason == refusal.reason else ""
    return (_notice("EgressPool", "", pool.name, pool.uid, changed=changed, full=full),)


def _transition(before: Iterable[Condition], after: Iterable[Condition]) -> Condition | None:
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    for condition in after:
        if condition.type == ConditionType.READY and condition.reason not in _PASSING:
            was = known.get(condition.type)
            if was is not None and was[1] == Reason.AGENT_SILENT and condition.status == "True":
                return None
            return condition if was != (condition.status, condition.reason) else None
    return None


def _notice(kind: Literal["EgressPolicy", "EgressPool"], *names: str, changed: Condition, full: str = "") -> Notice:
    namespace, name, uid = names
    severity: Literal["Normal", "Warning"] = "Normal" if changed.status == "True" else "Warning"
    text = full or changed.message or Reason(changed.reason).meaning
    return Notice(kind, namespace, name, uid, severity, changed.reason, text)
