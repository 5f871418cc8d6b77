"""Holds many streams and reports on them once a second, as JSON lines.

SIGUSR1 verifies (every stream has to make progress once more) and reports with "verified": true; so does the end of
`verify_after`, which then ends the program.
"""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.traffic.state import Kind, Phase, proven, summary
from testbed.traffic.streams import Held
from testbed.traffic.target import Target

_REPORT_SECONDS = 1.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What to hold: `count` streams of each kind to each target. Times in seconds; `verify_after` None: for ever."""

    targets: Sequence[Target]
    kinds: Sequence[Kind]
    count: int
    interval: float
    stall: float
    verify_after: float | None
    name: str


class Holding:
    """The streams of a plan."""

    def __init__(self, plan: Plan, report: Callable[[str], None]) -> None:
        self._plan = plan
        self._report = report
        self._verifying = asyncio.Lock()
        self._streams = [
            Held(kind, target, interval=plan.interval, name=f"{plan.name}-{kind}-{number}")
            for target in plan.targets
            for kind in plan.kinds
            for number in range(plan.count)
        ]

    async def run(self) -> bool:
        """Hold until `verify_after` or SIGTERM; returns whether no stream was lost."""
        loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        verifications: set[asyncio.Task[None]] = set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        loop.add_signal_handler(signal.SIGUSR1, lambda: verifications.add(loop.create_task(self._verify())))
        tasks = [loop.create_task(held.run()) for held in self._streams]
        reporting = loop.create_task(self._report_regularly())
        try:
            async with asyncio.timeout(self._plan.verify_after):
                await ending.wait()
        except TimeoutError:
            await self._verify()
        for task in (reporting, *tasks, *verifications):
            task.cancel()
        await asyncio.gather(reporting, *tasks, *verifications, return_exceptions=True)
        return all(held.state.phase is not Phase.LOST for held in self._streams)

    async def _verify(self) -> None:
        """Wait until every open stream has made progress, at most `stall` seconds; those that have not are lost."""
        async with self._verifying:
            loop = asyncio.get_running_loop()
            since = loop.time()
            for held in self._streams:
                held.verify()
            # Polled, so that making progress costs a stream nothing.
            while loop.time() < since + self._plan.stall and not proven((h.state for h in self._streams), since):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
            for held in self._streams:
                held.state = held.state.verified(since)
            self._report(json.dumps(self.status(verified=True)))

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            self._report(json.dumps(self.status(verified=False)))

    def status(self, *, verified: bool) -> dict[str, Any]:
        """One status line: totals of each phase, and a summary by kind (see state.summary)."""
        states = [held.state for held in self._streams]
        totals = {phase.value: sum(state.phase is phase for state in states) for phase in Phase}
        kinds = summary(states, asyncio.get_running_loop().time())
        return {"time": round(time.time(), 3), "verified": verified, "streams": len(states), **totals, "kinds": kinds}
