"""What a policy goes on with while its spec cannot be acted on.

A pool that does not exist, a spec that contradicts itself, a new pool that has nothing to give: each may be a slip of
the pen, and none is a reason to take from a workload what it has. So the policy keeps every claim, and goes on using
those of them whose pool still lets its namespace in. Where the pool no longer does, traffic is dropped (that may be
meant), and the claims are kept all the same.

Invariants: make before break, addresses of one pool at a time (nodes program no mixture). Pure: no I/O, no clock.
"""

from collections.abc import Iterable

from sluice_operator.core.snapshot import EgressIP, Policy
from sluice_operator.core.words import names


def kept(policy: Policy, claims: Iterable[EgressIP]) -> tuple[EgressIP, ...]:
    """Of a policy's claims, all of pools that let its namespace in, the one of each family that it goes on with.

    What the status names comes first, then what the policy's own pool gave. What rests already is not woken.
    """
    usable = [claim for claim in claims if not claim.resting_since and not claim.deleting]
    usable.sort(key=lambda claim: (claim.address not in policy.status.addresses, claim.pool != policy.pool))
    chosen: dict[int, EgressIP] = {}
    for claim in usable:
        if claim.pool == usable[0].pool:
            chosen.setdefault(claim.address.version, claim)
    return tuple(chosen[version] for version in sorted(chosen))


def moves_along(policy: Policy, claim: EgressIP) -> bool:
    """Whether a policy wants the address of one of its claims from another pool than the claim is of.

    A claim cannot change its pool, so this one goes as soon as nobody uses it, and the policy claims the address again.
    """
    return claim.pool != policy.pool and claim.address in policy.requested


def words(used: Iterable[EgressIP], claims: Iterable[EgressIP]) -> str:
    """What to add to the reason for which a policy is refused: what becomes of its addresses, if it has any."""
    in_use, held = list(used), list(claims)
    if in_use:
        return f"; {names(claim.address for claim in in_use)} of pool {in_use[0].pool} stays in use until then"
    if held:
        return (
            f"; {names(claim.address for claim in held)} is kept for this policy, whose traffic is dropped until then"
        )
    return ""
