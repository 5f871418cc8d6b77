"""Looks whether the node is one that Sluice may program: before the first attempt, and again every minute.

Rules:
- What cannot be read is no obstacle: the kernel itself refuses what it does not know.
- A change of the answer wakes the loop; the same answer is said once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sluice_api.timers import PREFLIGHT
from sluice_node.core.preflight import Facts, Finding, Verdict, judge
from sluice_node.kernel.errors import KernelError

log = logging.getLogger(__name__)


class Preflight:
    """`look` reads the facts; `changed` is told why when the answer differs."""

    def __init__(self, look: Callable[[], Awaitable[Facts]], changed: Callable[[str], None]) -> None:
        self._look = look
        self._changed = changed
        self._verdict: Verdict | None = None
        self._complaint = ""

    async def obstacle(self) -> Finding | None:
        """Why nothing may be programmed; looks first, if nobody has."""
        if self._verdict is None:
            await self._judge()
        return self._verdict.obstacle if self._verdict is not None else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be in the way."""
        return self._verdict.warnings if self._verdict is not None else ()

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            await asyncio.sleep(PREFLIGHT)
            before = self._verdict
            if await self._judge() != before and before is not None:
                self._changed("what others do on this node")

    async def _judge(self) -> Verdict | None:
        try:
            verdict = judge(await self._look())
        except KernelError as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                log.warning("cannot look at what the node has and others do: %s; this is tried again", error)
            self._verdict = self._verdict or Verdict()
            return self._verdict
        known = set(self.warnings)
        for warning in verdict.warnings:
            if warning not in known:
                log.warning("%s", warning)
        self._verdict = verdict
        return verdict
