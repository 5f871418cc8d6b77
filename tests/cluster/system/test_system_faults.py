"""Whatever dies, established connections live, new ones work again, and no packet leaves with a wrong address.

Each selected pod holds idle, client-push and server-push TCP connections and UDP exchanges over IPv4 and IPv6, more
than 200 in all, from before the first fault until after the last.
"""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.cluster.system.world import NAMESPACE, POOL, World, targets

from testbed.system import NAMESPACE as SLUICE
from testbed.system import Pod, wait_for

KINDS = ("idle", "client-push", "server-push", "udp")
COUNT = 9
STREAMS = COUNT * len(KINDS) * 2
"""Of each kind nine, to each of the two addresses: 72 a pod."""
REPORT = "/tmp/streams"
RECOVERY = 60
API_OUTAGE = 120


@pytest.fixture(scope="module")
def streams(world: World) -> Iterator[World]:
    """The connections, established."""
    kinds = " ".join(f"--kind={kind}" for kind in KINDS)
    where = " ".join(targets(world.system.outside))
    hold = f"traffic hold {kinds} --count={COUNT} --stall=30 --report={REPORT} {where}"
    command = f"{hold} >/dev/null 2>&1 & echo $! >{REPORT}.pid"
    for host in world.hosts:
        host.recorder.clear()
    for pod in world.selected.values():
        world.system.exec(pod, "sh", "-c", f"rm -f {REPORT}; setsid sh -c '{command}'")
    for pod in world.selected.values():
        wait_for(f"streams of {pod.name}", lambda pod=pod: opened(world, pod) == STREAMS, 30)
    yield world
    for pod in world.selected.values():
        world.system.exec(pod, "sh", "-c", f"kill $(cat {REPORT}.pid)", check=False)


def report(world: World, pod: Pod, *, verified: bool = False) -> dict[str, Any]:
    """The latest report of a pod's streams (the latest verification, if that is asked for); {} when there is none."""
    pick = "grep '\"verified\": true'" if verified else "cat"
    text = world.system.exec(pod, "sh", "-c", f"{pick} {REPORT} 2>/dev/null | tail -n 1").strip()
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def opened(world: World, pod: Pod) -> int:
    """How many streams are open."""
    return int(report(world, pod).get("open", 0))


def verify(world: World, pods: Sequence[Pod]) -> None:
    """Every stream of the pods proves that it lives: idle ones are made to speak."""
    before = {pod: report(world, pod, verified=True).get("time", 0) for pod in pods}
    for pod in pods:
        world.system.exec(pod, "sh", "-c", f"kill -USR1 $(cat {REPORT}.pid)")
    for pod in pods:

        def proven(pod: Pod = pod) -> dict[str, Any] | None:
            last = report(world, pod, verified=True)
            return last if last.get("time", 0) > before[pod] else None

        last = wait_for(f"streams of {pod.name} verified", proven, 45)
        assert last["open"] == STREAMS, (pod.name, last["kinds"])


def new_flows(world: World, pods: Sequence[Pod], what: str) -> None:
    """New connections of the pods work again; prints after how long."""
    started = time.monotonic()
    for pod in pods:
        wait_for(
            f"new connections of {pod.name} after {what}",
            lambda pod=pod: all(a["ok"] for a in world.ask(pod, "tcp", timeout=2)),
            RECOVERY,
        )
    print(f"{what}: new connections after {time.monotonic() - started:.1f} s")


def kill(world: World, node: str, program: str) -> int:
    """kill -9 of every process of a program on a node; how many there were."""
    host = world.system.cluster.host(node)
    pids = host.run(["pgrep", "-f", f"/{program}( |$)"], check=False).stdout.split()
    if pids:
        host.run(["kill", "-9", *pids], check=False)
    return len(pids)


def ready(world: World, selector: str, count: int) -> None:
    """Wait until that many pods of Sluice are ready."""

    def all_ready() -> bool:
        pods = world.system.objects("pods", "-n", SLUICE, "-l", selector)
        good = [
            p
            for p in pods
            if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", ()))
        ]
        return len(good) >= count

    wait_for(f"{count} ready pods of {selector}", all_ready, 120)


@pytest.mark.cluster
def test_every_agent_killed(streams: World) -> None:
    pods = list(streams.selected.values())
    assert sum(kill(streams, node, "sluice-agent") for node in streams.system.cluster.nodes) >= 3
    new_flows(streams, pods, "kill -9 of every agent")
    verify(streams, pods)
    ready(streams, "app.kubernetes.io/name=sluice-agent", 3)
    assert not streams.leaks()


@pytest.mark.cluster
def test_the_operator_killed(streams: World) -> None:
    pods = list(streams.selected.values())
    assert sum(kill(streams, node, "sluice-operator") for node in streams.system.cluster.nodes) >= 1
    new_flows(streams, pods, "kill -9 of the operator")
    verify(streams, pods)
    ready(streams, "app.kubernetes.io/name=sluice-operator", 2)
    assert not streams.leaks()


@pytest.mark.cluster
def test_a_proxy_killed(streams: World) -> None:
    pods = list(streams.selected.values())
    gateways = streams.system.get("egresspool", POOL)["status"]["gateways"]["nodes"]
    assert kill(streams, gateways[0], "sluice-proxy") >= 1
    new_flows(streams, pods, "kill -9 of a proxy")
    verify(streams, pods)
    ready(streams, f"sluice.dev/pool={POOL}", 2)
    assert not streams.leaks()


@pytest.mark.cluster
def test_the_api_server_gone_for_two_minutes(streams: World) -> None:
    pods = list(streams.selected.values())
    cluster = streams.system.cluster
    cluster.stop("kube-apiserver", "cp")
    try:
        time.sleep(API_OUTAGE)
    finally:
        cluster.start("kube-apiserver", "cp")
    wait_for("the API server answers", lambda: cluster.kubectl("get", "nodes", check=False), 60)
    new_flows(streams, pods, f"API server gone for {API_OUTAGE} s")
    verify(streams, pods)
    assert not streams.leaks()


@pytest.mark.cluster
def test_power_off_of_the_gateway_that_holds_the_egress_ip(streams: World) -> None:
    system = streams.system
    (address,) = (a for a in streams.egress() if ":" not in a)
    holder = system.get("egressip", address)["status"]["holder"]
    survivors = [pod for node, pod in streams.selected.items() if node != holder]
    system.cluster.power_off(holder)
    try:
        new_flows(streams, survivors, f"power-off of {holder}, gateway and holder")
        verify(streams, survivors)
        now = system.get("egressip", address)["status"]["holder"]
        assert now != holder
        assert not streams.leaks()
    finally:
        system.cluster.boot(holder)
    ready(streams, "app.kubernetes.io/name=sluice-agent", 3)
    system.wait_condition("egresspolicy", "billing", "Ready", namespace=NAMESPACE, seconds=120)
    verify(streams, survivors)
    assert not streams.leaks()
