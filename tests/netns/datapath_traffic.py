"""What runs inside the namespaces of the data path tests: kernels, servers, clients, and the capture that judges.

Every function here is called by name in a worker process; what must outlive a call is kept in `_KEPT`.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from sluice_node.core.desired import DesiredNode
from sluice_node.core.failures import Failure
from sluice_node.core.flows import Flow
from sluice_node.core.routing import plumbing
from sluice_node.kernel.apply import Kernel
from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.nft import Nft
from sluice_node.kernel.probes import Probes
from sluice_node.kernel.report import Report

Address = IPv4Address | IPv6Address
_KEPT: dict[str, Any] = {}
PORT = 8080


def kernel_apply(desired: DesiredNode, state: str, *, anew: bool = False) -> Report:
    if "kernel" not in _KEPT:
        _KEPT["kernel"] = Kernel(state=Path(state))
    report: Report = _KEPT["kernel"].apply(desired, anew=anew)
    return report


@dataclass(frozen=True)
class Outcome:
    """What came of an apply in which one call to the kernel failed: the call, what was raised or reported, and what is
    missing of the plumbing that there would be otherwise."""

    failed: str | None
    raised: str | None
    failures: tuple[Failure, ...]
    missing: frozenset[str]


def kernel_apply_failing(desired: DesiredNode, state: str, number: int) -> Outcome:
    """Apply to a new kernel, whose `number`th change through netlink or of a setting fails."""
    kernel = _KEPT["kernel"] = Kernel(state=Path(state))
    failed: list[str] = []
    count = 0

    def one_fails(whole: Callable[..., Any], refuse: Callable[..., None]) -> Callable[..., Any]:
        def act(what: str, *arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == number + 1:
                failed.append(what)
                return refuse(what, *arguments)
            return whole(what, *arguments, **named)

        return act

    def no_change(what: str, *_: Any) -> None:
        raise KernelError(f"cannot {what}: injected")

    def no_setting(path: str, value: str, refused: dict[str, str]) -> None:
        refused[path] = f"cannot set /{path} to {value}: injected"

    change, write = kernel._netlink._change, kernel._settings._write
    kernel._netlink._change = one_fails(change, no_change)  # type: ignore[method-assign]
    kernel._settings._write = one_fails(write, no_setting)  # type: ignore[method-assign]
    raised, failures = None, ()
    try:
        failures = kernel.apply(desired).failures
    except KernelError as error:
        raised = str(error)
    kernel._netlink._change, kernel._settings._write = change, write  # type: ignore[method-assign]
    held = kernel._netlink.read()
    wanted = plumbing(desired, mtu=kernel._mtu(desired), ipv6=True)
    settings = kernel._settings.held(path for path, _ in wanted.settings)
    missing = {
        str(item)
        for name in ("neighbours", "ends", "routes", "rules", "answers")
        for item in getattr(wanted, name) - getattr(held, name)
    }
    return Outcome(
        failed[0] if failed else None, raised, failures, frozenset(missing | set(map(str, wanted.settings - settings)))
    )


def kernel_apply_holding_on(desired: DesiredNode, state: str, times: int) -> Report:
    """Apply, while the kernel refuses to forget that many connections."""
    kernel: Kernel = _KEPT["kernel"]
    whole = kernel._conntrack._delete

    def refuse(entry: Any) -> int:
        nonlocal times
        times -= 1
        if times >= 0:
            raise KernelError("cannot forget a connection: injected")
        return whole(entry)

    kernel._conntrack._delete = refuse  # type: ignore[method-assign]
    try:
        return kernel.apply(desired)
    finally:
        kernel._conntrack._delete = whole  # type: ignore[method-assign]


def kernel_apply_stopped(desired: DesiredNode, state: str) -> None:
    """As if the agent ended between the rules and the connections."""
    kernel = _KEPT.setdefault("kernel", Kernel(state=Path(state)))
    whole, kernel._conntrack.clean = kernel._conntrack.clean, _stop
    try:
        with contextlib.suppress(Stopped):
            kernel.apply(desired)
    finally:
        kernel._conntrack.clean = whole


class Stopped(Exception):
    """Where an apply was made to end."""


def _stop(*_: Any, **__: Any) -> int:
    raise Stopped


def kernel_check() -> bool:
    return bool(_KEPT["kernel"].check())


def kernel_counters() -> Mapping[str, int]:
    counters: Mapping[str, int] = _KEPT["kernel"].counters()
    return counters


def kernel_opened_by(source: Address) -> list[Flow]:
    """The connections that an address has opened, as the agent tells the check of an installation."""
    flows: list[Flow] = _KEPT["kernel"].opened_by(source)
    return flows


def kernel_remove() -> None:
    if "kernel" in _KEPT:
        _KEPT["kernel"].remove()


def load_rules(transactions: list[str]) -> str:
    """Run nft transactions one after the other and give what the kernel then holds."""
    nft = Nft()
    for text in transactions:
        nft.run(text or "\n")
    listing = nft.run("list table inet sluice") + nft.run("list table netdev sluice")
    nft.close()
    return listing


def kernel_clean_up(state: str) -> None:
    """As a process would that has programmed nothing itself."""
    kernel = Kernel(state=Path(state))
    kernel.remove()
    kernel.close()


def kernel_forget() -> None:
    """As if the agent's process had ended: what the kernel holds stays."""
    kernel = _KEPT.pop("kernel", None)
    if kernel is not None:
        kernel.close()


def serve(addresses: list[Address], port: int = PORT) -> None:
    """TCP and UDP servers that answer every message with the sender's address, as they see it."""
    for address in addresses:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        listener = socket.create_server((str(address), port), family=family, backlog=256)
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.bind((str(address), port))
        threading.Thread(target=_answer, args=(datagrams,), daemon=True).start()


def _accept(listener: socket.socket) -> None:
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=_talk, args=(connection, peer), daemon=True).start()


def _talk(connection: socket.socket, peer: tuple[Any, ...]) -> None:
    with connection:
        while data := connection.recv(65536):
            head, _, rest = data.partition(b"\n")
            if head.startswith(b"bulk "):
                left = int(head[5:]) - len(rest)
                while left > 0:
                    left -= len(connection.recv(65536))
                connection.sendall(b"x" * int(head[5:]) + b"\n")
            elif head == b"mark":
                connection.sendall(b"%d\n" % connection.getsockopt(socket.SOL_SOCKET, socket.SO_MARK))
            else:
                connection.sendall(f"{peer[0]} {peer[1]}\n".encode())


def _answer(datagrams: socket.socket) -> None:
    while True:
        _, peer = datagrams.recvfrom(65536)
        datagrams.sendto(f"{peer[0]} {peer[1]}\n".encode(), peer)


def _line(connection: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data.decode().strip()


def _seen(text: str) -> tuple[Address, int]:
    address, port = text.split()
    return ip_address(address), int(port)


def _connect(target: Address, *, port: int, source: Address | None, uid: int, timeout: float) -> socket.socket:
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    if source is not None:
        if source.version == 6:
            connection.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
        connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        connection.bind((str(source), 0))
    connection.connect((str(target), port))
    return connection


def tcp(
    target: Address, *, port: int = PORT, source: Address | None = None, uid: int = 0, timeout: float = 2
) -> tuple[Address, int]:
    """Connect, ask, and give the address and port that the server saw; as `uid`, from `source` if given."""
    if uid:
        os.seteuid(uid)
    try:
        with _connect(target, port=port, source=source, uid=uid, timeout=timeout) as connection:
            connection.sendall(b"who\n")
            return _seen(_line(connection))
    finally:
        if uid:
            os.seteuid(0)


def mark_at(target: Address, *, port: int) -> int:
    """The SO_MARK of the socket that accepted our connection."""
    with _connect(target, port=port, source=None, uid=0, timeout=2) as connection:
        connection.sendall(b"mark\n")
        return int(_line(connection))


def bulk(target: Address, size: int, *, source: Address | None = None, timeout: float = 5) -> int:
    """Send and receive `size` bytes over one connection; gives how many came back."""
    with _connect(target, port=PORT, source=source, uid=0, timeout=timeout) as connection:
        connection.sendall(b"bulk %d\n" % size + b"y" * size)
        return len(_line(connection))


def udp(target: Address, *, port: int = PORT, size: int = 4, timeout: float = 1) -> tuple[Address, int]:
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(timeout)
        datagrams.connect((str(target), port))
        for _ in range(3):
            datagrams.send(b"x" * size)
            try:
                return _seen(datagrams.recv(65536).decode())
            except OSError as error:
                if error.errno != errno.EMSGSIZE:  # the path is narrower than thought: once more, in fragments
                    raise
        raise TimeoutError


def ping(target: Address, *, timeout: float = 1) -> bool:
    """One echo request; whether the reply came."""
    family, protocol, kind = (
        (socket.AF_INET, socket.IPPROTO_ICMP, 8)
        if target.version == 4
        else (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128)
    )
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.settimeout(timeout)
        identifier = os.getpid() & 0xFFFF
        packet = struct.pack("!BBHHH", kind, 0, 0, identifier, 1) + b"sluice.."
        if target.version == 4:
            total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
            total = (total & 0xFFFF) + (total >> 16)
            packet = packet[:2] + struct.pack("!H", (total & 0xFFFF) ^ 0xFFFF) + packet[4:]
        raw.sendto(packet, (str(target), 0))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                data, peer = raw.recvfrom(2048)
            except TimeoutError:
                return False
            body = data[20:] if target.version == 4 else data
            if body[0] in (0, 129) and ip_address(peer[0]) == target and body[4:6] == struct.pack("!H", identifier):
                return True
        return False


def open_flow(
    name: str, target: Address, port: int = PORT, *, kind: str = "tcp", source: Address | None = None
) -> tuple[Address, int]:
    """A connection (or UDP socket) that stays open under a name."""
    if kind == "udp":
        connection = socket.socket(socket.AF_INET if target.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        connection.settimeout(1)
        connection.connect((str(target), port))
    else:
        connection = _connect(target, port=port, source=source, uid=0, timeout=2)
    _KEPT[name] = connection
    return use_flow(name)


def use_flow(name: str) -> tuple[Address, int]:
    """A question and its answer on an open connection."""
    connection = _KEPT[name]
    connection.sendall(b"who\n")
    if connection.type == socket.SOCK_DGRAM:
        return _seen(connection.recv(65536).decode())
    return _seen(_line(connection))


def poke_flow(name: str, times: int) -> None:
    """Send on a UDP socket that is open, and wait for no answer."""
    for _ in range(times):
        with contextlib.suppress(OSError):
            _KEPT[name].send(b"poke\n")


@dataclass(frozen=True)
class Packet:
    """A packet as it came in from the LAN: source, destination, protocol, source port or identifier, sender's MAC."""

    source: Address
    target: Address
    protocol: int
    port: int | None
    mac: str = field(default="", compare=False)


def capture_start() -> None:
    """Record every IP packet that comes in on eth0."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    tap.bind(("eth0", 3))
    tap.setblocking(False)
    _KEPT["tap"] = tap


def capture_stop() -> list[Packet]:
    """What came in since the start."""
    tap: socket.socket = _KEPT.pop("tap")
    packets = []
    with tap:
        while select.select([tap], [], [], 0.05)[0]:
            data, where = tap.recvfrom(65536)
            if where[2] != 4:  # PACKET_OUTGOING
                packet = _parse(data, kind=where[1])
                if packet is not None:
                    packets.append(replace(packet, mac=where[4].hex(":")))
    return packets


def _parse(data: bytes, *, kind: int) -> Packet | None:
    if kind == 0x0800:
        protocol, start = data[9], (data[0] & 15) * 4
        source, target = ip_address(data[12:16]), ip_address(data[16:20])
    elif kind == 0x86DD:
        protocol, start = data[6], 40
        source, target = ip_address(data[8:24]), ip_address(data[24:40])
    else:
        return None
    port = None
    if protocol in (6, 17):
        port = int.from_bytes(data[start : start + 2])
    elif protocol in (1, 58) and data[start] in (8, 128):
        port = int.from_bytes(data[start + 4 : start + 6])
    return Packet(source, target, protocol, port)


def probes(mac: str, gateways: list[str], *, seconds: float) -> dict[str, int]:
    """Probe each gateway once and count what comes back within the time, by MAC."""
    probe = Probes(mac)
    try:
        for number, gateway in enumerate(gateways):
            probe.send(gateway=gateway, sequence=number)
        deadline = time.monotonic() + seconds
        back: dict[str, int] = {}
        while (left := deadline - time.monotonic()) > 0 and select.select([probe.fileno()], [], [], left)[0]:
            for echo in probe.received():
                back[echo.mac] = back.get(echo.mac, 0) + 1
        return back
    finally:
        probe.close()


def stream_start(targets: list[Address], *, seconds: float) -> None:
    """Send to the targets in turn, each time as a new flow and once on an old one, some hundred a second."""
    stop = threading.Event()
    thread = threading.Thread(target=_stream, args=(targets, stop, time.monotonic() + seconds), daemon=True)
    _KEPT["stream"] = (stop, thread)
    thread.start()


def stream_stop() -> None:
    stop, thread = _KEPT.pop("stream")
    stop.set()
    thread.join()


def _stream(targets: list[Address], stop: threading.Event, until: float) -> None:
    families = {4: socket.AF_INET, 6: socket.AF_INET6}
    old = {target: socket.socket(families[target.version], socket.SOCK_DGRAM) for target in targets}
    while not stop.wait(0.003) and time.monotonic() < until:
        for target in targets:
            with socket.socket(families[target.version], socket.SOCK_DGRAM) as new:
                for sender in (new, old[target]):
                    with contextlib.suppress(OSError):  # what ICMP says about an earlier one is no matter
                        sender.sendto(b"stream", (str(target), PORT))
    for sender in old.values():
        sender.close()


def hear_arp(address: IPv4Address, seconds: float) -> bool:
    """Whether an ARP packet that speaks of the address as its sender's comes in on eth0 within that time."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0806)) as tap:
        tap.bind(("eth0", 0x0806))
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and select.select([tap], [], [], left)[0]:
            if tap.recv(64)[14:18] == address.packed:
                return True
        return False


def send_frames(interface: str, frames: list[bytes]) -> None:
    """Put raw frames on an interface."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        for frame in frames:
            raw.sendto(frame, (interface, 0))
