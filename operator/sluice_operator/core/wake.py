"""When time alone will have changed what a plan would be, so that nobody needs to poll.

Pure: no I/O; the time is the snapshot's.
"""

from itertools import chain

from sluice_operator.core import rest, vanished
from sluice_operator.core.snapshot import Snapshot
from sluice_operator.core.times import seconds


def next_wake(snapshot: Snapshot) -> int | None:
    """Seconds until the next rest is over, at least 1, if there is anything to wait for.

    Rests that are over already count for nothing: what still holds them is a change, and a change wakes by itself.
    """
    present = seconds(snapshot.now)
    if present is None:
        return None
    claims = (rest.end(claim, snapshot.pools) for claim in snapshot.egress_ips.values() if claim.resting_since)
    endings = chain((ending for ending in claims if ending is not None), vanished.endings(snapshot))
    return min((ending - present for ending in endings if ending > present), default=None)
