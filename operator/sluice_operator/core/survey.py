"""Whether the nodes have looked at a pool's addresses before the first of them is given.

The operator sees Nodes and Services, but not what is on a node and on its links: pods, gateways of routes, other
machines. The agents do, and report it a moment after a pool appears or its addresses change. Until each has, or
SURVEY has passed, the pool is not judged and gives nothing.

Invariants:
- A pool that was judged at its present generation is never held back again.
- A node that cannot answer (not ready, silent, being emptied) is not waited for.
- Pure: no I/O; that SURVEY has passed is a field of the snapshot.
"""

from collections.abc import Mapping

from sluice_api.occupied import digest
from sluice_api.reasons import ConditionType
from sluice_operator.core.snapshot import Pool, Snapshot


def judged(pool: Pool) -> bool:
    """Whether the pool's present generation was accepted, or refused for cause, before."""
    return any(
        entry.type == ConditionType.ACCEPTED
        and entry.status != "Unknown"
        and entry.observed_generation == pool.generation
        for entry in pool.status.conditions
    )


def awaited(snapshot: Snapshot) -> Mapping[str, frozenset[str]]:
    """Pools that are not to be judged yet -> the nodes that have not looked at them."""
    open_ones = [
        pool.name for pool in snapshot.pools.values() if not judged(pool) and pool.name not in snapshot.overdue
    ]
    if not open_ones:
        return {}
    wanted = digest((pool.name, pool.generation) for pool in snapshot.pools.values())
    missing = frozenset(name for name in _able(snapshot) if _surveyed(snapshot, name) != wanted)
    return dict.fromkeys(open_ones, missing) if missing else {}


def _able(snapshot: Snapshot) -> set[str]:
    """The nodes that can be asked: ready ones, and those with an agent that nothing else is known of."""
    agents = {name for name, node in snapshot.nodes.items() if not node.removing}
    emptied = snapshot.nodes.keys() - agents
    ready = {name for name, node in snapshot.cluster_nodes.items() if node.ready}
    return ((ready - emptied) | (agents - snapshot.cluster_nodes.keys())) - snapshot.silent


def _surveyed(snapshot: Snapshot, node: str) -> str:
    report = snapshot.nodes.get(node)
    return "" if report is None else report.surveyed
