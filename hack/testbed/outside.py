"""Hosts outside the cluster, as tests use them: services to talk to, a name server, and what was seen there.

The programs (testbed.recorder, testbed.dns) run on the host; this drives them through the host's `run` and `spawn`, so
it works for every kind of cluster. Times are Unix nanoseconds of the machine's clock (time.time_ns()).
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Literal

from testbed.cluster import ClusterError, Host
from testbed.dns.zone import Zone, format_zone
from testbed.recorder.flows import Seen, select

Address = IPv4Address | IPv6Address

#: The folder that holds the package `testbed`, for PYTHONPATH on the host.
CODE = Path(__file__).resolve().parents[1]
TCP_PORTS = (80, 443, 7000, 8080)
UDP_PORTS = (443, 7000)
_START_SECONDS = 15.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """What a recorder knew at one moment."""

    seen: list[Seen]
    contacts: list[dict[str, Any]]


class Recorder:
    """The recorder on one host: services on all its addresses, and a capture of every packet towards them."""

    def __init__(self, host: Host, folder: Path, *, interface: str = "eth0", python: str = sys.executable) -> None:
        """`folder` is the recorder's own on the host; `interface` is where the cluster's packets arrive."""
        self._host = host
        self._folder = folder
        self._interface = interface
        self._python = python

    def start(self) -> None:
        """Start it and wait until it serves. Raises ClusterError."""
        binds = [f"--bind={address}" for address in self._host.addresses]
        ports = [f"--tcp={','.join(map(str, TCP_PORTS))}", f"--udp={','.join(map(str, UDP_PORTS))}"]
        place = [f"--dir={self._folder}", f"--interface={self._interface}"]
        argv = [self._python, "-m", "testbed.recorder", "serve", *place, *ports, *binds]
        self._host.spawn("recorder", argv, {"PYTHONPATH": str(CODE), "PYTHONUNBUFFERED": "1"})
        _wait(self._answers, f"the recorder on {self._host.name} does not answer: see its log", _START_SECONDS)

    def stop(self) -> None:
        """End it; a recorder that does not run is no error."""
        self._query("stop", check=False)

    def clear(self) -> None:
        """Forget every packet and contact so far."""
        self._query("clear")

    def record(self) -> Record:
        """Everything since the start or the last clear: every packet that had arrived when this was called.

        Raises ClusterError if the kernel dropped packets before they were recorded: then the record proves nothing.
        """
        answer = json.loads(self._query("seen"))
        if answer["dropped"]:
            raise ClusterError(
                f"the recorder on {self._host.name} missed {answer['dropped']} packets",
                "the machine is too busy: try again",
            )
        return Record([Seen.from_json(entry) for entry in answer["seen"]], answer["contacts"])

    def seen(self, *, protocol: str | None = None, since: int = 0) -> list[Seen]:
        """The packets by identity: of a protocol (tcp, udp, icmp, ...; None: any), seen at `since` or later."""
        return select(self.record().seen, protocol=protocol, since=since)

    def sources(self, since: int = 0) -> set[Address]:
        """Every source address that a packet came from at `since` or later."""
        return {entry.source for entry in self.seen(since=since)}

    def wait_for(self, predicate: Callable[[list[Seen]], bool], timeout: float = 10.0) -> list[Seen]:
        """Wait until what was seen satisfies `predicate`; returns it. Raises TimeoutError, with what was seen."""
        end = time.monotonic() + timeout
        while True:
            seen = self.seen()
            if predicate(seen):
                return seen
            if time.monotonic() > end:
                raise TimeoutError(f"not seen on {self._host.name} in {timeout} s; seen: {seen[-20:]}")
            time.sleep(_POLL_SECONDS)

    def _answers(self) -> bool:
        return bool(self._query("seen", check=False))

    def _query(self, what: Literal["seen", "clear", "stop"], *, check: bool = True) -> str:
        environment = ["env", f"PYTHONPATH={CODE}"]
        argv = [*environment, self._python, "-m", "testbed.recorder", "query", f"--dir={self._folder}", what]
        return self._host.run(argv, check=check).stdout


class NameServer:
    """The name server on one host: what it says can be changed at any time."""

    def __init__(self, host: Host, folder: Path, *, python: str = sys.executable) -> None:
        self._host = host
        self._path = folder / "zone"
        self._python = python

    def start(self, zone: Zone, *, ttl: int = 5) -> None:
        """Serve a zone on port 53 of every address of the host. Raises ClusterError."""
        self.set(zone)
        binds = [f"--bind={address}" for address in self._host.addresses]
        argv = [self._python, "-m", "testbed.dns", f"--zone={self._path}", f"--ttl={ttl}", *binds]
        self._host.spawn("dns", argv, {"PYTHONPATH": str(CODE), "PYTHONUNBUFFERED": "1"})
        _wait(self._listens, f"the name server on {self._host.name} does not listen: see its log", _START_SECONDS)

    def set(self, zone: Zone) -> None:
        """Serve other records from the next query on."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1.new" && mv "$1.new" "$1"'
        self._host.run(["sh", "-c", script, "sh", str(self._path)], input=format_zone(zone))

    def _listens(self) -> bool:
        script = "import socket, sys; socket.create_connection((sys.argv[1], 53), 1)"
        argv = [self._python, "-c", script, str(self._host.addresses[-1])]
        return self._host.run(argv, check=False).returncode == 0


class OutsideHost:
    """A host outside the cluster with its recorder and, if it gets a zone, its name server."""

    def __init__(self, host: Host, folder: Path, *, interface: str = "eth0") -> None:
        """`folder` is on the host, and not shared with another host."""
        self.host = host
        self.recorder = Recorder(host, folder, interface=interface)
        self.names = NameServer(host, folder)

    def address(self, version: Literal[4, 6]) -> Address:
        """Its first address of a family. Raises LookupError if it has none."""
        for address in self.host.addresses:
            if address.version == version:
                return address
        raise LookupError(f"{self.host.name} has no IPv{version} address")

    def start(self, zone: Zone | None = None) -> None:
        """Start the recorder, and the name server for `zone`. Raises ClusterError."""
        self.recorder.start()
        if zone is not None:
            self.names.start(zone)


def _wait(condition: Callable[[], bool], problem: str, timeout: float) -> None:
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise ClusterError(problem)
        time.sleep(_POLL_SECONDS)
