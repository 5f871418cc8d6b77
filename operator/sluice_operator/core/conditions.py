"""Verdicts, and how they become conditions.

Invariants:
- `lastTransitionTime` changes exactly when a condition's status changes.
- Pure: no I/O; the time is an argument.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core.snapshot import Condition

LONGEST_MESSAGE: Final = 4096
"""What the schema of a condition admits."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition without its history. `passing`: it ends by itself, though its reason mostly does not."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str
    passing: bool = False

    @property
    def holds(self) -> bool:
        """Whether the status is True."""
        return self.status == "True"

    @property
    def well(self) -> bool:
        """Whether it says that all is well."""
        return self.status == ("False" if self.type.abnormal else "True")


def conditions(
    previous: Iterable[Condition], verdicts: Iterable[Verdict], *, generation: int, now: str
) -> tuple[Condition, ...]:
    """Verdicts as conditions; one whose status is what it was keeps its transition time."""
    before = {condition.type: condition for condition in previous}
    merged = []
    for verdict in verdicts:
        old = before.get(verdict.type)
        unchanged = old is not None and old.status == verdict.status and old.last_transition_time
        merged.append(
            Condition(
                type=str(verdict.type),
                status=verdict.status,
                reason=str(verdict.reason),
                message=verdict.message[:LONGEST_MESSAGE],
                observed_generation=generation,
                last_transition_time=old.last_transition_time if old is not None and unchanged else now,
            )
        )
    return tuple(merged)
