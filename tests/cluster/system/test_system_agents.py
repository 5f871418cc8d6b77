"""What an agent does not say any more is not believed; what the API forgets for a moment, the wire does not notice."""

import json
import time
from typing import Any

import pytest
from tests.cluster.system.world import NAMESPACE, POOL, World, targets

from testbed.system import Pod, wait_for

SAID_WITHIN = 30
"""Seconds within which it is said that an agent is silent."""
OUTAGE = 5.0
"""Seconds that no stream may be without an answer. Nothing is interrupted, but a loaded machine stalls them too."""
REPORT = "/tmp/agents-streams"


@pytest.mark.cluster
def test_a_frozen_agent_makes_programmed_unknown_until_it_goes_on(world: World) -> None:
    system, node = world.system, world.system.cluster.nodes[-1]
    host = system.cluster.host(node)
    agent = host.run(["pgrep", "-f", "/sluice-agent( |$)"]).stdout.split()
    system.wait_condition("egresspolicy", "billing", "Programmed", namespace=NAMESPACE, seconds=60)
    host.run(["kill", "-STOP", *agent])
    frozen = time.monotonic()
    try:
        said = system.wait_condition(
            "egresspolicy", "billing", "Programmed", namespace=NAMESPACE, status="Unknown", seconds=SAID_WITHIN
        )
        print(f"Unknown {time.monotonic() - frozen:.1f} s after the agent of {node} was frozen")
        assert said["reason"] == "AgentSilent"
        assert node in said["message"]
        system.wait_condition("egresspolicy", "billing", "Degraded", namespace=NAMESPACE, seconds=1)
        assert all(answer["ok"] for answer in world.ask(world.selected[node], "tcp")), "its kernel goes on"
    finally:
        host.run(["kill", "-CONT", *agent])
    resumed = time.monotonic()
    system.wait_condition("egresspolicy", "billing", "Programmed", namespace=NAMESPACE, seconds=30)
    print(f"True {time.monotonic() - resumed:.1f} s after it went on")


def hold(world: World, pod: Pod) -> None:
    """Streams of the pod that count how long they wait for an answer, and new connections all the time."""
    kinds = " ".join(f"--kind={kind}" for kind in ("udp", "client-push", "connect"))
    command = f"traffic hold {kinds} --count=2 --report={REPORT} {' '.join(targets(world.system.outside))}"
    world.system.exec(
        pod, "sh", "-c", f"rm -f {REPORT}; setsid sh -c '{command} >/dev/null 2>&1 & echo $! >{REPORT}.pid'"
    )


def kinds(world: World, pod: Pod) -> dict[str, Any]:
    """The latest report of the pod's streams by kind; {} when there is none."""
    text = world.system.exec(pod, "sh", "-c", f"tail -n 1 {REPORT} 2>/dev/null", check=False).strip()
    found: dict[str, Any] = json.loads(text)["kinds"] if text else {}
    return found


@pytest.mark.cluster
def test_a_node_object_that_is_deleted_and_made_anew_interrupts_nothing(world: World) -> None:
    """The kubelet registers again when it is restarted, with another uid. The node is a gateway, and has pods."""
    system = world.system
    node = system.get("egresspool", POOL)["status"]["gateways"]["nodes"][0]
    pods = [world.selected[node], next(pod for name, pod in world.selected.items() if name != node)]
    before = system.get("egressnode", node)["metadata"]["uid"]
    for host in world.hosts:
        host.recorder.clear()
    for pod in pods:
        hold(world, pod)
    try:
        for pod in pods:
            wait_for(f"streams of {pod.name}", lambda pod=pod: kinds(world, pod).get("udp", {}).get("open") == 4, 30)
        system.kubectl("delete", "node", node)
        wait_for(f"EgressNode {node} is collected", lambda: not system.get("egressnode", node), 60)
        time.sleep(3)
        system.cluster.restart("kubelet", node)

        def anew() -> bool:
            found = system.get("egressnode", node)
            return bool(found) and found["metadata"]["uid"] != before and "tunnel" in found.get("status", {})

        registered = time.monotonic()
        wait_for(f"Node {node} is there again", lambda: system.get("node", node), 60)
        wait_for(f"EgressNode {node} is made anew", anew, 30)
        print(f"EgressNode anew {time.monotonic() - registered:.1f} s after the kubelet was restarted")
        time.sleep(2)
        for pod in pods:
            found = wait_for(f"the report of {pod.name}", lambda pod=pod: kinds(world, pod), 30)
            gaps = {kind: (entry["gap"], entry["silent"], entry["lost"]) for kind, entry in found.items()}
            print(f"{pod.name} on {pod.node}: {gaps}")
            for kind, (gap, silent, lost) in gaps.items():
                assert lost == 0, (pod.name, kind)
                assert max(gap, silent) < OUTAGE, (pod.name, kind)
    finally:
        for pod in pods:
            system.exec(pod, "sh", "-c", f"kill $(cat {REPORT}.pid)", check=False)
    assert not world.leaks()
    system.wait_condition("egresspolicy", "billing", "Ready", namespace=NAMESPACE, seconds=60)
