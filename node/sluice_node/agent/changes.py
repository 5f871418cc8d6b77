"""What has changed since the loop looked last: the one thing that those who notice and the one who acts share.

Invariants: nothing is lost between two looks; the death or return of a gateway is told apart, as it must not wait.
"""

import asyncio
from contextlib import suppress


class Changes:
    """Call it from the event loop's thread only."""

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._gateways = False
        self._any = asyncio.Event()
        self._urgent = asyncio.Event()

    def note(self, why: str) -> None:
        """Something differs; `why` is for the log."""
        self._reasons.append(why)
        self._any.set()

    def note_gateways(self) -> None:
        """A gateway died or came back."""
        self._gateways = True
        self._any.set()
        self._urgent.set()

    async def wait(self, *, together: float) -> tuple[list[str], bool]:
        """Wait for a change, then `together` seconds for others, but not with one of gateways. Returns what was noted
        since the last call, and whether it is about gateways."""
        await self._any.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._urgent.wait(), together)
        taken = self._reasons, self._gateways
        self._reasons, self._gateways = [], False
        self._any.clear()
        self._urgent.clear()
        return taken
