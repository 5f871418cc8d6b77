"""What the kernel did not take of a DesiredNode while it took the rest, and what a node is without it.

Invariants: pure; a policy that the kernel refuses is not forgotten: nothing of its pods may leave the cluster.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sluice_node.core.desired import Address, DesiredNode, PolicyProgram


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that the kernel refused, in its words."""

    message: str
    unanswered: Address | None = None
    """An egress IP that this node holds, and does not answer for."""
    policy_id: int | None = None
    """A policy that is not in the rules: its pods are blocked."""


def keeping(desired: DesiredNode, policies: Iterable[PolicyProgram]) -> DesiredNode:
    """`desired` with these of its policies only: the pods of the others are blocked."""
    kept = tuple(policies)
    if len(kept) == len(desired.policies):
        return desired
    ids = {policy.policy_id for policy in kept}
    without = {pod for pod, number in desired.pods.items() if number not in ids}
    return replace(
        desired,
        policies=kept,
        pods={pod: number for pod, number in desired.pods.items() if number in ids},
        blocked_pods=desired.blocked_pods | without,
    )
