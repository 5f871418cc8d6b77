"""The whole ruleset of a node, from its desired state.

Invariants: pure; equal input gives equal tables.
"""

from typing import Final

from sluice_node.core import identity, slicing, steering, tunnel
from sluice_node.core.tables import Ruleset, Set, Table
from sluice_node.core.view import View

TABLE: Final = "sluice"
EMPTY: Final = Ruleset((Table("inet", TABLE), Table("netdev", TABLE)))
"""Our two tables with nothing in them: what to remove."""


def ruleset(view: View, before: tuple[View, tuple[Set, ...]] | None = None) -> tuple[Ruleset, tuple[Set, ...]]:
    """Every table, set, chain and rule that the node must hold, and of these the sets of slices.

    Those can be large, and change seldom: `before` is the view and the sets of the last time, used again if they hold.
    """
    reusable = before is not None and slicing.same_slices(view, before[0])
    slices = before[1] if before is not None and reusable else tuple(slicing.sets(view))
    inet = Table(
        "inet",
        TABLE,
        counters=steering.COUNTERS + identity.COUNTERS + slicing.COUNTERS + tunnel.COUNTERS,
        sets=(*steering.sets(view), *identity.sets(view), *slices, *tunnel.sets(view)),
        chains=(*steering.chains(view), *identity.chains(view), *slicing.chains(view), *tunnel.chains(view)),
    )
    netdev = Table(
        "netdev",
        TABLE,
        counters=tunnel.EGRESS_COUNTERS,
        sets=tuple(tunnel.egress_sets(view)),
        chains=tuple(tunnel.egress_chains()),
    )
    return Ruleset((inet, netdev)), slices
