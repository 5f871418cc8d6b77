"""The proxy and its peers in one run: connections per second, CPU per connection and per gigabyte, memory per idle
tunnel.

Every program gets one process or thread, the same namespace, the same load and its turn in every round, so that what
the machine does meanwhile falls on all of them; the figures to compare are the CPU ones and the ratios. Peers that
are not installed are left out by name. HAProxy has no CONNECT: it runs as a plain TCP relay, which is less work.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "hack"))
sys.path.insert(0, str(ROOT))

from tests.netns.proxy_bed import PORT, SERVER_V4, ProxyBed, policy, snapshot, wait_until  # noqa: E402

from testbed import commands, prerequisites  # noqa: E402
from testbed.errors import ask_debug, ended  # noqa: E402

SERVER_PORT = 9000
TICKS = os.sysconf("SC_CLK_TCK")
GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class Proxy:
    """A program under test: its process, where it listens, whether it is spoken to with CONNECT."""

    name: str
    pid: int
    port: int
    connect: bool

    def processes(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system, of the program and its children."""
        total = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident(self) -> int:
        """Resident bytes of its largest process."""
        pages = max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes())
        return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Peer:
    """How to run another program: its configuration, and its command with {conf} in it."""

    port: int
    connect: bool
    config: str
    command: tuple[str, ...]


PEERS = {
    "haproxy": Peer(
        13201,
        False,
        "global\n nbthread 1\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n"
        " timeout server 60s\n option splice-auto\n"
        f"listen relay\n bind 127.0.0.1:13201\n server s {SERVER_V4}:{SERVER_PORT}\n",
        ("haproxy", "-db", "-f", "{conf}"),
    ),
    "tinyproxy": Peer(
        13202,
        True,
        'Port 13202\nListen 127.0.0.1\nTimeout 60\nMaxClients 9000\nLogFile "/dev/null"\nLogLevel Critical\n',
        ("tinyproxy", "-d", "-c", "{conf}"),
    ),
    "squid": Peer(
        13203,
        True,
        "http_port 127.0.0.1:13203\nacl CONNECT method CONNECT\nhttp_access allow all\ncache deny all\n"
        "access_log none\ncache_log /dev/null\npid_filename none\nmax_filedescriptors 19000\nclient_db off\n"
        "shutdown_lifetime 0 seconds\ncache_mem 8 MB\nnetdb_filename none\nlogfile_rotate 0\n"
        "unlinkd_program /bin/true\nicon_directory /\n",
        ("squid", "-N", "-f", "{conf}"),
    ),
}


@contextmanager
def running(bed: ProxyBed, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the namespace, ended afterwards."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", bed.namespace, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Bench:
    """Runs the load against one proxy at a time."""

    def __init__(self, bed: ProxyBed, load: Path) -> None:
        self.bed = bed
        self.load = load

    def client(self, mode: str, proxy: Proxy, count: int, seconds: float) -> dict[str, float]:
        connect = "1" if proxy.connect else "0"
        arguments = [mode, str(proxy.port), SERVER_V4, str(SERVER_PORT), connect, str(count), str(seconds)]
        done = self.bed.run([str(self.load), *arguments], timeout=seconds + 30)
        result: dict[str, float] = json.loads(done.stdout)
        return result

    def connections(self, proxy: Proxy, seconds: float) -> dict[str, float]:
        before = proxy.cpu()
        got = self.client("connections", proxy, 32, seconds)
        used = proxy.cpu() - before
        return {
            "connections/s": got["done"] / got["seconds"],
            "cpu us/connection": used / max(got["done"], 1) * 1e6,
            "p99 ms": got["p99"] * 1e3,
            "failed": got["failed"],
        }

    def bulk(self, proxy: Proxy, seconds: float) -> dict[str, float]:
        before = proxy.cpu()
        got = self.client("bulk", proxy, 16, seconds)
        used = proxy.cpu() - before
        return {"Gbit/s": got["bytes"] * 8e-9 / got["seconds"], "cpu s/GB": used / max(got["bytes"], 1) * GIGABYTE}

    def idle(self, proxy: Proxy, count: int) -> float:
        """Bytes of resident memory per idle tunnel."""
        before = proxy.resident()
        arguments = ["hold", str(proxy.port), SERVER_V4, str(SERVER_PORT), "1", str(count), "30"]
        with subprocess.Popen(
            ["ip", "netns", "exec", self.bed.namespace, str(self.load), *arguments], stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            held = json.loads(holder.stdout.readline())
            grown = proxy.resident() - before
            holder.terminate()
        return grown / max(held["ready"], 1)


@contextmanager
def started(bed: ProxyBed, name: str) -> Iterator[Proxy | None]:
    """A peer, or None when it is not installed or does not start."""
    peer = PEERS[name]
    if shutil.which(peer.command[0]) is None:
        yield None
        return
    config = bed.directory / f"{name}.conf"
    config.write_text(peer.config)
    with running(bed, [part.format(conf=config) for part in peer.command]) as process:
        deadline = time.monotonic() + 5
        listening = f":{peer.port} "
        while listening not in bed.run(["ss", "-Hltn"]).stdout and process.poll() is None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        ready = process.poll() is None and time.monotonic() <= deadline
        yield Proxy(name, process.pid, peer.port, peer.connect) if ready else None


def measure(bench: Bench, proxies: list[Proxy], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Medians over the rounds; within a round every proxy has its turn."""
    figures: dict[str, dict[str, list[float]]] = {proxy.name: {} for proxy in proxies}
    for _ in range(rounds):
        for proxy in proxies:
            for name, value in {**bench.connections(proxy, seconds), **bench.bulk(proxy, seconds)}.items():
                figures[proxy.name].setdefault(name, []).append(value)
    return {name: {key: statistics.median(values) for key, values in got.items()} for name, got in figures.items()}


def report(figures: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(figures.values())))
    print("".join(f"{title:>20}" for title in ("", *columns)))
    for name, row in figures.items():
        print(f"{name:>20}" + "".join(f"{row[column]:>20.3f}" for column in columns))
    ours = figures["sluice"]
    for name, row in figures.items():
        if name != "sluice" and row["connections/s"] and row["cpu s/GB"]:
            print(
                f"sluice against {name}: {ours['connections/s'] / row['connections/s']:.2f} x the connections, "
                f"{ours['cpu us/connection'] / row['cpu us/connection']:.2f} x the CPU for each, "
                f"{ours['cpu s/GB'] / row['cpu s/GB']:.2f} x the CPU for a gigabyte"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--tunnels", type=int, default=4000, help="idle tunnels that are held")
    parser.add_argument("--debug", action="store_true", help="show where an error happened")
    options = parser.parse_args()
    if options.debug:
        ask_debug()
    prerequisites.ensure_local()
    with tempfile.TemporaryDirectory() as folder, ProxyBed(Path(folder)) as bed:
        load = bed.directory / "load"
        argv = ["gcc", "-O2", "-o", str(load), str(ROOT / "bench" / "proxy_load.c")]
        commands.run(argv, shown="gcc of the load generator", remedy="see what gcc says above")
        bed.agent.say(snapshot(policy(5)))
        bed.start(workers=1)
        assert bed.process is not None
        ours = Proxy("sluice", bed.process.pid, PORT, connect=True)
        bench = Bench(bed, load)
        with (
            running(bed, [str(load), "serve", SERVER_V4, str(SERVER_PORT)]),
            started(bed, "haproxy") as haproxy,
            started(bed, "tinyproxy") as tinyproxy,
            started(bed, "squid") as squid,
        ):
            wait_until(lambda: f":{SERVER_PORT} " in bed.run(["ss", "-Hltn"]).stdout, "the server listens")
            peers = {"haproxy": haproxy, "tinyproxy": tinyproxy, "squid": squid}
            print("not available here:", ", ".join(name for name, peer in peers.items() if peer is None) or "none")
            print(f"resident memory of an idle worker: {ours.resident() / 1e6:.1f} MB")
            report(measure(bench, [ours, *filter(None, peers.values())], options.rounds, options.seconds))
            print(f"memory of an idle tunnel: {bench.idle(ours, options.tunnels):.0f} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
