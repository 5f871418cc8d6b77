"""A policy that leaves with another address than before: somebody outside must hear of it, or lets nobody in.

The condition stands for as long as the old address rests, the Event is told once, when the new one is written.

Invariants: nothing is remembered, the policy's own claims tell what it had. Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sluice_api.reasons import Reason
from sluice_operator.core import rest
from sluice_operator.core.actions import Notice
from sluice_operator.core.snapshot import Address, EgressIP, Policy, Pool


@dataclass(frozen=True, slots=True)
class Move:
    """`old`, which the policy left with, became `new`. `until`: when `old` comes free, empty while it does not rest."""

    old: Address
    new: Address
    until: str

    def __str__(self) -> str:
        rests = f"rests until {self.until}" if self.until else "rests when no node uses it any more"
        return (
            f"{self.old} was replaced by {self.new}: whoever admits this policy by its address must admit the new one; "
            f"{self.old} {rests}"
        )


def moves(used: Iterable[EgressIP], claims: Iterable[EgressIP], pools: Mapping[str, Pool]) -> tuple[Move, ...]:
    """What `used`, the addresses that a policy goes on with, replaced of all that it has claimed."""
    chosen = {claim.address.version: claim for claim in used}
    return tuple(
        Move(claim.address, chosen[claim.address.version].address, rest.until(claim, pools))
        for claim in claims
        if claim.address.version in chosen and claim.name != chosen[claim.address.version].name
    )


def notices(policy: Policy, after: Iterable[Address], moved: Iterable[Move]) -> tuple[Notice, ...]:
    """What to tell when the addresses in the policy's status become `after`."""
    before = {address.version: address for address in policy.status.addresses}
    known = {move.new.version: move for move in moved}
    told = []
    for new in after:
        old = before.get(new.version)
        if old == new:
            continue
        move = known.get(new.version) if old is None else Move(old, new, "")
        if move is not None:
            namespace, name = policy.key
            reason = str(Reason.ADDRESS_CHANGED)
            told.append(Notice("EgressPolicy", namespace, name, policy.uid, "Warning", reason, str(move)))
    return tuple(told)
