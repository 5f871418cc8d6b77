"""The kernel, one blocking call at a time, in a thread of its own, so that probes and watches never wait for it.

Must not decide anything.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.flows import Flow
from sluice_node.core.links import Links
from sluice_node.core.occupied import Neighbour
from sluice_node.core.preflight import Facts
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.report import Report

_T = TypeVar("_T")


class KernelPort(Protocol):
    """What the agent asks of the kernel; every call may raise KernelError and may take milliseconds."""

    def apply(self, desired: DesiredNode, /, *, anew: bool = False) -> Report:
        """Make the kernel hold this; `anew`: also what it refused before."""

    def check(self) -> bool:
        """Whether all of it is still there."""

    def counters(self) -> Mapping[str, int]:
        """Packets dropped, by reason."""

    def egress_ips(self) -> frozenset[Address]:
        """The egress IPs in the kernel's rules, whoever put them there."""

    def opened_by(self, source: Address) -> list[Flow]:
        """The tracked connections that an address has opened."""

    def remove(self) -> None:
        """Take everything of Sluice out."""


class KernelWorker:
    """Runs, one after the other, the calls of a KernelPort, `links`, which reads the node's interfaces, `neighbours`,
    which reads who is on its links, and `announce`, which tells the LAN of egress IPs on their interfaces."""

    def __init__(
        self,
        kernel: KernelPort,
        *,
        links: Callable[[], Links],
        announce: Callable[[Mapping[Address, str]], None],
        neighbours: Callable[[], tuple[Neighbour, ...]] = tuple,
        look: Callable[[], Facts] = Facts,
    ) -> None:
        self._look = look
        self._kernel = kernel
        self._links = links
        self._neighbours = neighbours
        self._announce = announce
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")

    async def apply(self, desired: DesiredNode, *, anew: bool = False) -> Report:
        """Make the kernel hold this, and tell what it refused of it. Raises KernelError."""
        return await self._run(lambda: self._kernel.apply(desired, anew=anew))

    async def check(self) -> bool:
        """Whether all of the last apply is still there. Raises KernelError."""
        return await self._run(self._kernel.check)

    async def announce(self, held: Mapping[Address, str]) -> None:
        """Tell the LAN once more where egress IPs are. Raises KernelError."""
        await self._run(lambda: self._announce(held))

    async def counters(self) -> Mapping[str, int]:
        """Packets dropped, by reason. Raises KernelError."""
        return await self._run(self._kernel.counters)

    async def egress_ips(self) -> frozenset[Address]:
        """The egress IPs in the kernel's rules. Raises KernelError."""
        return await self._run(self._kernel.egress_ips)

    async def opened_by(self, source: Address) -> list[Flow]:
        """The tracked connections that an address has opened. Raises KernelError."""
        return await self._run(lambda: self._kernel.opened_by(source))

    async def remove(self) -> None:
        """Take everything of Sluice out. Raises KernelError."""
        await self._run(self._kernel.remove)

    async def links(self) -> Links:
        """The node's interfaces. Raises KernelError."""
        return await self._run(self._links)

    async def neighbours(self) -> tuple[Neighbour, ...]:
        """Who is on the node's links. Raises KernelError."""
        return await self._run(self._neighbours)

    async def look(self) -> Facts:
        """What the node has, and what others do on it. Raises KernelError.

        Not in the thread of the other calls: on a node with many rules it takes its time, and failover must not wait.
        """
        try:
            return await asyncio.to_thread(self._look)
        except OSError as error:
            raise KernelError(f"{type(error).__name__}: {error}") from error

    async def turns(self, *, within: float) -> bool:
        """Whether the thread takes a call within so many seconds: not while one hangs in the kernel."""
        try:
            await asyncio.wait_for(self._run(lambda: None), within)
        except (TimeoutError, KernelError):
            return False
        return True

    def close(self) -> None:
        """Take no more calls; the one that runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, call: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except OSError as error:
            # A socket that broke, say: what the kernel holds is found out by the next attempt.
            raise KernelError(f"{type(error).__name__}: {error}") from error
