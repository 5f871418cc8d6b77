"""A gateway that asks its link hears a host with the address, but no router for everything and no gateway of ours."""

import asyncio
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_cluster import MARKS, Cluster, cluster, topology
from tests.netns.datapath_topology import NODES, Address, Topology, World, node_address

from sluice_api.addresses import PoolAddresses
from sluice_node.agent.asker import Asker
from sluice_node.agent.links import read_links
from sluice_node.core.frames import announcement, mac_bytes
from sluice_node.core.objects import EgressNode, Key, Node, Pod, Pool
from sluice_node.core.snapshot import Snapshot
from sluice_node.kernel import neighbours
from sluice_node.kernel.listening import LinkSocket

__all__ = ["cluster", "topology"]
pytestmark = MARKS

ME = "n1"
POOL = PoolAddresses.parse(["172.18.7.1-172.18.7.3", "fd00:18::7:1-fd00:18::7:3"])
HELD = {4: ip_address("172.18.7.1"), 6: ip_address("fd00:18::7:1")}
FREE = {4: ip_address("172.18.7.2"), 6: ip_address("fd00:18::7:2")}
USED = {4: ip_address("172.18.7.3"), 6: ip_address("fd00:18::7:3")}
ROUND = 11.0
"""Seconds: eight addresses and decoys begin 0.25 s apart and wait up to 1 s, then up to 4 s of questions, and 2 s."""
HOST_MAC, ROUTER_MAC = "02:00:00:00:02:01", "02:00:00:00:02:02"


def ask(snapshot: Snapshot, held: Mapping[Address, str], *, seconds: float) -> dict[Address, tuple[str, str]]:
    """What a gateway's agent finds out in so many seconds."""

    async def run() -> dict[Address, tuple[str, str]]:
        asker = Asker(open_link=LinkSocket, neighbours=neighbours.read, changed=lambda: None)
        asker.look(snapshot, replace(World().desired(ME), announced=held))
        task = asyncio.create_task(asker.run())
        await asyncio.sleep(seconds)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return dict(asker.occupied)

    return asyncio.run(run())


def answer_everything(mac: str) -> None:
    """As a router does that answers for every address, whoever asks."""
    everything = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    everything.bind(("eth0", 3))

    def run() -> None:
        while True:
            frame = everything.recv(2048)
            kind = struct.unpack_from("!H", frame, 12)[0]
            if kind == 0x0806 and frame[20:22] == b"\0\1" and frame[28:32] == bytes(4):
                said = announcement(IPv4Address(frame[38:42]), mac)
                everything.send(frame[6:12] + said[6:20] + b"\0\2" + said[22:])
            elif kind == 0x86DD and frame[20] == 58 and frame[54] == 135 and frame[22:38] == bytes(16):
                everything.send(announcement(IPv6Address(frame[62:78]), mac))

    threading.Thread(target=run, daemon=True).start()


@pytest.fixture(scope="module", autouse=True)
def _host(topology: Topology) -> None:
    topology.attach("host", HOST_MAC).ip(f"addr add {USED[4]}/16 dev eth0", f"addr add {USED[6]}/64 dev eth0 nodad")


def snapshot(cluster: Cluster) -> Snapshot:
    """n1 is a gateway of the pool, of which nothing is claimed as far as it knows."""
    return Snapshot(
        node=Node(ME, "uid", tuple(node_address(ME, v) for v in (4, 6)), ()),
        links=cluster.topology[ME].call(read_links),
        pods=(Pod(Key("sluice-system", "gw"), "1", {}, "default", (), True, ready=True, gateway_for="partners"),),
        pools={"partners": Pool(Key("", "partners"), 1024, announces=True, addresses=POOL)},
        egress_nodes=tuple(EgressNode(Key("", n), tuple(node_address(n, v) for v in (4, 6))) for n in NODES),
    )


def test_a_host_is_heard_and_a_gateway_of_ours_is_not(cluster: Cluster) -> None:
    node = cluster.topology[ME]
    for version in (4, 6):
        assert node.call(traffic.ping, node_address("n2", version)), "so that the MAC of n2 is known"
    cluster.apply(World(sizes={HELD[4]: 1024, HELD[6]: 1024}, policies=()), nodes=("n2",))
    assert node.call(ask, snapshot(cluster), {}, seconds=ROUND) == {USED[v]: (HOST_MAC, "eth0") for v in (4, 6)}
    known = cluster.topology["host"].sh("ip", "neigh")
    assert not [address for address in (HELD[4], FREE[4]) if str(address) in known], "a question teaches nobody"


def test_the_host_whose_address_is_held_here_is_heard_when_it_speaks(cluster: Cluster) -> None:
    node = cluster.topology[ME]
    node.start(ask, snapshot(cluster), dict.fromkeys(USED.values(), "eth0"), seconds=4)
    for address in USED.values():
        for _ in range(20):
            cluster.topology["host"].call(traffic.send_frames, "eth0", [announcement(address, HOST_MAC)])
    assert node.result() == {USED[v]: (HOST_MAC, "eth0") for v in (4, 6)}


def test_a_router_that_answers_for_everything_says_nothing_and_hides_no_host(cluster: Cluster) -> None:
    router = cluster.topology.attach("router", ROUTER_MAC)
    router.call(answer_everything, ROUTER_MAC)
    found = cluster.topology[ME].call(ask, snapshot(cluster), {}, seconds=ROUND)
    assert found == {USED[v]: (HOST_MAC, "eth0") for v in (4, 6)}


def test_only_what_matters_gets_through_to_the_agent(topology: Topology) -> None:
    """The filters in the kernel: ARP of other addresses, and other packets, wake nobody."""
    here, there = topology[ME], topology["out"]
    here.call(listen, [(int(HELD[4]), int(FREE[4]))])
    mac = "02:00:00:00:03:03"
    ping = mac_bytes("02:00:00:00:00:11") + mac_bytes(mac) + b"\x08\x00" + bytes(60)
    solicitation = bytearray(announcement(HELD[6], mac))
    solicitation[54] = 135
    for frame in (ping, bytes(solicitation), *(announcement(USED[4] + offset, mac) for offset in (0, 1, 1000))):
        there.call(traffic.send_frames, "eth0", [frame])
    for address in (HELD[4], FREE[4], USED[6]):
        there.call(traffic.send_frames, "eth0", [announcement(address, mac)])
    assert here.call(hear) == [(HELD[4], mac), (FREE[4], mac), (USED[6], mac)]


_LISTENING: list[LinkSocket] = []


def listen(ranges: list[tuple[int, int]]) -> None:
    link = LinkSocket("eth0")
    link.hear_of(ranges)
    _LISTENING.append(link)


def hear() -> list[tuple[Address, str]]:
    link = _LISTENING.pop()
    heard = [(said.address, said.mac) for said in link.heard() if said.mac.startswith("02:00:00:00:03")]
    link.close()
    return heard
