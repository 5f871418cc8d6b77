"""A host outside, for real: it answers what it is asked, and no packet that arrives there goes unseen."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster import ClusterError
from testbed.dns.zone import Zone
from testbed.outside import CODE, OutsideHost
from testbed.recorder.flows import Seen

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

Address = IPv4Address | IPv6Address
OUTSIDE = (ip_address("203.0.113.10"), ip_address("2001:db8:10::10"))
CLIENT = (ip_address("198.18.0.2"), ip_address("fd00:18::2"))
FOREIGN = (ip_address("10.99.0.7"), ip_address("fd00:99::7"))
SYN, RST, ACK = 0x02, 0x04, 0x10

# Sends packets, written as hex one a line, as they are.
SEND = """
import socket, sys
for line in sys.stdin:
    destination, data = line.split()
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes.fromhex(data), (destination, 0))
"""
# Sends one datagram, written as hex, to port 53 and prints the answer as hex.
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 53), 3) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    query = bytes.fromhex(sys.argv[2])
    udp.settimeout(3)
    udp.sendto(query, (sys.argv[1], 53))
    print(udp.recv(512).hex())
    tcp.sendall(len(query).to_bytes(2, "big") + query)
    print(tcp.recv(514)[2:].hex())
"""


class Namespace:
    """A host made of a network namespace."""

    def __init__(self, name: str, addresses: tuple[Address, ...], logs: Path) -> None:
        self.name = name
        self.addresses = addresses
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []
        ip("netns", "add", name)
        # A link-local address that is still being checked cannot ask for a neighbour.
        self.run(["sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0"])

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002
    ) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self.name, *argv]
        ran = subprocess.run(command, capture_output=True, text=True, input=input, check=False, timeout=60)
        if check and ran.returncode:
            raise ClusterError(f"{argv} ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
        return ran

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
        with (self._logs / name).open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *argv], stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )
        self._processes.append(process)
        return process.pid

    def log(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self._logs / name).read_text().splitlines()]

    def wait(self, pid: int) -> int:
        (process,) = (process for process in self._processes if process.pid == pid)
        return process.wait(timeout=30)

    def remove(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        ip("netns", "del", self.name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[OutsideHost, Namespace]]:
    prefix = f"slrec{os.getpid()}"
    outside = Namespace(f"{prefix}-o", OUTSIDE, tmp_path)
    client = Namespace(f"{prefix}-c", CLIENT, tmp_path)
    try:
        ip("link", "add", "eth0", "netns", outside.name, "type", "veth", "peer", "name", "eth0", "netns", client.name)
        for host, number in ((outside, 1), (client, 2)):
            for words in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"]):
                host.run(["ip", *words])
            host.run(["ip", "address", "add", f"198.18.0.{number}/24", "dev", "eth0"])
            host.run(["ip", "address", "add", f"fd00:18::{number}/64", "dev", "eth0", "nodad"])
        for address in OUTSIDE:
            outside.run(["ip", "address", "add", str(address), "dev", "lo", "nodad"])
        client.run(["ip", "route", "add", str(OUTSIDE[0]), "via", "198.18.0.1"])
        client.run(["ip", "route", "add", str(OUTSIDE[1]), "via", "fd00:18::1"])
        host = OutsideHost(outside, tmp_path / "outside")
        host.start()
        yield host, client
        host.recorder.stop()
    finally:
        client.remove()
        outside.remove()


def traffic(client: Namespace, *words: str, check: bool = True) -> list[dict[str, Any]]:
    command = ["env", f"PYTHONPATH={CODE}", sys.executable, "-m", "testbed.traffic", *words]
    return [json.loads(line) for line in client.run(command, check=check).stdout.splitlines()]


def target(address: Address, port: int = 7000) -> str:
    return f"--target=[{address}]:{port}" if address.version == 6 else f"--target={address}:{port}"


EVERYWHERE = [target(address) for address in OUTSIDE]


def packet(source: Address, destination: Address, protocol: int, payload: bytes) -> str:
    """A line for SEND. The checksums of the payload are left wrong: nobody is to accept it, only to see it."""
    if source.version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    return f"{destination} {(header + source.packed + destination.packed + payload).hex()}\n"


def tcp(flags: int, port: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000 + flags, port, 1, 1, 5 << 4, flags, 1000, 0, 0)


def wait_for_opened(client: Namespace, log: str, count: int) -> None:
    end = time.monotonic() + 20
    while not any(line["open"] == count for line in client.log(log)):
        assert time.monotonic() < end, client.log(log)[-1:]
        time.sleep(0.1)


def test_sees_packets_of_a_foreign_source_that_nobody_accepts(hosts: tuple[OutsideHost, Namespace]) -> None:
    outside, client = hosts
    lines = []
    for source, destination in zip(FOREIGN, OUTSIDE, strict=True):
        icmp = (
            (1, struct.pack("!BBHHH", 8, 0, 0, 77, 1))
            if source.version == 4
            else (58, struct.pack("!BBHHH", 128, 0, 0, 77, 1))
        )
        payloads = [
            *((6, tcp(flags, port)) for flags in (SYN, RST, ACK) for port in (80, 9)),
            (17, struct.pack("!HHHH", 5000, 9, 8, 0)),
            icmp,
            (132, bytes(12)),
        ]
        lines += [packet(source, destination, protocol, payload) for protocol, payload in payloads]
    since = time.time_ns()
    client.run([sys.executable, "-c", SEND], input="".join(lines))

    seen = [entry for entry in outside.recorder.seen(since=since) if entry.source in FOREIGN]

    def identity(entry: Seen) -> tuple[str, int, int, str]:
        return entry.protocol, entry.source_port, entry.destination_port, entry.stage

    expected = {
        *(("tcp", 40000 + SYN, port, "open") for port in (80, 9)),
        *(("tcp", 40000 + RST, port, "reset") for port in (80, 9)),
        *(("tcp", 40000 + ACK, port, "other") for port in (80, 9)),
        ("udp", 5000, 9, "other"),
        ("icmp", 77, 0, "other"),
        ("ip-132", 0, 0, "other"),
    }
    for source in FOREIGN:
        assert {identity(entry) for entry in seen if entry.source == source} == expected


def test_an_empty_record_after_clearing_means_that_nothing_came(hosts: tuple[OutsideHost, Namespace]) -> None:
    outside, client = hosts
    traffic(client, "check", *EVERYWHERE)
    assert outside.recorder.sources() == set(CLIENT)
    outside.recorder.clear()
    assert outside.recorder.record().seen == []
    assert outside.recorder.record().contacts == []
    later = time.time_ns()
    traffic(client, "check", EVERYWHERE[0])
    assert outside.recorder.sources(since=later) == {CLIENT[0]}
    assert outside.recorder.sources(since=time.time_ns()) == set()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_tells_a_client_what_it_sees_it_as_and_records_its_word(
    hosts: tuple[OutsideHost, Namespace], kind: str
) -> None:
    outside, client = hosts
    answers = traffic(client, "check", f"--kind={kind}", "--id=word", *EVERYWHERE)
    assert [answer["address"] for answer in answers] == [str(address) for address in CLIENT]
    contacts = [contact for contact in outside.recorder.record().contacts if contact["event"] in ("open", "datagram")]
    assert [(contact["source"], contact["source_port"], contact["id"]) for contact in contacts] == [
        (answer["address"], answer["port"], "word") for answer in answers
    ]
    seen = outside.recorder.seen(protocol=kind)
    assert {entry.source_port for entry in seen} == {answer["port"] for answer in answers}


def test_answers_http_and_ping(hosts: tuple[OutsideHost, Namespace]) -> None:
    outside, client = hosts
    fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())"
    for url in ("http://203.0.113.10/whoami", "http://[2001:db8:10::10]:8080/whoami"):
        answer = json.loads(client.run([sys.executable, "-c", fetch, url]).stdout)
        assert ip_address(answer["address"]) in CLIENT
    assert all(answer["ok"] for answer in traffic(client, "check", "--kind=ping", *EVERYWHERE))
    assert {entry.source for entry in outside.recorder.seen(protocol="icmp")} == set(CLIENT)


def test_a_probe_that_gets_no_answer_says_so(hosts: tuple[OutsideHost, Namespace]) -> None:
    _, client = hosts
    client.run(["ip", "link", "set", "eth0", "down"])
    for kind in ("tcp", "udp", "ping"):
        (answer,) = traffic(client, "check", f"--kind={kind}", "--timeout=0.3", EVERYWHERE[0], check=False)
        assert not answer["ok"]


@pytest.mark.parametrize("direction", [(), ("--upload",)])
def test_moves_bytes_unharmed_and_drops_no_packet_of_the_record(
    hosts: tuple[OutsideHost, Namespace], direction: tuple[str, ...]
) -> None:
    outside, client = hosts
    (answer,) = traffic(client, "transfer", "--bytes=20000000", *direction, EVERYWHERE[0])
    assert (answer["ok"], answer["bytes"]) == (True, 20_000_000)
    assert {entry.source for entry in outside.recorder.seen(protocol="tcp")} == {CLIENT[0]}


KINDS = ["idle", "client-push", "server-push", "udp", "ping", "connect"]
HOLD = [f"--kind={kind}" for kind in KINDS]


def test_held_streams_of_every_kind_live(hosts: tuple[OutsideHost, Namespace]) -> None:
    _, client = hosts
    reports = traffic(client, "hold", *HOLD, "--count=4", "--interval=50", "--verify-after=2", *EVERYWHERE)
    final = reports[-1]
    assert (final["verified"], final["streams"], final["open"], final["lost"]) == (True, 48, 48, 0)
    assert all(sum(kind["addresses"].values()) == 8 for name, kind in final["kinds"].items() if name != "ping")
    assert len(reports) > 1


def test_held_streams_are_lost_with_the_network_and_only_a_verification_says_so(
    hosts: tuple[OutsideHost, Namespace],
) -> None:
    _, client = hosts
    words = ["hold", *HOLD, "--interval=50", "--stall=0.5", *EVERYWHERE]
    pid = client.spawn("held", [sys.executable, "-m", "testbed.traffic", *words], {"PYTHONPATH": str(CODE)})
    wait_for_opened(client, "held", 12)
    client.run(["ip", "link", "set", "eth0", "down"])
    os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + 10
    while not (verified := [line for line in client.log("held") if line["verified"]]):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert verified[0]["lost"] == 12
    assert all(kind["errors"] == {"no progress": 2} for kind in verified[0]["kinds"].values())
    os.kill(pid, signal.SIGTERM)
    assert client.wait(pid) == 1


def test_held_connections_that_the_other_end_closes_are_lost_at_once(hosts: tuple[OutsideHost, Namespace]) -> None:
    outside, client = hosts
    words = ["hold", "--kind=idle", "--kind=client-push", "--kind=server-push", "--interval=50", *EVERYWHERE]
    client.spawn("held", [sys.executable, "-m", "testbed.traffic", *words], {"PYTHONPATH": str(CODE)})
    wait_for_opened(client, "held", 6)
    outside.recorder.stop()
    end = time.monotonic() + 10
    while client.log("held")[-1]["lost"] < 6:
        assert time.monotonic() < end, client.log("held")[-1]
        time.sleep(0.1)


def test_names_can_be_changed_while_they_are_served(hosts: tuple[OutsideHost, Namespace]) -> None:
    outside, client = hosts
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\3api\7partner\7example\0" + struct.pack("!HH", 1, 1)
    outside.names.start(Zone("partner.example", {"api.partner.example": (OUTSIDE[0],)}))
    for address in (OUTSIDE[0], IPv4Address("203.0.113.77")):
        outside.names.set(Zone("partner.example", {"api.partner.example": (address,)}))
        answers = client.run([sys.executable, "-c", ASK, str(OUTSIDE[0]), query.hex()]).stdout.split()
        assert [socket.inet_ntoa(bytes.fromhex(answer)[-4:]) for answer in answers] == [str(address)] * 2
