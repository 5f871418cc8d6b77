"""An address outlives a mistake: what becomes of a claim that no policy uses.

A firewall far away knows a workload by its address. Whoever has that address next is let in as the one before, so an
address that is free again is not at once anybody's: its claim, the object that is its lock, stays and is marked with
the moment since when it rests. Until the rest is over (`spec.quarantine` of its pool) only a policy of the same
namespace and name gets it, by that same object, and gets it by itself; a misspelt pool, a lost label, a policy that is
deleted and applied again, or a backup that is restored in the wrong order ends where it began.

Invariants:
- A rest begins when no node can be using the address any more (see `plan`), never before.
- Nothing shortens a rest: a beginning that cannot be read, or lies in the future, counts as now.
- A claim whose policy exists but is refused does not come free, however long that lasts.
- Somebody who deletes a resting claim ends its rest.
- Pure: no I/O; the time is the snapshot's.
"""

from collections.abc import Mapping

from sluice_api.timers import QUARANTINE, REST_SKEW
from sluice_operator.core.snapshot import EgressIP, Pool
from sluice_operator.core.times import moment, seconds


def beginning(written: str, *, now: str) -> str:
    """The beginning of a rest: what was written, unless that is no time or lies in the future."""
    began, present = seconds(written), seconds(now)
    if began is None or present is None or began > present + REST_SKEW:
        return now
    return written


def end(claim: EgressIP, pools: Mapping[str, Pool]) -> int | None:
    """When a resting claim comes free, in seconds since 1970; None for one that does not rest.

    A pool that is gone cannot say how long its addresses rest, so they rest as long as is usual.
    """
    began = seconds(claim.resting_since)
    if began is None:
        return None
    pool = pools.get(claim.pool)
    return began + (int(QUARANTINE) if pool is None else pool.quarantine)


def is_over(claim: EgressIP, pools: Mapping[str, Pool], *, now: str) -> bool:
    """Whether a claim has rested long enough."""
    ending, present = end(claim, pools), seconds(now)
    return ending is not None and present is not None and ending <= present


def until(claim: EgressIP, pools: Mapping[str, Pool]) -> str:
    """When a resting claim comes free, for a message; empty for one that does not rest."""
    ending = end(claim, pools)
    return "" if ending is None else moment(ending)
