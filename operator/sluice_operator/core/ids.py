"""Policy ids: which one comes next.

An id travels as a packet mark, so two policies with one id would leave with each other's address. Hence:
- Every new id comes from one counter that is advanced by compare-and-swap; two leaders cannot draw the same one.
- An id goes back to use only after the counter has gone round, never while a policy holds it.
- Pure: no I/O, no clock.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sluice_api.names import POLICY_ID_MAX, POLICY_ID_MIN
from sluice_operator.core.snapshot import Policy, PolicyKey


@dataclass(frozen=True, slots=True)
class IdAssignment:
    """`ids` of all policies that have or now get one; `last` is where the counter stands afterwards."""

    ids: Mapping[PolicyKey, int]
    drawn: frozenset[PolicyKey]
    last: int


def assign(policies: Iterable[Policy], *, last: int, later: Collection[PolicyKey] = ()) -> IdAssignment:
    """Keep the ids that policies have, draw new ones after `last` for those that have none and are not for `later`.

    Of two policies that claim one id (a restored backup, an edited status) the older keeps it. When all ids are in
    use the remaining policies get none.
    """
    in_order = sorted(policies, key=lambda policy: (policy.created, policy.key))
    kept: dict[int, PolicyKey] = {}
    without: list[PolicyKey] = []
    for policy in in_order:
        held = policy.status.id
        if held is not None and POLICY_ID_MIN <= held <= POLICY_ID_MAX and held not in kept:
            kept[held] = policy.key
        elif policy.key not in later:
            without.append(policy.key)
    ids = {key: number for number, key in kept.items()}
    if not without:
        return IdAssignment(ids, frozenset(), last)
    # A lost ConfigMap starts again at 0: going on after the highest id in use keeps recent ids out of reuse.
    position = last or max(kept, default=0)
    drawn: set[PolicyKey] = set()
    for key in without[: POLICY_ID_MAX - POLICY_ID_MIN + 1 - len(kept)]:
        position = _next_free(position, kept)
        kept[position] = key
        ids[key] = position
        drawn.add(key)
    return IdAssignment(ids, frozenset(drawn), position)


def _next_free(position: int, used: Mapping[int, PolicyKey]) -> int:
    while True:
        position = position + 1 if POLICY_ID_MIN <= position < POLICY_ID_MAX else POLICY_ID_MIN
        if position not in used:
            return position
