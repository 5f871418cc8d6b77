"""Three nodes with two pods each, a LAN, a host outside and one far behind a 1300-byte link, all in namespaces.

Each namespace has a worker process that lives in it and runs functions for the test; a node's worker holds its Kernel.
Nodes look as a CNI and kube-proxy leave them: strict reverse path filter, masquerade, invalid packets dropped.
Names carry a prefix of this process and are removed at the end, whatever happens.
"""

import ctypes
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sluice_node.core.desired import DesiredNode, Peer, PolicyProgram, SliceOwner

Address = IPv4Address | IPv6Address
P = ParamSpec("P")
R = TypeVar("R")

NODES = ("n1", "n2", "n3")
OUTSIDE = {4: ip_address("198.51.100.10"), 6: ip_address("2001:db8:100::10")}
FAR = {4: ip_address("203.0.113.10"), 6: ip_address("2001:db8:200::10")}
EGRESS = {4: ip_address("172.18.1.1"), 6: ip_address("fd00:18::e:1")}
_SYSCTL = Path("/proc/sys/net")


def run(*command: str, text: str | None = None) -> str:
    """A command's output; its complaint is the error."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _serve(name: str, pipe: Connection) -> None:
    with Path(f"/run/netns/{name}").open() as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), f"setns {name}")
    while True:
        try:
            function, arguments, named = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send((True, function(*arguments, **named)))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


class InNamespace(Exception):
    """What a function raised inside a namespace."""


class Namespace:
    """A network namespace and the process that works in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "netns", "add", name)
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Run a module-level function in the namespace and give what it gives; raises InNamespace."""
        self.start(function, *arguments, **named)
        return self.result()

    def start(self, function: Callable[P, Any], *arguments: P.args, **named: P.kwargs) -> None:
        """Begin a call; `result` waits for it."""
        self._pipe.send((function, arguments, named))

    def result(self) -> Any:
        good, value = self._pipe.recv()
        if not good:
            raise InNamespace(value)
        return value

    def ip(self, *lines: str) -> None:
        """`ip` commands, in one batch."""
        run("ip", "-n", self.name, "-batch", "-", text="\n".join(lines) + "\n")

    def sh(self, *command: str, text: str | None = None) -> str:
        """A command run in the namespace."""
        return run("ip", "netns", "exec", self.name, *command, text=text)

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


def set_sysctls(values: dict[str, str]) -> None:
    for path, value in values.items():
        (_SYSCTL / path).write_text(value)


@dataclass
class Topology:
    """The namespaces by short name: lan, out, far, n1.., p11.. (pod 1 of node 1)."""

    prefix: str
    spaces: dict[str, Namespace] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def __getitem__(self, name: str) -> Namespace:
        return self.spaces[name]

    def close(self) -> None:
        self.stack.close()

    def add(self, name: str) -> Namespace:
        space = Namespace(f"{self.prefix}{name}")
        self.stack.callback(space.close)
        self.spaces[name] = space
        # Duplicate address detection takes a link-local address a second or two, and until then nothing that is
        # forwarded to a neighbour is solicited: hosts that are up have that behind them.
        space.call(set_sysctls, {f"ipv6/conf/{scope}/accept_dad": "0" for scope in ("all", "default")})
        space.ip("link set lo up")
        return space

    def attach(self, name: str, mac: str) -> Namespace:
        """A namespace with its eth0 on the LAN."""
        space = self.add(name)
        self["lan"].ip(f"link add {name} type veth peer name eth0 netns {space.name} address {mac}")
        self["lan"].ip(f"link set {name} master br0 up")
        space.ip("link set eth0 up")
        return space


def build(prefix: str) -> Topology:
    """Make everything; on failure nothing is left."""
    topology = Topology(prefix)
    try:
        topology.add("lan").ip("link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up")
        _outside(topology)
        for number in range(1, len(NODES) + 1):
            _node(topology, number)
    except BaseException:
        topology.close()
        raise
    return topology


def _outside(topology: Topology) -> None:
    out = topology.attach("out", "02:00:00:00:01:00")
    far = topology.add("far")
    forward = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
    out.call(set_sysctls, forward)
    out.ip(
        "addr add 172.18.0.100/16 dev eth0",
        "addr add fd00:18::100/64 dev eth0 nodad",
        f"addr add {OUTSIDE[4]}/32 dev lo",
        f"addr add {OUTSIDE[6]}/128 dev lo nodad",
        f"link add far mtu 1300 type veth peer name eth0 mtu 1300 netns {far.name}",
        "link set far up",
        "addr add 192.0.2.1/24 dev far",
        "addr add 2001:db8:2::1/64 dev far nodad",
    )
    far.ip(
        "link set eth0 up",
        "addr add 192.0.2.2/24 dev eth0",
        "addr add 2001:db8:2::2/64 dev eth0 nodad",
        f"addr add {FAR[4]}/32 dev lo",
        f"addr add {FAR[6]}/128 dev lo nodad",
        "route add default via 192.0.2.1",
        "route add default via 2001:db8:2::1",
    )
    out.ip(f"route add {FAR[4]} via 192.0.2.2", f"route add {FAR[6]} via 2001:db8:2::2")


def _node(topology: Topology, number: int) -> None:
    name = f"n{number}"
    node = topology.attach(name, f"02:00:00:00:00:1{number}")
    strict = {f"ipv4/conf/{scope}/rp_filter": "1" for scope in ("all", "default", "eth0")}
    node.call(set_sysctls, strict | {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"})
    node.ip(
        f"addr add {node_address(name, 4)}/16 dev eth0",
        f"addr add {node_address(name, 6)}/64 dev eth0 nodad",
        "route add default via 172.18.0.100",
        "route add default via fd00:18::100",
    )
    for other in range(1, len(NODES) + 1):
        if other != number:
            node.ip(
                f"route add 10.244.{other}.0/24 via 172.18.0.1{other}",
                f"route add fd00:244:{other}::/64 via fd00:18::1{other}",
            )
    for pod in (1, 2):
        _pod(topology, node, number=number, pod=pod)
    for tool, pods in (("iptables-nft", "10.244.0.0/16"), ("ip6tables-nft", "fd00:244::/32")):
        node.sh(tool, "-t", "nat", "-A", "POSTROUTING", "-s", pods, "-d", pods, "-j", "RETURN")
        node.sh(tool, "-t", "nat", "-A", "POSTROUTING", "-s", pods, "-j", "MASQUERADE", "--random-fully")
        node.sh(tool, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")


def _pod(topology: Topology, node: Namespace, *, number: int, pod: int) -> None:
    space = topology.add(f"p{number}{pod}")
    device = f"veth{pod}"
    v4, v6 = pod_address(f"p{number}{pod}", 4), pod_address(f"p{number}{pod}", 6)
    node.ip(
        f"link add {device} type veth peer name eth0 netns {space.name}",
        f"link set {device} up",
        f"addr add 10.244.{number}.1/32 dev {device}",
        f"addr add fe80::1/64 dev {device} nodad",
    )
    space.ip(
        "link set eth0 up",
        f"addr add {v4}/32 dev eth0",
        f"addr add {v6}/128 dev eth0 nodad",
        f"route add 10.244.{number}.1 dev eth0 scope link",
        f"route add default via 10.244.{number}.1",
        "route add default via fe80::1 dev eth0",
    )
    node.ip(f"route add {v4} dev {device}", f"route add {v6} dev {device}")


def node_address(node: str, version: int) -> Address:
    return ip_address(f"172.18.0.1{node[1]}" if version == 4 else f"fd00:18::1{node[1]}")


def pod_address(pod: str, version: int) -> Address:
    return ip_address(f"10.244.{pod[1]}.1{pod[2]}" if version == 4 else f"fd00:244:{pod[1]}::1{pod[2]}")


def tunnel_mac(node: str) -> str:
    return f"02:73:6c:00:00:0{node[1]}"


_CLUSTER = ("10.244.0.0/16", "10.96.0.0/12", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4")
_CLUSTER6 = ("fd00:244::/32", "fd00:96::/112", "fe80::/10", "ff00::/8")
EXCLUDED = frozenset(
    {ip_network(text) for text in _CLUSTER + _CLUSTER6}
    | {ip_network(node_address(node, version)) for node in NODES for version in (4, 6)}
)


@dataclass(frozen=True)
class World:
    """What the whole cluster wants; `desired` is one node's part of it."""

    policies: tuple[PolicyProgram, ...] = (PolicyProgram(5, "partners", (EGRESS[4], EGRESS[6])),)
    pods: dict[str, int] = field(default_factory=lambda: {f"p{node[1]}1": 5 for node in NODES})
    blocked: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ("n2",)
    live: tuple[str, ...] | None = None
    holder: str | None = "n2"
    sizes: dict[Address, int] = field(default_factory=lambda: {EGRESS[4]: 1024, EGRESS[6]: 512})
    slices: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"n1": (40, 41), "n2": (42,), "n3": (44, 47)})
    underlay: int = 4

    def but(self, **changes: Any) -> "World":
        return replace(self, **changes)

    def ports(self, node: str, address: Address) -> set[int]:
        """The ports that a node may use with an egress IP."""
        size = self.sizes[address]
        return {port for index in self.slices[node] for port in range(index * size, (index + 1) * size)}

    def desired(self, node: str) -> DesiredNode:
        addresses = {
            pod_address(pod, version): policy
            for pod, policy in self.pods.items()
            if pod[1] == node[1]
            for version in (4, 6)
        }
        return DesiredNode(
            node=node,
            uplinks=("eth0",),
            tunnel_address=node_address(node, self.underlay),
            tunnel_mac=tunnel_mac(node),
            peers=tuple(Peer(n, node_address(n, self.underlay), tunnel_mac(n)) for n in NODES if n != node),
            excluded=EXCLUDED,
            policies=self.policies,
            pods=addresses,
            blocked_pods=frozenset(pod_address(pod, v) for pod in self.blocked if pod[1] == node[1] for v in (4, 6)),
            live_gateways={"partners": self.gateways if self.live is None else self.live},
            slices=tuple(self._slices()),
            proxy_endpoints={(node_address(g, v), 13128): g for g in self.gateways for v in (4, 6)},
            is_gateway=node in self.gateways,
            announced=dict.fromkeys(self.sizes, "eth0") if node == self.holder else {},
        )

    def _slices(self) -> Iterable[SliceOwner]:
        for address, size in self.sizes.items():
            for owner, indices in self.slices.items():
                for index in indices:
                    yield SliceOwner(address, index * size, size, owner)
