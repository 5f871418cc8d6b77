"""How long each pool has waited for the nodes to look at its addresses (see `core.survey`).

Invariants: by the monotonic clock of this process alone; a pool is known by its uid and generation, so that a change of
its addresses starts anew; the loop is woken when a wait ends, since nothing else may happen then.
"""

from collections.abc import Callable, Mapping

from sluice_api.timers import SURVEY
from sluice_operator.core.snapshot import Pool
from sluice_operator.core.survey import judged


class Surveys:
    """`clock` is in seconds; `wake_after` wakes the loop, in so many seconds, for a reason."""

    def __init__(self, *, clock: Callable[[], float], wake_after: Callable[[float, str], object]) -> None:
        self._clock = clock
        self._wake_after = wake_after
        self._since: dict[tuple[str, int], float] = {}

    def overdue(self, pools: Mapping[str, Pool]) -> frozenset[str]:
        """The pools, not judged yet, for which the nodes have had their time."""
        now = self._clock()
        waiting = {(pool.uid, pool.generation): pool.name for pool in pools.values() if not judged(pool)}
        self._since = {key: since for key, since in self._since.items() if key in waiting}
        for key, name in waiting.items():
            if key not in self._since:
                self._since[key] = now
                self._wake_after(SURVEY, f"pool {name} has waited for the nodes")
        return frozenset(name for key, name in waiting.items() if now - self._since[key] >= SURVEY)
