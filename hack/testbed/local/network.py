"""The network of a local cluster: a namespace that holds the bridges, one namespace a host, a link to the machine.

The lists of commands are pure functions of the plan; `Network` only runs them.
Invariant: nothing in any of the namespaces is forwarded to the machine: the machine has a /30 with the control plane,
and the control plane does not forward.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testbed.cluster import ClusterError
from testbed.local.plan import LINKS, HostPlan, Plan, Port, Route, netns_prefix
from testbed.local.process import run, wait_until

SWITCH = "lan"
NAMESPACES = Path("/run/netns")
FAULTS = "faults"


def switch_commands() -> list[str]:
    """`ip` lines that make the bridges in their namespace."""
    lines = ["link set lo up"]
    for bridge in ("lan0", "far0"):
        lines += [f"link add {bridge} type bridge mcast_snooping 0", f"link set {bridge} up"]
    return lines


def port_commands(port: Port, *, switch: str) -> list[str]:
    """`ip` lines, run in the host's namespace, that plug it in."""
    lines = [f"link add {port.device} mtu {port.mtu} type veth peer name {port.plug} mtu {port.mtu} netns {switch}"]
    for address in port.addresses:
        lines.append(f"addr add {address} dev {port.device}" + (" nodad" if address.version == 6 else ""))
    lines.append(f"link set {port.device} up")
    return lines


def route_command(route: Route) -> str:
    """The `ip` line of a route."""
    via = f" via {route.via}" if route.via else ""
    return f"route add {route.to}{via} dev {route.device}"


def host_commands(host: HostPlan, *, switch: str) -> list[str]:
    """All `ip` lines of a host, run in its namespace, but the routes (they need the other end up)."""
    lines = ["link set lo up"]
    for port in host.ports:
        lines += port_commands(port, switch=switch)
    return lines + [f"addr add {address} dev lo" for address in host.loopback]


def sysctls(host: HostPlan) -> dict[str, str]:
    """Settings of a host's network namespace."""
    settings = {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"}
    if host.forwards:
        settings |= {
            "net.ipv4.ip_forward": "1",
            "net.ipv6.conf.all.forwarding": "1",
            # a router that reports "fragmentation needed" to many pods at once must not be silenced
            "net.ipv4.icmp_ratelimit": "0",
        }
    return settings


def masquerade_rules(plan: Plan) -> str:
    """What a network plugin does for pods that leave the cluster: they leave with their node's address."""
    rules = []
    for pods, services in zip(plan.pods, plan.services, strict=True):
        word = "ip6" if pods.version == 6 else "ip"
        rules.append(f'{word} saddr {pods} {word} daddr != {{ {pods}, {services} }} oifname "eth0" masquerade')
    body = "\n    ".join(["type nat hook postrouting priority 100;", *rules])
    return f"table inet cni-masquerade {{\n  chain postrouting {{\n    {body}\n  }}\n}}\n"


def partition_rules(a: str, b: str) -> str:
    """nft script for the switch: drop every frame between two ports, both ways. Adding it twice is harmless."""
    return (
        f"add table bridge {FAULTS}\n"
        f"add set bridge {FAULTS} cut {{ type ifname . ifname; }}\n"
        f"add chain bridge {FAULTS} forward {{ type filter hook forward priority 0; }}\n"
        f"flush chain bridge {FAULTS} forward\n"
        f"add rule bridge {FAULTS} forward iifname . oifname @cut counter drop\n"
        f'add element bridge {FAULTS} cut {{ "{a}" . "{b}", "{b}" . "{a}" }}\n'
    )


def heal_rules(a: str, b: str) -> str:
    """nft script that undoes `partition_rules`."""
    return f'delete element bridge {FAULTS} cut {{ "{a}" . "{b}", "{b}" . "{a}" }}\n'


def plugs_between(plan: Plan, a: str, b: str) -> tuple[str, str]:
    """The two plugs of one bridge that frames between two hosts pass. Raises ClusterError when a router is between."""
    for mine in plan.host(a).ports:
        for other in plan.host(b).ports:
            if a != b and mine.bridge == other.bridge:
                return mine.plug, other.plug
    raise ClusterError(f"{a} and {b} are not on one link", "what is between them is `outside`: cut that")


@dataclass(frozen=True, slots=True)
class Network:
    """The namespaces and links of one cluster."""

    plan: Plan

    @property
    def switch(self) -> str:
        """Namespace of the bridges."""
        return self.plan.netns(SWITCH)

    def create(self) -> None:
        """Make everything, hosts included."""
        run(["ip", "netns", "add", self.switch])
        batch(self.switch, switch_commands())
        # frames between hosts are the LAN's, not this namespace's to filter
        set_sysctls(self.switch, {f"net.bridge.bridge-nf-call-{t}tables": "0" for t in ("ip", "ip6", "arp")})
        for host in self.plan.hosts:
            self.add_host(host)
        self._link_machine()

    def add_host(self, host: HostPlan) -> None:
        """Make a host's namespace and plug it in."""
        namespace = self.plan.netns(host.name)
        run(["ip", "netns", "add", namespace])
        set_sysctls(namespace, sysctls(host))
        batch(namespace, host_commands(host, switch=self.switch))
        for port in host.ports:
            batch(self.switch, [f"link set {port.plug} master {port.bridge} up"])
        batch(namespace, map(route_command, host.routes))
        if host.name in self.plan.nodes:
            run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], stdin=masquerade_rules(self.plan))

    def unplug(self, host: HostPlan) -> None:
        """Take the host's links down, at once."""
        batch(self.switch, [f"link set {port.plug} down" for port in host.ports])

    def remove_host(self, host: HostPlan) -> None:
        """Remove its links and its namespace, where they are there."""
        for port in host.ports:
            run(["ip", "-n", self.switch, "link", "del", port.plug], check=False)
        namespace = self.plan.netns(host.name)
        if (NAMESPACES / namespace).exists():
            run(["ip", "netns", "del", namespace])

    def partition(self, a: str, b: str) -> None:
        """Drop every frame between two hosts of one link."""
        self._nft(partition_rules(*plugs_between(self.plan, a, b)))

    def heal(self, a: str, b: str) -> None:
        """Undo `partition`; no error when they were not parted."""
        script = heal_rules(*plugs_between(self.plan, a, b))
        run(["ip", "netns", "exec", self.switch, "nft", "-f", "-"], stdin=script, check=False)

    def _nft(self, script: str) -> None:
        run(["ip", "netns", "exec", self.switch, "nft", "-f", "-"], stdin=script)

    def _link_machine(self) -> None:
        machine, other = self.plan.link_addresses
        control_plane = self.plan.netns("cp")
        device = self.plan.link_device
        run(["ip", "link", "add", device, "type", "veth", "peer", "name", "machine", "netns", control_plane])
        run(["ip", "addr", "add", str(machine), "dev", device])
        run(["ip", "link", "set", device, "up"])
        batch(control_plane, [f"addr add {other} dev machine", "link set machine up"])


def batch(namespace: str, lines: Iterable[str]) -> None:
    """Run `ip` lines in a namespace. Raises ClusterError at the first that fails."""
    run(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(lines) + "\n")


def set_sysctls(namespace: str, settings: dict[str, str]) -> None:
    """Set sysctls of a network namespace; those that this kernel does not have are left out."""
    run(["ip", "netns", "exec", namespace, "sysctl", "-qew", *(f"{k}={v}" for k, v in settings.items())])


def namespaces_of(name: str) -> list[str]:
    """Network namespaces of the cluster `name` that exist."""
    return sorted(p.name for p in NAMESPACES.glob(f"{netns_prefix(name)}*")) if NAMESPACES.exists() else []


def free_link() -> int:
    """The lowest number of a link between the machine and a control plane that nothing on the machine uses."""
    links = json.loads(run(["ip", "-j", "-4", "addr", "show"]).stdout)
    used = {a["local"] for link in links for a in link["addr_info"]}
    for number in range(LINKS):
        if f"169.254.77.{4 * number + 1}" not in used:
            return number
    raise ClusterError(f"{LINKS} clusters run already", "take one down: `down --name NAME`")


def remove_all(name: str, device: str) -> None:
    """Remove every namespace and link of the cluster `name`, whatever is left of it."""
    run(["ip", "link", "del", device], check=False)
    for namespace in namespaces_of(name):
        run(["ip", "netns", "del", namespace])
    wait_until(lambda: not namespaces_of(name), seconds=10, what="namespaces to be gone")
