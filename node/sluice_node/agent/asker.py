"""Asks the links for addresses and listens to who has them, for as long as this node is a gateway.

Invariants: what is asked and what an answer means is decided in `core.asking`; an interface that cannot be listened to
is tried again, and keeps no other waiting.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from sluice_api.occupied import Occupant
from sluice_node.core.askable import Askable, askable, first_held
from sluice_node.core.asking import Asking
from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.frames import Say
from sluice_node.core.occupied import Neighbour
from sluice_node.core.snapshot import Snapshot
from sluice_node.kernel.errors import KernelError

log = logging.getLogger(__name__)

LOOK: Final = 2.0
"""Seconds between two looks at what is to be asked, at least."""
_REOPEN: Final = 30.0
"""Seconds until an interface that could not be listened to is tried again."""
_TICK: Final = 0.001


class Link(Protocol):
    """An interface; each call raises KernelError when it is gone."""

    def filenos(self) -> Sequence[int]:
        """What to wait on."""

    def hear_of(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Which IPv4 addresses matter."""

    def ask(self, address: Address) -> None:
        """Ask who has it."""

    def heard(self) -> Iterable[Say]:
        """Who said to have what, since the last call."""

    def close(self) -> None:
        """Let go of it."""


class Asker:
    """`open_link` opens an interface, `neighbours` reads the kernel's table; `changed` is told when `occupied`
    differs."""

    def __init__(
        self,
        *,
        open_link: Callable[[str], Link],
        neighbours: Callable[[], tuple[Neighbour, ...]],
        changed: Callable[[], None],
    ) -> None:
        self.occupied: Mapping[Address, tuple[str, str]] = {}
        """Address -> (MAC, interface) of who has it."""
        self._open = open_link
        self._neighbours = neighbours
        self._changed = changed
        self._asking = Asking(random.random)
        self._links: dict[str, Link | float] = {}
        """By interface the open link, or when to try again to open it."""
        self._ranges: Mapping[str, Sequence[tuple[int, int]]] = {}
        self._nodes: frozenset[Address] = frozenset()
        self._todo: Callable[[], Askable] | None = None
        """What to ask for, to be worked out when it is time to."""
        self._first: frozenset[Address] = frozenset()
        """Noted at once: a moment later this node is said to be the holder."""
        self._wake = asyncio.Event()
        self._everybodys: frozenset[tuple[str, str]] = frozenset()

    def look(self, snapshot: Snapshot, desired: DesiredNode) -> None:
        """This is so now."""
        nodes = {address for other in snapshot.egress_nodes for address in other.addresses}
        self._nodes = frozenset(nodes | set(snapshot.node.addresses))
        self._first |= first_held(snapshot, desired)
        self._todo = lambda: askable(snapshot, desired, self.occupied.keys())
        self._wake.set()

    def rest(self) -> None:
        """There is nothing to ask for."""
        self._todo = Askable
        self._wake.set()

    def remember(self, heard: Iterable[tuple[Address, str, str]]) -> None:
        """An earlier process of this agent heard this: (address, MAC, interface)."""
        for address, mac, interface in heard:
            self._asking.remember(address, interface, mac)
            self.occupied = {**self.occupied, address: (mac, interface)}

    def heard(self) -> dict[Address, str]:
        """What EgressNode.status.occupied is to say of it."""
        return {
            address: f"{Occupant.NEIGHBOUR} {mac} on {interface}" for address, (mac, interface) in self.occupied.items()
        }

    async def run(self) -> None:
        """Never returns; cancel it."""
        loop = asyncio.get_running_loop()
        looked = loop.time() - LOOK
        try:
            while True:
                due = self._asking.next()
                if self._todo is not None:
                    due = min(looked + LOOK, due if due is not None else looked + LOOK)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if due is None else max(_TICK, due - loop.time()))
                self._wake.clear()
                now = loop.time()
                if self._todo is not None and now >= looked + LOOK:
                    looked = now
                    self._follow(self._todo(), now)
                    self._todo = None
                for interface, address in self._asking.due(now):
                    self._ask(interface, address)
                self._judge()
        finally:
            for interface in list(self._links):
                self._close(interface)

    def _follow(self, todo: Askable, now: float) -> None:
        self._asking.follow(todo.wanted, decoys=todo.decoys, held=todo.held, first=self._first, now=now)
        self._first = frozenset()
        needed = {*todo.wanted.values(), *todo.held.values()}
        for interface in self._links.keys() - needed:
            self._close(interface)
        self._ranges = todo.ranges
        for interface in needed:
            link = self._links.get(interface)
            if link is None:
                self._opened(interface, now)
            elif not isinstance(link, float):
                link.hear_of(todo.ranges.get(interface, ()))

    def _opened(self, interface: str, now: float) -> Link | float:
        try:
            link = self._open(interface)
        except KernelError as error:
            if interface not in self._links:
                log.info("%s; addresses of pools are not asked for there", error)
            self._links[interface] = now + _REOPEN
            return now + _REOPEN
        self._links[interface] = link
        link.hear_of(self._ranges.get(interface, ()))
        for number in link.filenos():
            asyncio.get_running_loop().add_reader(number, self._hear, interface)
        return link

    def _close(self, interface: str) -> None:
        link = self._links.pop(interface, None)
        if link is not None and not isinstance(link, float):
            for number in link.filenos():
                asyncio.get_running_loop().remove_reader(number)
            link.close()

    def _ask(self, interface: str, address: Address) -> None:
        link = self._links.get(interface)
        now = asyncio.get_running_loop().time()
        if isinstance(link, float) and link <= now:
            link = self._opened(interface, now)
        if link is None or isinstance(link, float):
            self._asking.unheard(interface, now)
            return
        try:
            link.ask(address)
        except KernelError as error:
            self._broken(interface, error)

    def _hear(self, interface: str) -> None:
        link = self._links.get(interface)
        if link is None or isinstance(link, float):
            return
        now = asyncio.get_running_loop().time()
        try:
            for said in link.heard():
                self._asking.hear(interface, said.address, said.mac, now)
        except KernelError as error:
            self._broken(interface, error)
        self._wake.set()

    def _broken(self, interface: str, error: KernelError) -> None:
        log.info("%s; it is listened to again in a while", error)
        now = asyncio.get_running_loop().time()
        self._close(interface)
        self._links[interface] = now + _REOPEN
        self._asking.unheard(interface, now)

    def _judge(self) -> None:
        occupied = self._asking.occupied(self._ours)
        for interface, mac in sorted(self._asking.everybodys() - self._everybodys):
            log.warning("%s answers for every address on %s: its answers are not taken for anything", mac, interface)
        self._everybodys = self._asking.everybodys()
        if occupied == self.occupied:
            return
        for address in sorted(occupied.keys() - self.occupied.keys(), key=str):
            log.warning("%s of a pool is not free: %s answers for it on %s", address, *occupied[address])
        self.occupied = occupied
        self._changed()

    def _ours(self) -> frozenset[str]:
        """A look at the neighbour table, only after an answer: a millisecond."""
        try:
            return frozenset(entry.mac for entry in self._neighbours() if entry.address in self._nodes)
        except KernelError as error:
            log.debug("%s", error)
            return frozenset()
