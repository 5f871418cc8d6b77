"""Selected pods of every node leave with the egress IP, whatever they send and wherever it goes."""

import json

import pytest
from tests.cluster.system.world import World, targets


@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_hosts_outside_see_the_egress_ip_and_a_port_in_the_slice_of_the_pods_node(world: World, kind: str) -> None:
    egress, owners = world.egress(), world.slices()
    for node, pod in world.selected.items():
        answers = world.ask(pod, kind)
        assert len(answers) == 4
        for answer in answers:
            assert answer["ok"], (node, answer)
            assert answer["address"] in egress
            assert owners[answer["address"], answer["port"]] == node


@pytest.mark.cluster
def test_pings_of_every_node_are_answered_and_come_from_the_egress_ip(world: World) -> None:
    for host in world.hosts:
        host.recorder.clear()
    for node, pod in world.selected.items():
        answers = world.ask(pod, "ping")
        assert [a["ok"] for a in answers] == [True] * 4, (node, answers)
    assert not world.leaks()
    for host in world.hosts:
        pings = {str(s.source) for s in host.recorder.seen() if s.protocol.startswith("icmp")}
        assert pings == world.egress()


@pytest.mark.cluster
@pytest.mark.parametrize("direction", ["download", "upload"])
def test_twenty_megabytes_arrive_intact_through_a_link_with_a_small_mtu(world: World, direction: str) -> None:
    for pod in world.selected.values():
        extra = ["--upload"] if direction == "upload" else []
        where = targets(world.system.far)
        output = world.system.exec(pod, "traffic", "transfer", "--bytes=20000000", *extra, *where, check=False)
        answers = [json.loads(line) for line in output.splitlines()]
        assert len(answers) == 2
        assert all(answer["ok"] for answer in answers), answers
        print(f"{pod.node} {direction}: " + ", ".join(f"{20 / a['seconds']:.0f} MB/s" for a in answers))


@pytest.mark.cluster
def test_no_packet_of_a_selected_pod_was_seen_with_another_source(world: World) -> None:
    assert not world.leaks()


@pytest.mark.cluster
def test_an_agent_takes_at_most_sixty_megabytes(world: World) -> None:
    for node in world.system.cluster.nodes:
        script = "for p in $(pgrep -f '/sluice-agent run'); do grep VmRSS /proc/$p/status; done"
        resident = world.system.cluster.host(node).run(["sh", "-c", script]).stdout.split()
        sizes = [int(word) / 1024 for word in resident if word.isdecimal()]
        assert sizes
        print(f"agent of {node}: {max(sizes):.0f} MB resident")
        assert max(sizes) <= 60
