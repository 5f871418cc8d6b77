"""TCP throughput of the kernel path against plain routing, in one run, alternating.

Three ways from a pod to a host outside, all between namespaces of this machine: plain (unselected: routed and
masqueraded by the node), local (selected, on a node that is a gateway itself), and tunnel (selected, through another
node). Each round sends the same bounded number of bytes; printed are the best round of each, which noise only lowers,
and its ratio to plain. Usage (root): bench/datapath.py [rounds] [MiB a round]
"""

import argparse
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hack"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.netns import datapath_topology as topo
from tests.netns import datapath_traffic as traffic
from tests.netns.datapath_topology import EGRESS, NODES, OUTSIDE, Address, World

from testbed.errors import ask_debug, ended
from testbed.prerequisites import PrerequisiteError

PORT = 9000
CHUNK = 1 << 18
WAYS = {"plain": "p12", "local": "p21", "tunnel": "p11"}


def receive(address: Address) -> tuple[str, float]:
    """Take one connection until it ends; gives who it came from and its bytes a second."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.create_server((str(address), PORT), family=family) as listener:
        listener.settimeout(30)
        connection, peer = listener.accept()
        buffer = bytearray(CHUNK)
        total, start = 0, time.perf_counter()
        with connection:
            connection.settimeout(30)
            while count := connection.recv_into(buffer):
                total += count
        return str(peer[0]), total / (time.perf_counter() - start)


def send(address: Address, size: int) -> None:
    """Send this many bytes over one connection."""
    chunk = bytes(CHUNK)
    for _ in range(50):
        try:
            connection = socket.create_connection((str(address), PORT), timeout=30)
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    else:
        raise ConnectionRefusedError(f"nobody listens on {address}")
    with connection:
        for _ in range(size // CHUNK):
            connection.sendall(chunk)


def measure(topology: topo.Topology, *, version: int, rounds: int, size: int) -> dict[str, float]:
    """Bytes a second of the best round of each way."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for way, pod in WAYS.items():
            topology["out"].start(receive, OUTSIDE[version])
            topology[pod].call(send, OUTSIDE[version], size)
            seen, rate = topology["out"].result()
            if (seen == str(EGRESS[version])) != (way != "plain"):
                raise RuntimeError(f"{way} left as {seen}")
            best[way] = max(best.get(way, 0.0), rate)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("mebibytes", nargs="?", type=int, default=256, help="sent in each measurement")
    parser.add_argument("--debug", action="store_true", help="show where an error happened")
    options = parser.parse_args()
    if options.debug:
        ask_debug()
    if os.geteuid() != 0:
        raise PrerequisiteError("the data path is measured in network namespaces, which needs root", "become root")
    rounds, size = options.rounds, options.mebibytes << 20
    topology = topo.build(f"slb{os.getpid()}-")
    try:
        with tempfile.TemporaryDirectory() as state:
            for node in NODES:
                topology[node].call(traffic.kernel_apply, World().desired(node), f"{state}/{node}")
            for version in (4, 6):
                best = measure(topology, version=version, rounds=rounds, size=size)
                for way, rate in best.items():
                    print(f"IPv{version} {way:7} {rate * 8 / 1e9:6.2f} Gbit/s  {rate / best['plain']:.2f} of plain")
    finally:
        topology.close()
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
