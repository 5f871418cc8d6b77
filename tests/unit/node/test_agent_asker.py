"""The agent asks where it can, hears what is said, and tells of it once."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.unit.node.test_askable import NOTHING_HELD, SNAPSHOT

from sluice_api.timers import ASK_CONFLICT_AGAIN
from sluice_node.agent.asker import Asker
from sluice_node.core.desired import Address
from sluice_node.core.frames import Say
from sluice_node.core.objects import EgressIP, Key
from sluice_node.core.occupied import Neighbour
from sluice_node.kernel.errors import KernelError

pytestmark = pytest.mark.looptime
USED = ip_address("198.51.100.3")
HOST = "02:00:00:00:00:aa"


class Link:
    """An interface on which a host has one address."""

    def __init__(self, interface: str) -> None:
        if interface == "eth0":
            raise KernelError("interface eth0 is no Ethernet")
        self.asked: list[Address] = []
        self.gone = False
        self._said: list[Say] = []
        self._pipe = os.pipe()

    def filenos(self) -> Sequence[int]:
        return (self._pipe[0],)

    def hear_of(self, ranges: Sequence[tuple[int, int]]) -> None:
        assert ranges

    def ask(self, address: Address) -> None:
        if self.gone:
            raise KernelError("interface eth1 is gone")
        self.asked.append(address)
        if address == USED:
            self._said.append(Say(address, HOST))
            os.write(self._pipe[1], b"!")

    def heard(self) -> Iterator[Say]:
        os.read(self._pipe[0], 100)
        while self._said:
            yield self._said.pop()

    def close(self) -> None:
        for number in self._pipe:
            os.close(number)


class Bench:
    def __init__(self) -> None:
        self.links: list[Link] = []
        self.told = 0
        self.ours: tuple[Neighbour, ...] = ()
        self.asker = Asker(open_link=self._open, neighbours=lambda: self.ours, changed=self._tell)

    def _open(self, interface: str) -> Link:
        link = Link(interface)
        self.links.append(link)
        return link

    def _tell(self) -> None:
        self.told += 1


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    """No fixture: those live outside of virtual time."""
    bench = Bench()
    task = asyncio.create_task(bench.asker.run())
    yield bench
    if task.done():
        task.result()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_who_has_an_address_is_told_once_and_a_link_that_cannot_be_asked_is_no_obstacle() -> None:
    async with running() as bench:
        for _ in range(10):
            bench.asker.look(SNAPSHOT, NOTHING_HELD)
            await asyncio.sleep(6)
        assert bench.asker.occupied == {USED: (HOST, "eth1")}
        assert bench.asker.heard() == {USED: f"neighbour {HOST} on eth1"}
        assert bench.told == 1
        assert len(bench.links) == 1


async def test_the_first_holder_asks_though_it_is_said_to_be_the_holder_at_once() -> None:
    claim = EgressIP(Key("", str(USED)), USED, "partners", Key("ns", "a"))
    holding = replace(NOTHING_HELD, announced={USED: "eth1"})
    async with running() as bench:
        bench.asker.look(SNAPSHOT, NOTHING_HELD)
        await asyncio.sleep(0.1)
        bench.asker.look(replace(SNAPSHOT, egress_ips=(claim,)), holding)
        bench.asker.look(replace(SNAPSHOT, egress_ips=(replace(claim, holder="n1"),)), holding)
        await asyncio.sleep(60)
        assert bench.links[0].asked.count(USED) == 3
        assert bench.asker.occupied == {USED: (HOST, "eth1")}


async def test_an_answer_of_a_node_of_ours_is_none() -> None:
    async with running() as bench:
        bench.ours = (Neighbour(SNAPSHOT.node.addresses[0], HOST, "eth1", 1.0),)
        bench.asker.look(SNAPSHOT, NOTHING_HELD)
        await asyncio.sleep(60)
        assert (bench.asker.occupied, bench.told) == ({}, 0)


async def test_an_interface_that_breaks_is_opened_again() -> None:
    async with running() as bench:
        bench.asker.look(SNAPSHOT, NOTHING_HELD)
        await asyncio.sleep(60)
        bench.links[0].gone = True
        await asyncio.sleep(ASK_CONFLICT_AGAIN + 120)
        assert bench.asker.occupied == {USED: (HOST, "eth1")}, "silence of a link that cannot be asked means nothing"
        assert len(bench.links) == 2
        assert USED in bench.links[1].asked


async def test_a_node_that_is_no_gateway_any_more_lets_go_of_everything() -> None:
    async with running() as bench:
        bench.asker.look(SNAPSHOT, NOTHING_HELD)
        await asyncio.sleep(60)
        bench.asker.look(replace(SNAPSHOT, pods=()), NOTHING_HELD)
        await asyncio.sleep(60)
        assert bench.asker.occupied == {}
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(bench.links[0].filenos()[0])


async def test_what_an_earlier_process_heard_stands_at_once() -> None:
    async with running() as bench:
        bench.asker.remember([(USED, HOST, "eth1")])
        assert bench.asker.occupied == {USED: (HOST, "eth1")}
        bench.asker.look(SNAPSHOT, NOTHING_HELD)
        await asyncio.sleep(3)
        assert bench.asker.occupied == {USED: (HOST, "eth1")}
