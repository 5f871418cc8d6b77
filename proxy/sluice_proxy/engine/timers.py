"""A timer wheel: arming and disarming cost a set operation, whatever the number of timers.

Pure: time is passed in. An item holds its own place (`timer_tick`), so no handle is allocated per timer. A deadline
that only moves later needs no call at all: the item looks at its own deadline when it is called, and arms itself
again.
"""

import heapq
from typing import Final, Protocol

TICK: Final = 0.05
"""Seconds. Timers are never early, and late by at most a tick."""


class Timed(Protocol):
    """What can be armed. `timer_tick` is 0 while it is not armed; the wheel writes it."""

    timer_tick: int

    def on_timer(self) -> None:
        """The time has come."""


class TimerWheel:
    """Buckets of items by tick, and a heap of the ticks that have a bucket."""

    __slots__ = ("_buckets", "_ticks")

    def __init__(self) -> None:
        self._buckets: dict[int, set[Timed]] = {}
        self._ticks: list[int] = []

    def arm(self, item: Timed, when: float) -> None:
        """Have `item.on_timer` called at `when` (seconds, monotonic); replaces what it was armed for."""
        tick = int(when / TICK) + 1
        if item.timer_tick:
            if item.timer_tick == tick:
                return
            self.disarm(item)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
            heapq.heappush(self._ticks, tick)
        bucket.add(item)
        item.timer_tick = tick

    def disarm(self, item: Timed) -> None:
        """Forget the item; nothing happens when it is not armed."""
        if item.timer_tick:
            self._buckets[item.timer_tick].discard(item)
            item.timer_tick = 0

    def due(self, now: float) -> list[Timed]:
        """Take out and return every item whose time has come."""
        items: list[Timed] = []
        while self._ticks and self._ticks[0] * TICK <= now:
            items += self._buckets.pop(heapq.heappop(self._ticks))
        for item in items:
            item.timer_tick = 0
        return items

    def delay(self, now: float) -> float:
        """Seconds until the next bucket is due; -1 when there is none."""
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]
        return max(0.0, self._ticks[0] * TICK - now) if self._ticks else -1.0
