"""The loop goes on with everything else while something is wrong, and tries it again; time is virtual."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, ip_address
from typing import Any

import pytest

from sluice_api.reasons import Reason
from sluice_api.timers import AGENT_COALESCE, AGENT_RETRY_KERNEL
from sluice_node.agent.changes import Changes
from sluice_node.agent.controller import Controller
from sluice_node.agent.metrics import Metrics
from sluice_node.agent.preflight import Preflight
from sluice_node.agent.reach import Reach
from sluice_node.agent.state import ClusterState
from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.failures import Failure
from sluice_node.core.links import Links
from sluice_node.core.objects import Node
from sluice_node.core.preflight import Facts
from sluice_node.core.resolve import tunnel_mac
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.report import Report

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

LINKS = Links((("eth0", IPv4Interface("192.0.2.1/24")),), {4: "eth0"})
GOOD, BAD = ip_address("192.0.2.200"), ip_address("192.0.2.201")
APPLYING = 0.01


@dataclass
class Kernel:
    """Applies take `takes` seconds; `refuses` tells what of a state it does not take."""

    applied: list[tuple[float, DesiredNode]] = field(default_factory=list)
    anew: int = 0
    refusal: str | None = None
    refuses: tuple[Failure, ...] = ()
    announced: list[Mapping[Address, str]] = field(default_factory=list)
    takes: float = APPLYING

    async def apply(self, desired: DesiredNode, *, anew: bool = False) -> Report:
        await asyncio.sleep(self.takes)
        if self.refusal is not None:
            raise KernelError(self.refusal)
        self.applied.append((asyncio.get_running_loop().time(), desired))
        self.anew += anew
        return Report(failures=self.refuses)

    async def announce(self, held: Mapping[Address, str]) -> None:
        self.announced.append(held)

    async def egress_ips(self) -> frozenset[Address]:
        return frozenset()

    async def remove(self) -> None:
        raise KernelError("it does not go")


async def _in_reach() -> bool:
    return True


async def _look() -> Facts:
    return Facts()


@dataclass
class Prober:
    """Knows who is alive."""

    living: frozenset[str] = frozenset({"n2", "n3"})

    def alive(self) -> frozenset[str]:
        return self.living

    def follow(self, peers: Any) -> None:
        pass

    async def first_verdicts(self, *, within: float) -> None:
        pass


class Bench:
    """A node with a gateway of the pools `good` and `bad`, whose policies select a pod each."""

    def __init__(self) -> None:
        self.changes, self.kernel, self.prober = Changes(), Kernel(), Prober()
        self.state = ClusterState(
            node="n1",
            namespace="sluice-system",
            never_redirected=frozenset(),
            changed=self.changes.note,
            gone=lambda key: None,
        )
        self.settled = 0
        self.controller = Controller(
            self.changes,
            state=self.state,
            prober=self.prober,  # type: ignore[arg-type]
            kernel=self.kernel,  # type: ignore[arg-type]
            metrics=Metrics(),
            reach=Reach(_in_reach, claims=self.state.egress_ips.values, changed=self.changes.note),
            preflight=Preflight(_look, self.changes.note),
            settled=self._settled,
        )

    def _settled(self) -> None:
        self.settled += 1

    def fill(self) -> None:
        state = self.state
        state.set_node(Node("n1", "uid", (ip_address("192.0.2.1"),), ()))
        state.set_links(LINKS)
        for store in state._stores:
            store.replace({})
        for number, (pool, address) in enumerate((("good", GOOD), ("bad", BAD)), 5):
            interface = {"interface": "eth7"} if pool == "bad" else {}
            state.pools.put({"metadata": {"name": pool}, "spec": {"announcement": interface}})
            owner = {"namespace": "ns", "name": pool}
            slices = [{"node": f"n{n}", "ports": f"{1024 * n}-{1024 * n + 1023}"} for n in (1, 2, 3)]
            state.egress_ips.put(
                {
                    "metadata": {"name": str(address)},
                    "spec": {"address": str(address), "pool": pool, "policy": owner},
                    "status": {"slices": slices},
                }
            )
            self.policy(pool, number=number, address=address)
            labels = {"app.kubernetes.io/name": "sluice-gateway", "sluice.dev/pool": pool}
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            state.pods.put(
                {"metadata": {"name": pool, "namespace": "sluice-system", "labels": labels}, "status": ready}
            )
            state.pods.put(
                {
                    "metadata": {"name": pool, "namespace": "ns", "labels": {"app": pool}},
                    "status": {"podIPs": [{"ip": f"10.1.0.{number}"}]},
                }
            )
        for number in (2, 3):
            address = f"192.0.2.{number}"
            status = {
                "addresses": [address],
                "tunnel": {"address": address, "mac": tunnel_mac(f"n{number}")},
                "gatewayFor": ["good", "bad"],
            }
            state.egress_nodes.put({"metadata": {"name": f"n{number}"}, "status": status})

    def policy(self, name: str, *, number: int, address: Address, revision: int = 1) -> None:
        self.state.policies.put(
            {
                "metadata": {"name": name, "namespace": "ns", "generation": revision},
                "spec": {"pool": name, "podSelector": {"matchLabels": {"app": name}}},
                "status": {"id": number, "addresses": [str(address)], "revision": revision},
            }
        )

    @property
    def live(self) -> Mapping[str, tuple[str, ...]]:
        return self.kernel.applied[-1][1].live_gateways

    def dies(self, node: str) -> float:
        self.prober.living -= {node}
        self.changes.note_gateways()
        return asyncio.get_running_loop().time()


@pytest.fixture(name="bench")
async def _bench() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.fill()
    task = asyncio.create_task(bench.controller.run())
    await asyncio.sleep(1)
    yield bench
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_nothing_is_said_before_the_first_apply_is_through() -> None:
    """Which ends with connections of former times being judged: an address given up may be another's only then."""
    bench = Bench()
    bench.fill()
    bench.kernel.takes = 3.0
    task = asyncio.create_task(bench.controller.run())
    await asyncio.sleep(2)
    assert (bench.settled, bench.controller.account, bench.controller.verdict) == (0, None, None)
    await asyncio.sleep(2)
    assert bench.controller.account is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_wrong_interface_of_one_pool_leaves_everything_else_programmed(bench: Bench) -> None:
    controller = bench.controller
    assert controller.account is not None
    assert controller.verdict is not None
    assert [trouble.pool for trouble in controller.account.troubles] == ["bad"]
    assert controller.account.gateway_for == {"good"}
    assert controller.account.revision == 1
    assert (controller.verdict.programmed, controller.verdict.ready) == (False, True)
    assert controller.verdict.reason is Reason.NODE_TROUBLE
    assert "eth7 is not on node n1" in controller.verdict.message
    bench.policy("good", number=5, address=GOOD, revision=9)
    await asyncio.sleep(1)
    assert controller.account.revision == 9


async def test_the_interface_comes_and_all_is_well(bench: Bench) -> None:
    bench.state.set_links(replace(LINKS, names=frozenset({"eth0", "eth7"})))
    await asyncio.sleep(1)
    assert bench.controller.account is not None
    assert bench.controller.account.gateway_for == {"good", "bad"}
    assert bench.controller.verdict is not None
    assert bench.controller.verdict.reason is Reason.PROGRAMMED


@pytest.mark.parametrize("what", ["the whole node is refused", "an item is refused", "an interface is wrong"])
async def test_a_gateways_death_waits_for_no_backoff_while(bench: Bench, what: str) -> None:
    """The kernel refuses what is newer: what is programmed follows all the same, as soon as an apply takes."""
    if what == "the whole node is refused":
        bench.kernel.refusal = "no memory"
        bench.policy("good", number=7, address=GOOD, revision=9)
        await asyncio.sleep(20)
        bench.kernel.refusal = None
    if what == "an item is refused":
        bench.kernel.refuses = (Failure("no", unanswered=GOOD),)
        bench.policy("good", number=7, address=GOOD, revision=9)
        await asyncio.sleep(20)
    began = bench.dies("n2")
    await asyncio.sleep(2 * (AGENT_COALESCE + APPLYING))
    assert "n2" not in bench.live["good"]
    assert bench.kernel.applied[-1][0] - began <= APPLYING + AGENT_COALESCE


async def test_what_is_programmed_for_a_dead_gateway_hides_no_refusal(bench: Bench) -> None:
    bench.kernel.refusal = "no memory"
    bench.policy("good", number=7, address=GOOD, revision=9)
    await asyncio.sleep(20)
    bench.kernel.refusal = None
    bench.dies("n2")
    await asyncio.sleep(APPLYING + AGENT_COALESCE)
    assert bench.controller.account is not None
    assert bench.controller.verdict is not None
    assert (bench.controller.verdict.message, bench.controller.account.revision) == ("no memory", 1)
    await asyncio.sleep(AGENT_RETRY_KERNEL)
    assert (bench.controller.verdict.ready, bench.controller.account.revision) == (True, 9)


async def test_an_address_that_the_kernel_does_not_answer_for_is_neither_held_nor_announced(bench: Bench) -> None:
    bench.prober.living = frozenset()
    bench.changes.note_gateways()
    await asyncio.sleep(1)
    assert bench.controller.programmed is not None
    assert bench.controller.programmed.held == {GOOD: "eth0"}
    bench.kernel.refuses = (Failure("cannot set proxy neighbour", unanswered=GOOD),)
    bench.kernel.announced.clear()
    bench.policy("good", number=7, address=GOOD, revision=9)
    await asyncio.sleep(1)
    assert bench.controller.programmed.desired.announced == {GOOD: "eth0"}
    assert bench.controller.programmed.held == {}
    bench.changes.note_gateways()
    await asyncio.sleep(1)
    assert bench.kernel.announced == []


async def test_a_refused_item_is_tried_again_ever_more_rarely_until_it_is_taken(bench: Bench) -> None:
    bench.kernel.refuses = (Failure("no", policy_id=7),)
    bench.policy("good", number=7, address=GOOD, revision=9)
    bench.state.set_links(replace(LINKS, names=frozenset({"eth7"})))
    await asyncio.sleep(60)
    tries = bench.kernel.anew
    assert 5 <= tries <= 12
    assert bench.controller.account is not None
    assert [trouble.policy.name for trouble in bench.controller.account.troubles if trouble.policy] == ["good"]
    bench.kernel.refuses = ()
    await asyncio.sleep(AGENT_RETRY_KERNEL + 1)
    assert bench.controller.account.troubles == ()
    tries = bench.kernel.anew
    await asyncio.sleep(120)
    assert bench.kernel.anew == tries


async def test_one_items_wait_is_not_anothers(bench: Bench) -> None:
    """What has failed for long is tried rarely; what fails now for the first time, soon."""
    old, new = Failure("old"), Failure("new")
    bench.kernel.refuses = (old,)
    bench.policy("good", number=7, address=GOOD, revision=9)
    await asyncio.sleep(100)
    tries = bench.kernel.anew
    assert tries <= 14
    bench.kernel.refuses = (old, new)
    bench.dies("n2")
    await asyncio.sleep(1.2)
    assert bench.kernel.anew > tries


async def test_nothing_comes_back_while_an_uninstall_is_under_way(bench: Bench) -> None:
    bench.state.egress_nodes.put({"metadata": {"name": "n1", "annotations": {"sluice.dev/remove": "true"}}})
    await asyncio.sleep(1)
    before = len(bench.kernel.applied)
    bench.dies("n2")
    await asyncio.sleep(5)
    assert len(bench.kernel.applied) == before
