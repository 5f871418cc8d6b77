"""The world that the system tests look at: the cluster, its pods, and what the hosts outside saw of them.

Selected pods talk to port 7000 of the hosts outside and nobody else does: whatever arrives there from another address
than an egress IP is a leak.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from testbed.outside import OutsideHost
from testbed.system import Pod, System, policy, pool, traffic_pod

SELECTED_PORT = 7000
POOL = "partners"
NAMESPACE = "billing"
LABELS = {"app": "billing"}
RESIDENTS = "residents"
"""Namespace of a pod on each node that is there before Sluice and after it."""


@dataclass(frozen=True, slots=True)
class World:
    """The system under test and its pods, one selected and one unselected on each node."""

    system: System
    clean: Mapping[str, list[str]]
    """Kernel state of each node before Sluice was installed."""
    selected: Mapping[str, Pod] = field(default_factory=dict)
    others: Mapping[str, Pod] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[OutsideHost, OutsideHost]:
        """The hosts outside."""
        return self.system.outside, self.system.far

    def egress(self) -> set[str]:
        """The policy's egress IPs."""
        return set(self.system.addresses_of(NAMESPACE, "billing"))

    def resting(self) -> set[str]:
        """Egress IPs that no policy has any more, and that are kept from others."""
        return {e["spec"]["address"] for e in self.system.objects("egressips") if e["status"].get("restingSince")}

    def ask(self, pod: Pod, kind: str, *hosts: OutsideHost, port: int = SELECTED_PORT, timeout: float = 5) -> list[Any]:
        """What each address of each host (default: both) sees of the pod: the answers of `traffic check`."""
        return ask(self.system, pod, kind, targets(*(hosts or self.hosts), port=port), timeout=timeout)

    def slices(self) -> dict[tuple[str, int], str]:
        """(egress IP, port) -> node, from the EgressIPs' status."""
        owners = {}
        for found in self.system.objects("egressips"):
            for entry in found["status"]["slices"]:
                first, last = map(int, entry["ports"].split("-"))
                owners |= {(found["spec"]["address"], port): entry["node"] for port in range(first, last + 1)}
        return owners

    def leaks(self, since: int = 0) -> list[str]:
        """Packets of selected pods (port 7000, and every ping) that came from no egress IP or outside of its slices."""
        owners = self.slices()
        addresses = {address for address, _ in owners}
        wrong = []
        for host in self.hosts:
            for seen in host.recorder.seen(since=since):
                if seen.protocol != "icmp" and seen.destination_port != SELECTED_PORT:
                    continue
                port_known = (str(seen.source), seen.source_port) in owners
                if str(seen.source) not in addresses or not port_known:
                    wrong.append(f"{host.host.name}: {seen}")
        return wrong


def targets(*hosts: OutsideHost, port: int = SELECTED_PORT) -> list[str]:
    """--target arguments for every address of the hosts."""
    addresses = [ip_address(str(a)) for host in hosts for a in host.host.addresses]
    return [f"--target={f'[{a}]' if a.version == 6 else a}:{port}" for a in addresses]


def ask(system: System, pod: Pod, kind: str, where: Sequence[str], *, timeout: float = 5) -> list[Any]:
    """Run `traffic check` in the pod; its answers, one a target."""
    output = system.exec(pod, "traffic", "check", f"--kind={kind}", f"--timeout={timeout}", *where, check=False)
    return [json.loads(line) for line in output.splitlines()]


#: What differs between two pods in the same place, or two boots of a node: addresses, numbers and names of links.
_PODS = re.compile(
    r"10\.244\.\d+\.\d+|(fd00:10:244|fe80):[0-9a-f:]+|veth[0-9a-f]+(@\w+)?|@if\d+|link/ether \S+|link-netns\S* \S+"
)
#: What belongs to kube-proxy: it follows every Service and every pod behind one, wherever the scheduler put it.
_KUBE_PROXY_TABLE = re.compile(r"^table ip6? kube-proxy \{.*?^\}\n", re.MULTILINE | re.DOTALL)
_KUBE_PROXY_CHAIN = re.compile(r"^\tchain KUBE-\S+ \{.*?^\t\}\n", re.MULTILINE | re.DOTALL)
_KUBE_PROXY_RULE = re.compile(r"^.*\b(jump|goto) KUBE-.*\n", re.MULTILINE)


def without_kube_proxy(ruleset: str) -> str:
    """The output of `nft list ruleset` without the tables, chains and jumps of kube-proxy, in either mode."""
    for theirs in (_KUBE_PROXY_TABLE, _KUBE_PROXY_CHAIN, _KUBE_PROXY_RULE):
        ruleset = theirs.sub("", ruleset)
    return ruleset


def kernel_state(system: System, node: str) -> list[str]:
    """Everything that Sluice might leave on a node: rules, routes, links, proxy neighbours and settings, in lines.

    Without counters and without what kube-proxy rewrites all the time, and with one word for every pod, since pods of
    others come and go. Whether kube-proxy's rules are whole is seen by what they do.
    """
    script = (
        "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all;"
        "ip -o link | sed 's/^[0-9]*: //'; ip neigh show proxy; ip -6 neigh show proxy;"
        "sysctl net.ipv4.tcp_fwmark_accept net.ipv4.conf.eth0 net.ipv4.neigh.eth0 net.ipv6.neigh.eth0.proxy_delay"
    )
    host = system.cluster.host(node)
    text = without_kube_proxy(host.run(["nft", "--stateless", "list", "ruleset"]).stdout)
    text += host.run(["sh", "-c", script]).stdout
    return sorted({_PODS.sub("<pod>", line) for line in text.splitlines()})


def populate(system: System, clean: Mapping[str, list[str]]) -> World:
    """Pool, policy and pods, once they are ready."""
    system.namespace(NAMESPACE, {"egress": POOL})
    system.apply(
        pool(POOL, "198.51.100.16/28", "2001:db8:100::/120", namespaces={"matchLabels": {"egress": POOL}}),
        policy(NAMESPACE, "billing", POOL, LABELS),
    )
    nodes = system.cluster.nodes
    wanted = [traffic_pod(NAMESPACE, f"billing-{n}", node=n, labels=LABELS) for n in nodes]
    wanted += [traffic_pod(NAMESPACE, f"other-{n}", node=n, labels={"app": "other"}) for n in nodes]
    pods = system.start_pods(*wanted)
    system.wait_condition("egresspolicy", "billing", "Ready", namespace=NAMESPACE, seconds=90)
    selected = {p.node: p for p in pods if p.name.startswith("billing-")}
    others = {p.node: p for p in pods if p.name.startswith("other-")}
    return World(system, clean, selected, others)
