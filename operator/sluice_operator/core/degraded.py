"""Degraded and Stalled: what is less than was asked for, and what will not get better by itself.

Invariants:
- Both are abnormal: True is the bad news, and with nothing to complain of they are False with reason AsExpected.
- Degraded is about this very object: what is wrong with a pool is said at the pool, not at each of its policies.
- Stalled only repeats what another condition says, for programs that wait (kstatus, Flux, Argo CD).
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core.conditions import Verdict


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One thing that is less than was asked for, in words that name object, value and remedy."""

    reason: Reason
    message: str


def degraded(shortfalls: Iterable[Shortfall]) -> Verdict:
    """The Degraded condition: the reason is the first one's, the message tells of all."""
    found = tuple(shortfalls)
    if not found:
        return Verdict(ConditionType.DEGRADED, "False", Reason.AS_EXPECTED, "")
    return Verdict(ConditionType.DEGRADED, "True", found[0].reason, "; ".join(entry.message for entry in found))


def stalled(verdicts: Iterable[Verdict]) -> Verdict:
    """The Stalled condition: that of the first other condition which fails for a lasting reason."""
    for verdict in verdicts:
        if not verdict.well and verdict.reason.lasting and not verdict.passing:
            return Verdict(ConditionType.STALLED, "True", verdict.reason, verdict.message)
    return Verdict(ConditionType.STALLED, "False", Reason.AS_EXPECTED, "")
