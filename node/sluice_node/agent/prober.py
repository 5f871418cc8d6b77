"""Sends probes to gateways, hears the echoes, and tells at once when one dies or comes back.

Invariants: echoes that have arrived are heard before anyone is judged, so that an agent which was slow condemns nobody;
while there is no tunnel device nobody is judged.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, Protocol

from sluice_api.timers import PROBE_INTERVAL
from sluice_node.core.desired import Peer
from sluice_node.core.frames import Echo
from sluice_node.core.liveness import DEAD_AFTER, Liveness, Sight
from sluice_node.kernel.errors import KernelError

log = logging.getLogger(__name__)

_NAMES: Final = 5
"""How many gateways one log line names."""


class ProbeSocket(Protocol):
    """A packet socket on the tunnel; each call raises KernelError when the device is gone."""

    def fileno(self) -> int:
        """What to wait on for echoes."""

    def send(self, *, gateway: str, sequence: int) -> bool:
        """Send a probe to a gateway's MAC."""

    def received(self) -> Iterable[Echo]:
        """Echoes since the last call."""

    def close(self) -> None:
        """Let go of the socket."""


class Prober:
    """`open_socket` opens a ProbeSocket or raises KernelError; `changed` is called at every death and revival."""

    def __init__(self, open_socket: Callable[[], ProbeSocket], changed: Callable[[], None]) -> None:
        self._open = open_socket
        self._changed = changed
        self._socket: ProbeSocket | None = None
        self._liveness = Liveness()
        self._nodes: dict[str, str] = {}
        self._settled = asyncio.Event()

    def follow(self, peers: Iterable[Peer]) -> None:
        """Probe these gateways and no others."""
        self._nodes = {peer.mac: peer.node for peer in peers}
        self._liveness.follow(self._nodes)
        self._judge_settled()

    def alive(self) -> frozenset[str]:
        """The nodes that answer."""
        return frozenset(node for node, sight in self.sights().items() if sight.alive)

    def sights(self) -> Mapping[str, Sight]:
        """Node -> how it looks."""
        return {self._nodes[mac]: sight for mac, sight in self._liveness.sights().items()}

    async def first_verdicts(self, *, within: float) -> None:
        """Wait until there is a verdict on every gateway, `within` seconds; not at all without a tunnel."""
        if self._open_if_needed():
            try:
                await asyncio.wait_for(self._settled.wait(), within)
            except TimeoutError:
                log.info("no verdict on every gateway within %.1f s: going on with those that answer", within)

    async def run(self) -> None:
        """Never returns; cancel it."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                self._beat()
                # Beats that were missed are not made up for.
                due = max(due + PROBE_INTERVAL, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            self._close()

    def _beat(self) -> None:
        if not self._nodes or not self._open_if_needed():
            return
        try:
            self._hear()
            assert self._socket is not None  # noqa: S101 - for the type checker; _hear raises when it is gone
            probes, died = self._liveness.tick()
            for mac, sequence in probes:
                self._socket.send(gateway=mac, sequence=sequence)
        except KernelError as error:
            log.warning("%s; gateways are judged again once it is back", error)
            self._close()
            return
        self._judge_settled()
        if died:
            log.warning("gateway %s is dead: no echo of %d probes", self._named(died), DEAD_AFTER)
            self._changed()

    def _readable(self) -> None:
        try:
            self._hear()
        except KernelError:
            self._close()

    def _hear(self) -> None:
        revived = []
        for echo in self._socket.received() if self._socket else ():
            rtt = max(0, time.monotonic_ns() - echo.sent) / 1e9
            if self._liveness.hear(echo.mac, sequence=echo.sequence, rtt=rtt):
                revived.append(echo.mac)
        if revived:
            log.info("gateway %s is alive: it answers probes", self._named(revived))
            self._judge_settled()
            self._changed()

    def _named(self, macs: Collection[str]) -> str:
        names = sorted(self._nodes[mac] for mac in macs)
        return ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")

    def _judge_settled(self) -> None:
        if self._liveness.settled:
            self._settled.set()
        else:
            self._settled.clear()

    def _open_if_needed(self) -> bool:
        if self._socket is None:
            try:
                self._socket = self._open()
            except (KernelError, OSError) as error:
                log.debug("no probes yet: %s", error)
                return False
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)
        return True

    def _close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
