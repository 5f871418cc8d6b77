"""Rules of a source node: which packets are chosen, where they go, what address they get.

A packet of a selected pod is judged once, after kube-proxy's DNAT: chain `steer` finds the pod's policy by its
address, the policy's chain finds out whether the destination counts, and what does is marked with policy id,
SELECTED and the peer to send it to; no other packet's mark is touched. `translate` gives marked packets the egress IP;
`guard`, the last to see a packet, drops a marked one that does not bear its policy's egress IP and a port of this
node's slices.

Invariants: pure; a packet costs the same number of lookups whatever the number of pods, policies and nodes.
Must not know how slices reach their owners (that is `slicing`).
"""

from collections.abc import Iterator, Sequence

from sluice_node.core.desired import Address, Destination, PolicyProgram, PortRange
from sluice_node.core.marks import FOREIGN, POLICY, SELECTED
from sluice_node.core.tables import Chain, Set
from sluice_node.core.view import IP, VERSIONS, Version, View, networks_text

NO_GATEWAY, NO_ADDRESS, NO_SLICE = "no_gateway", "no_address", "no_slice"
PENDING, OTHERWISE, LEAK, UNSOLICITED = "pending", "otherwise", "leak", "unsolicited"
COUNTERS = (NO_GATEWAY, NO_ADDRESS, NO_SLICE, PENDING, OTHERWISE, LEAK, UNSOLICITED)

_NAT_PROTOCOLS = {4: "{ tcp, udp, icmp }", 6: "{ tcp, udp, ipv6-icmp }"}


def drop(counter: str) -> str:
    """A rule's end that drops and counts."""
    return f"counter name {counter} drop"


def sets(view: View) -> Iterator[Set]:
    """The sets the source's rules look into."""
    sources = [(pod, "goto blocked" if pid is None else f"goto policy_{pid}") for pod, pid in view.sources()]
    proxies = list(_proxy_verdicts(view))
    for v in VERSIONS:
        yield Set(
            f"excluded{v}",
            f"typeof {IP[v]} daddr; flags interval",
            dict.fromkeys(networks_text(view.desired.excluded, v)),
        )
        pods = {str(pod): verdict for pod, verdict in sources if pod.version == v}
        yield Set(f"pods{v}", f"typeof {IP[v]} saddr : verdict", pods, is_map=True)
        ends = {f"{address} . {port}": verdict for address, port, verdict in proxies if address.version == v}
        yield Set(f"proxies{v}", f"typeof {IP[v]} daddr . tcp dport : verdict", ends, is_map=True)
        yield Set(f"proxy_ends{v}", f"typeof {IP[v]} daddr . tcp dport", dict.fromkeys(ends))
        yield Set(
            f"egress_ips{v}", f"typeof {IP[v]} daddr", dict.fromkeys(str(a) for a in view.egress_ips if a.version == v)
        )
    for name, chain in (("translations", "translate"), ("bearers", "bears")):
        verdicts = {f"{p.policy_id:#x}": f"goto {chain}_{p.policy_id}" for p in view.policies}
        yield Set(name, "typeof meta mark : verdict", verdicts, is_map=True)


def _proxy_verdicts(view: View) -> Iterator[tuple[Address, int, str]]:
    for (address, port), node in sorted(view.desired.proxy_endpoints.items(), key=str):
        if node == view.desired.node:
            yield address, port, "accept"
        elif node in view.marks:
            yield address, port, f"goto to_{view.numbers[node]}"


def chains(view: View) -> Iterator[Chain]:
    """Every chain of the source role."""
    excluded = tuple(f"{IP[v]} daddr @excluded{v} accept" for v in VERSIONS)
    yield Chain("cluster", (*excluded, "fib daddr type { local, broadcast, multicast } accept"))
    yield Chain("blocked", ("jump cluster", drop(PENDING)))
    for node, mark in view.marks.items():
        yield Chain(f"to_{view.numbers[node]}", (f"meta mark set meta mark | {mark:#x} accept",))
    for pool in view.pools:
        yield Chain(f"pool_{pool}", tuple(_spread(view, pool)))
    for policy in view.policies:
        yield from _policy_chains(view, policy)
        yield from _translation(view, policy)
        yield Chain(f"bears_{policy.policy_id}", tuple(_bears(view, policy)))
    yield Chain(
        "steer",
        (
            *(f"ct direction reply {IP[v]} daddr vmap @replies{v}" for v in VERSIONS),
            "ct direction reply accept",
            *(f"{IP[v]} saddr vmap @pods{v}" for v in VERSIONS),
            "ct state untracked accept",
            *(f"{IP[v]} daddr @egress_ips{v} {drop(UNSOLICITED)}" for v in VERSIONS),
        ),
        hook="type filter hook prerouting priority -90",
    )
    yield Chain(
        "translate",
        (f"meta mark & {SELECTED:#x} == {SELECTED:#x} meta mark & {POLICY:#x} vmap @translations",),
        hook="type nat hook postrouting priority 99",
    )
    yield Chain("chosen", (*clamp(view), f"meta mark & {POLICY:#x} vmap @bearers", drop(LEAK)))
    yield Chain("guard", tuple(_guard(view)), hook="type filter hook postrouting priority 200")


def clamp(view: View) -> tuple[str, str]:
    """Rules that keep TCP segments within the tunnel: replies may come by it even when packets go without.

    The kernel only ever lowers the option (nft_exthdr).
    """
    return (
        f"meta nfproto ipv4 tcp flags & syn == syn tcp option maxseg size set {view.tunnel_mtu - 40}",
        f"meta nfproto ipv6 tcp flags & syn == syn tcp option maxseg size set {view.tunnel_mtu - 60}",
    )


def _guard(view: View) -> Iterator[str]:
    yield "ct direction reply accept"
    yield f"meta mark & {SELECTED:#x} == {SELECTED:#x} goto chosen"
    yield "ct state untracked accept"
    if view.desired.uplinks:
        for v in VERSIONS:
            yield f"oifname {names_text(view.desired.uplinks)} {IP[v]} saddr @egress_ips{v} {drop(LEAK)}"


def names_text(interfaces: tuple[str, ...]) -> str:
    """Interface names as an anonymous set."""
    return "{ " + ", ".join(f'"{name}"' for name in sorted(set(interfaces))) + " }"


def _spread(view: View, pool: str) -> Iterator[str]:
    """The rules that choose a live gateway: both directions of a flow hash alike, so it keeps its gateway."""
    own = view.desired.node
    live = [node for node in view.desired.live_gateways.get(pool, ()) if node == own or node in view.marks]
    hops = ["accept" if node == own else f"goto to_{view.numbers[node]}" for node in live]
    yield from shares(hops, [1] * len(hops)) if hops else [drop(NO_GATEWAY)]


def shares(verdicts: Sequence[str], weights: Sequence[int]) -> Iterator[str]:
    """Rules that give each verdict its share of the flows, by a hash that both directions of a flow have in common.

    One rule a verdict and no anonymous map, although a map would be one look-up: nft up to 1.0.6 crashes on listing
    a map that a newer one made without `typeof`, and an anonymous map cannot have it.
    """
    total, before = sum(weights), 0
    for verdict, weight in zip(verdicts[:-1], weights[:-1], strict=True):
        last = before + weight - 1
        yield f"symhash mod {total} {before if before == last else f'{before}-{last}'} {verdict}"
        before += weight
    yield verdicts[-1]


def _policy_chains(view: View, policy: PolicyProgram) -> Iterator[Chain]:
    number = policy.policy_id
    take = f"goto take_{number}"
    yield Chain(f"match_{number}", tuple(matches(policy.destinations, take)))
    families = tuple(f"meta nfproto ipv{v} {drop(NO_ADDRESS)}" for v in VERSIONS if view.egress_ip(policy, v) is None)
    mark = f"meta mark set meta mark & {FOREIGN:#x} | {SELECTED | number:#x}"
    yield Chain(f"take_{number}", (*families, mark, f"goto pool_{policy.pool}"))
    yield Chain(
        f"proxy_{number}",
        (
            f"meta mark set meta mark & {FOREIGN:#x} | {number:#x}",
            *(f"{IP[v]} daddr . tcp dport vmap @proxies{v}" for v in VERSIONS),
        ),
    )
    yield Chain(
        f"policy_{number}",
        (
            *(f"{IP[v]} daddr . tcp dport @proxy_ends{v} goto proxy_{number}" for v in VERSIONS),
            "jump cluster",
            f"jump match_{number}",
            "accept" if policy.otherwise == "NodeAddress" else drop(OTHERWISE),
        ),
    )


def matches(destinations: tuple[Destination, ...] | None, verdict: str) -> Iterator[str]:
    """Rules that end in `verdict` for a packet to one of the destinations (None: to any)."""
    if destinations is None:
        yield verdict
        return
    for destination in destinations:
        for v in VERSIONS:
            within = networks_text(destination.cidrs, v)
            if within:
                without = networks_text(destination.excluded, v)
                exception = f" {IP[v]} daddr != {{ {', '.join(without)} }}" if without else ""
                for ports in _ports(destination.ports):
                    yield f"{IP[v]} daddr {{ {', '.join(within)} }}{exception}{ports} {verdict}"


def _ports(ports: tuple[PortRange, ...]) -> Iterator[str]:
    if not ports:
        yield ""
    for protocol in ("TCP", "UDP"):
        ranges = merged_ranges((port.first, port.last) for port in ports if port.protocol == protocol)
        if ranges:
            texts = (f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
            yield f" {protocol.lower()} dport {{ {', '.join(texts)} }}"


def merged_ranges(ranges: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of integers, sorted, with those that overlap or touch made one: nft refuses overlaps in a set."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _translation(view: View, policy: PolicyProgram) -> Iterator[Chain]:
    """Chains that give a policy's packets its egress IP and a port of this node's slices.

    Several ranges take shares by their size; NAT rules see a flow's first packet only, so each flow has one.
    """
    number = policy.policy_id
    rules = []
    for v in VERSIONS:
        address = view.egress_ip(policy, v)
        if address is None:
            continue
        prefix = f"meta l4proto {_NAT_PROTOCOLS[v]} meta nfproto ipv{v}"
        ranges = view.own_ranges(address)
        if len(ranges) == 1:
            rules.append(f"{prefix} {_snat(address, v, ranges[0])}")
        elif ranges:
            for index, ports in enumerate(ranges):
                yield Chain(
                    f"translate_{number}_{v}_{index}", (f"meta l4proto {_NAT_PROTOCOLS[v]} {_snat(address, v, ports)}",)
                )
            rules.extend(_draw(ranges, f"translate_{number}_{v}", prefix))
    yield Chain(f"translate_{number}", (*rules, drop(NO_SLICE)))


def _bears(view: View, policy: PolicyProgram) -> Iterator[str]:
    """The last look at a chosen packet. A connection from before a change may bear what is another policy's by now."""
    for v in VERSIONS:
        address = view.egress_ip(policy, v)
        if address is not None:
            yield f"{IP[v]} saddr {address} {IP[v]} saddr vmap @own{v}"
    yield drop(LEAK)


def _snat(address: Address, version: Version, ports: tuple[int, int]) -> str:
    host = str(address) if version == 4 else f"[{address}]"
    return f"snat {IP[version]} to {host}:{ports[0]}-{ports[1]}"


def _draw(ranges: list[tuple[int, int]], chain: str, prefix: str) -> Iterator[str]:
    unit = min(last - first + 1 for first, last in ranges)
    weights = [(last - first + 1) // unit for first, last in ranges]
    verdicts = [f"goto {chain}_{index}" for index in range(len(ranges))]
    yield from (f"{prefix} {rule}" for rule in shares(verdicts, weights))
