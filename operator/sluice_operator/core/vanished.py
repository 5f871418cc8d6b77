"""Gone from the API is not gone from the wire: what becomes of the ports of a node that has vanished.

A Node object can be deleted while its machine runs (by hand, by a cloud controller that cannot reach it, by a
re-registration), and the kernel of that machine goes on with what it was told last. So its slices are not given to
another node, and the addresses that they are of not to another policy, until so much time has passed that somebody has
switched the machine off or brought it back. A node that comes back has the ports that it had.

Invariants:
- Only time ends this rest (`--vanished-node-rest`); it does not depend on how long addresses rest.
- A node of which there still is a Node has not vanished, however long its agent has said nothing: its slices stay.
- Nothing shortens it: a beginning that cannot be read, or lies in the future, counts as now.
- Pure: no I/O; the time is the snapshot's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sluice_operator.core import rest
from sluice_operator.core.snapshot import EgressIP, Slice, Snapshot
from sluice_operator.core.times import moment, seconds


@dataclass(frozen=True, slots=True)
class Vanished:
    """Judges the slices of nodes that do not report, in one snapshot."""

    snapshot: Snapshot

    def kept(self, entry: Slice) -> Slice | None:
        """The slice of a node that does not report, marked with since when it has vanished; None: it is free."""
        if entry.node in self.snapshot.cluster_nodes:
            return entry._replace(vanished="")
        since = rest.beginning(entry.vanished, now=self.snapshot.now)
        began, present = seconds(since), seconds(self.snapshot.now)
        if began is not None and present is not None and began + self.snapshot.settings.vanished_node_rest <= present:
            return None
        return entry._replace(vanished=since)

    def of_resting(self, claim: EgressIP) -> tuple[Slice, ...]:
        """What is left of the slices of a claim that rests: those of nodes that have not said that they let go."""
        found = (self.kept(entry) for entry in claim.slices if entry.node not in self.snapshot.nodes)
        return tuple(entry for entry in found if entry is not None)


def endings(snapshot: Snapshot) -> Iterator[int]:
    """When the rests of vanished nodes' slices end, in seconds since 1970; those in the past too."""
    seen: set[int] = set()
    for claim in snapshot.egress_ips.values():
        if id(claim.slices) in seen:  # projections share equal slices (see `project`)
            continue
        seen.add(id(claim.slices))
        for entry in claim.slices:
            began = seconds(entry.vanished) if entry.vanished else None
            if began is not None:
                yield began + snapshot.settings.vanished_node_rest


def words(slices: tuple[Slice, ...], *, resting: int) -> str:
    """What to add where slices lack: how many of them wait for nodes that are gone. `resting` is in seconds."""
    ends = [(began + resting, entry.node) for entry in slices if (began := seconds(entry.vanished)) is not None]
    if not ends:
        return ""
    first = min(ends)
    return f" ({len(ends)} of them rest for nodes that have vanished, that of {first[1]} until {moment(first[0])})"
