"""Looks, now and then and when pools change, which of their addresses are in use on this node and its links.

Must not decide: what counts is `core.occupied`'s.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sluice_api.timers import LINKS_READ
from sluice_node.core.desired import Address
from sluice_node.core.occupied import Neighbour, Sightings, look, survey
from sluice_node.core.snapshot import Snapshot
from sluice_node.kernel.errors import KernelError

log = logging.getLogger(__name__)


class Surveyor:
    """`neighbours` reads the kernel's table, `changed` is told after each look."""

    def __init__(
        self, neighbours: Callable[[], Awaitable[tuple[Neighbour, ...]]], *, changed: Callable[[], None]
    ) -> None:
        self.sightings = Sightings()
        self._neighbours = neighbours
        self._changed = changed
        self._table: tuple[Neighbour, ...] = ()
        self._read_at: float | None = None

    def status(self, snapshot: Snapshot, heard: Mapping[Address, str]) -> dict[str, Any]:
        """What the EgressNode is to say; nothing before the first look. `heard` is what links were asked for."""
        if self._read_at is None:
            return {}
        now = time.monotonic()
        look(self.sightings, snapshot, self._table, read_at=self._read_at, now=now)
        return survey(snapshot, {**self.sightings.current(now), **heard})

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            try:
                self._table = await self._neighbours()
                self._read_at = time.monotonic()
            except KernelError as error:
                log.warning("%s; this is tried again", error)
            self._changed()
            await asyncio.sleep(LINKS_READ)
