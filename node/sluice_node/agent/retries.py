"""When to try again what the kernel refused of an apply that went through otherwise.

Invariants: each item has a wait of its own, longer each time it is refused again, and none waits for another; what is
refused no more is forgotten.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from sluice_api.timers import AGENT_RETRY_FIRST, AGENT_RETRY_KERNEL
from sluice_node.agent.backoff import Backoff


@dataclass(slots=True)
class _Wait:
    backoff: Backoff = field(default_factory=lambda: Backoff(first=AGENT_RETRY_FIRST, most=AGENT_RETRY_KERNEL))
    timer: asyncio.TimerHandle | None = None


class Retries:
    """`again` is called when it is time to try. Use it from the event loop only."""

    def __init__(self, again: Callable[[], None]) -> None:
        self._again = again
        self._waits: dict[Hashable, _Wait] = {}
        self._due = False

    def follow(self, refused: Iterable[Hashable]) -> None:
        """These are what the last apply did not do."""
        now = set(refused)
        for item in self._waits.keys() - now:
            timer = self._waits.pop(item).timer
            if timer is not None:
                timer.cancel()
        for item in now:
            wait = self._waits.setdefault(item, _Wait())
            if wait.timer is None:
                wait.timer = asyncio.get_running_loop().call_later(wait.backoff.seconds(), self._fire, wait)

    def take_due(self) -> bool:
        """Whether it is time to try something again: once for each time that it is."""
        due, self._due = self._due, False
        return due

    def _fire(self, wait: _Wait) -> None:
        wait.timer = None
        self._due = True
        self._again()
