"""What is true of pools, policies and egress IPs once Sluice is uninstalled: the last thing that is written to them.

Nobody writes their status any more, so what it says must stay true: nothing leaves with an egress IP. What was decided
(addresses, slices, ids, Accepted, Assigned) stays, and a new installation goes on with it.

Invariants:
- A patch (RFC 7396) is made from the document as it is: a condition whose status does not change keeps its time.
- A document that says so already needs no patch.
- Pure: no I/O; the time is an argument.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core.words import names

AFTERWARDS: Final = {
    ConditionType.PROGRAMMED: "False",
    ConditionType.READY: "False",
    ConditionType.DEGRADED: "True",
    ConditionType.STALLED: "True",
}
"""Conditions that an uninstall makes untrue, and what they are then; the others are about what was decided."""

Document = Mapping[str, Any]
Patch = dict[str, Any]


def message(unclean: Sequence[str]) -> str:
    """What the conditions say. `unclean`: nodes that have not taken Sluice's rules out."""
    if not unclean:
        return "Sluice is not installed: pods leave with the addresses of their nodes"
    return (
        f"Sluice is not installed: pods leave with the addresses of their nodes, but on {names(unclean)}, where its "
        "rules still are, they are dropped; restarting the node takes the rules away"
    )


def policy_patch(document: Document, *, unclean: Sequence[str], now: str) -> Patch | None:
    """The patch of an EgressPolicy's status; None when it says so already."""
    conditions = _conditions(document, unclean, now)
    if conditions is None:
        return None
    return {
        "pods": 0,
        "nodes": {"concerned": 0, "programmed": 0},
        "display": {"nodes": "0/0", "reason": str(Reason.REMOVED)},
        "conditions": conditions,
    }


def pool_patch(document: Document, *, unclean: Sequence[str], now: str) -> Patch | None:
    """The patch of an EgressPool's status; None when it says so already."""
    conditions = _conditions(document, unclean, now)
    if conditions is None:
        return None
    desired = ((document.get("status") or {}).get("gateways") or {}).get("desired", 0)
    return {
        "gateways": {"ready": 0, "nodes": []},
        "proxy": None,
        "display": {"gateways": f"0/{desired}", "reason": str(Reason.REMOVED)},
        "conditions": conditions,
    }


def claim_patch(document: Document) -> Patch | None:
    """The patch of an EgressIP's status: no gateway answers for the address. None when none does already."""
    return {"holder": None} if (document.get("status") or {}).get("holder") else None


def _conditions(document: Document, unclean: Sequence[str], now: str) -> list[Patch] | None:
    before: list[Patch] = (document.get("status") or {}).get("conditions") or []
    text = message(unclean)
    after = [
        {
            **old,
            "status": status,
            "reason": str(Reason.REMOVED),
            "message": text,
            "lastTransitionTime": old.get("lastTransitionTime", now) if old.get("status") == status else now,
        }
        if (status := AFTERWARDS.get(old["type"]))
        else old
        for old in before
    ]
    return after if after != before else None
