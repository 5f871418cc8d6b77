"""A gateway's death is told at the beat that finds it, and a slow agent condemns nobody."""

import asyncio
import socket
from ipaddress import ip_address

import pytest

from sluice_node.agent.prober import Prober
from sluice_node.core.desired import Peer
from sluice_node.core.frames import Echo
from sluice_node.core.liveness import DEAD_AFTER
from sluice_node.kernel.errors import KernelError

PEER = Peer("n2", ip_address("192.0.2.2"), "02:65:00:00:00:02")


class Wire:
    """A tunnel: probes sent, echoes to be received, and whether the device is there."""

    def __init__(self) -> None:
        self.there = True
        self.answers = True
        self.sent: list[int] = []
        self.echoes: list[Echo] = []
        self._pair = socket.socketpair()

    def open(self) -> "Wire":
        if not self.there:
            raise KernelError("no device")
        return self

    def fileno(self) -> int:
        return self._pair[0].fileno()

    def send(self, *, gateway: str, sequence: int) -> bool:
        if not self.there:
            raise KernelError("the device is gone")
        self.sent.append(sequence)
        if self.answers:
            self.echoes.append(Echo(gateway, sequence, 0))
        return True

    def received(self) -> list[Echo]:
        echoes, self.echoes = self.echoes, []
        return echoes

    def close(self) -> None:
        """The test's end closes the pair."""

    def end(self) -> None:
        for each in self._pair:
            each.close()


class Bench:
    def __init__(self) -> None:
        self.wire = Wire()
        self.told = 0
        self.prober = Prober(self.wire.open, self._tell)
        self.prober.follow([PEER])

    def _tell(self) -> None:
        self.told += 1

    def beat(self, times: int = 1) -> None:
        for _ in range(times):
            self.prober._beat()


@pytest.fixture(name="bench")
async def _bench():  # type: ignore[no-untyped-def]
    bench = Bench()
    yield bench
    bench.prober._close()
    bench.wire.end()


async def test_echoes_make_alive_and_silence_makes_dead(bench: Bench) -> None:
    bench.beat(2)
    assert (bench.prober.alive(), bench.told) == ({"n2"}, 1)
    bench.wire.answers = False
    bench.beat(DEAD_AFTER)
    assert bench.told == 1
    bench.beat()
    assert (bench.prober.alive(), bench.told) == (frozenset(), 2)


async def test_echoes_that_wait_are_heard_before_anyone_is_judged(bench: Bench) -> None:
    bench.beat(2)
    bench.wire.answers = False
    bench.beat(DEAD_AFTER - 1)
    late = Echo(PEER.mac, bench.wire.sent[-1], 0)
    bench.beat()
    bench.wire.echoes.append(late)
    bench.beat()
    assert (bench.prober.alive(), bench.told) == ({"n2"}, 1)


async def test_without_a_tunnel_nobody_is_judged(bench: Bench) -> None:
    bench.beat(2)
    bench.wire.there = False
    bench.beat(10)
    assert (bench.prober.alive(), bench.told) == ({"n2"}, 1)
    bench.wire.there = True
    bench.beat()
    assert bench.prober.alive() == {"n2"}


async def test_first_verdicts_are_waited_for_only_with_a_tunnel(bench: Bench) -> None:
    bench.wire.there = False
    await bench.prober.first_verdicts(within=60)
    bench.wire.there = True
    waiting = asyncio.ensure_future(bench.prober.first_verdicts(within=60))
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.beat(2)
    await waiting


async def test_nobody_to_probe_is_a_verdict_too(bench: Bench) -> None:
    bench.prober.follow([])
    await bench.prober.first_verdicts(within=60)
    bench.beat()
    assert bench.wire.sent == []
