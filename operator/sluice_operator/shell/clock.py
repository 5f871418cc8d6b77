"""The time of day, for what is written into objects and measured against what stands there.

Invariant: while a process runs its clock never goes faster than time does. A wall clock that is set forward (by hand,
or by NTP after a bad start) would otherwise end a rest that has hardly begun; one that is set back only makes rests
longer. Between processes it is the wall clock again: nothing else is common to them.
"""

import time
from collections.abc import Callable

from sluice_operator.core.times import moment


def _since_boot() -> float:
    """Seconds since the machine started, those it slept through included (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Call it for the time in RFC 3339, UTC. `wall` counts seconds since 1970, `steady` since whenever."""

    def __init__(self, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _since_boot) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()

    def __call__(self) -> str:
        self._offset = min(self._offset, self._wall() - self._steady())
        return moment(int(self._steady() + self._offset))
