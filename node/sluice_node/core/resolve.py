"""From what the API server says, and which gateways answer, to what this node's kernel must do.

Rules:
- A policy uses an address only while a claim (an EgressIP) says that it is the policy's: so no address ever serves two.
- A claim of an address that is somebody's (`refused`) counts as none.
- A policy without an id or an address blocks its pods: nothing of theirs leaves the cluster. So does one whose id is
  another's (the operator never gives an id twice, but a restored backup may).
- A node is a live gateway of a pool when it says so and answers probes; this node needs no probe of itself.
- A node hosts a pool from the first of its gateway pods to the end of the last one, ready or not, so that a proxy which
  drains keeps its addresses; it *is* a gateway only while one is ready and not terminating.
- Slices of all nodes are known on every node: what still arrives after a node ceased to be a gateway finds its way.
Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from sluice_node.core.desired import Address, DesiredNode, Network, Peer, PolicyProgram
from sluice_node.core.holder import holder
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressIP, Key, Pod, Policy, Pool
from sluice_node.core.refused import of_nodes
from sluice_node.core.select import Selection
from sluice_node.core.snapshot import Snapshot

NEVER_REDIRECTED: Final[frozenset[Network]] = frozenset(
    {
        IPv4Network("127.0.0.0/8"),
        IPv4Network("169.254.0.0/16"),
        IPv4Network("224.0.0.0/4"),
        IPv6Network("::1/128"),
        IPv6Network("fe80::/10"),
        IPv6Network("ff00::/8"),
    }
)
"""Loopback, link-local and multicast (RFC 6890): never outside the cluster."""


class UnresolvableError(Exception):
    """The node lacks something without which nothing can be programmed; the text says what, and what to do."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The pool and addresses that a policy may use now, as its claims prove."""

    pool: str
    addresses: tuple[Address, ...]


def tunnel_mac(node: str) -> str:
    """The MAC of a node's tunnel device: locally administered, and the same whenever the node's name is."""
    return "02:65:" + sha256(node.encode()).digest()[:4].hex(":")


def gateway_for(snapshot: Snapshot) -> frozenset[str]:
    """The pools that this node is a gateway of."""
    pods = _gateway_pods(snapshot)
    return frozenset(pod.gateway_for for pod in pods if pod.gateway_for and pod.ready and not pod.terminating)


def unfit(snapshot: Snapshot) -> frozenset[str]:
    """The pools that this node would be a gateway of, but does not have the interface for: nobody uses it as one, its
    own pods included, as what left by another interface would not come back."""
    pools = ((name, snapshot.pools.get(name)) for name in gateway_for(snapshot))
    return frozenset(
        name
        for name, pool in pools
        if pool is not None and pool.announces and pool.interface is not None and not snapshot.links.has(pool.interface)
    )


def hosted_pools(snapshot: Snapshot) -> frozenset[str]:
    """The pools of which a gateway pod is on this node, starting and draining ones included."""
    return frozenset(pod.gateway_for for pod in _gateway_pods(snapshot) if pod.gateway_for)


def _gateway_pods(snapshot: Snapshot) -> Iterator[Pod]:
    return (p for p in snapshot.pods if p.gateway_for and p.key.namespace == snapshot.namespace and not p.finished)


def peers(snapshot: Snapshot) -> tuple[Peer, ...]:
    """The other nodes' ends of the tunnel. One that claims this node's address or MAC, or another's MAC, is left out:
    such an entry is stale or forged, and could not be told apart."""
    taken_macs = {tunnel_mac(snapshot.node.name)}
    own = set(snapshot.node.addresses)
    found = []
    for other in sorted(snapshot.egress_nodes, key=lambda node: node.key):
        end = other.tunnel
        if other.key.name == snapshot.node.name or end is None or end.address in own or end.mac in taken_macs:
            continue
        taken_macs.add(end.mac)
        found.append(Peer(other.key.name, end.address, end.mac))
    return tuple(found)


def assignment(policy: Policy, claims: Mapping[Address, EgressIP]) -> Assignment | None:
    """What a policy may use; None while it may use nothing.

    While a policy moves between pools its old claims stand until the new ones do, so the pool is that of its claims.
    """
    if policy.policy_id is None:
        return None
    own = [claims[address] for address in policy.addresses if address in claims]
    own = [claim for claim in own if claim.policy == policy.key]
    if not own:
        return None
    pool = policy.pool if any(claim.pool == policy.pool for claim in own) else own[0].pool
    by_family = {claim.address.version: claim.address for claim in reversed(own) if claim.pool == pool}
    return Assignment(pool, tuple(by_family[version] for version in sorted(by_family)))


def live_gateways(snapshot: Snapshot, pools: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Pool -> its live gateways by name, in order."""
    own, me = gateway_for(snapshot) - unfit(snapshot), snapshot.node.name
    live: dict[str, list[str]] = {pool: [me] if pool in own else [] for pool in pools}
    for other in snapshot.egress_nodes:
        name = other.key.name
        if name != me and name in snapshot.alive:
            for pool in other.gateway_for & live.keys():
                live[pool].append(name)
    return {pool: tuple(sorted(nodes)) for pool, nodes in sorted(live.items())}


def announced(snapshot: Snapshot, live: Mapping[str, tuple[str, ...]]) -> dict[Address, str]:
    """The egress IPs that this node holds -> the interface on which it answers for them, if it has one for them."""
    found = {
        claim.address: interface_for(snapshot.pools[claim.pool], claim.address, snapshot.links)
        for claim in holds(snapshot, live)
    }
    return {address: interface for address, interface in found.items() if interface is not None}


def holds(snapshot: Snapshot, live: Mapping[str, tuple[str, ...]]) -> Iterator[EgressIP]:
    """The claims of the egress IPs that this node holds and ought to answer for."""
    me, mine = snapshot.node.name, gateway_for(snapshot)
    for claim in snapshot.egress_ips if mine else ():
        pool = snapshot.pools.get(claim.pool)
        if pool is None or not pool.announces or claim.pool not in mine or claim.resting:
            continue
        if holder(claim.address, live.get(claim.pool, ())) == me and not snapshot.refuses(claim.address):
            yield claim


def interface_for(pool: Pool, address: Address, links: Links) -> str | None:
    """The interface on which to answer for an address of a pool; None when the node has none for it."""
    if pool.interface is not None:
        return pool.interface if links.has(pool.interface) else None
    return links.towards(address)


def resolve(snapshot: Snapshot, selection: Selection) -> DesiredNode:
    """What the node must do. Raises UnresolvableError."""
    node = snapshot.node
    if not node.addresses:
        raise UnresolvableError(f"Node {node.name} has no InternalIP in status.addresses: see its kubelet")
    hosted = hosted_pools(snapshot)
    claims = snapshot.claims
    own_pods = _pods(selection, snapshot)
    programs: dict[Key, PolicyProgram] = {}
    blocked: set[Address] = set()
    ids: set[int] = set()
    for policy in sorted(snapshot.policies, key=lambda policy: policy.key):
        given = assignment(policy, claims)
        selected = own_pods.get(policy.key, ())
        if given is None or policy.policy_id is None or policy.policy_id in ids:
            blocked.update(selected)
        elif selected or given.pool in hosted:
            ids.add(policy.policy_id)
            programs[policy.key] = PolicyProgram(
                policy_id=policy.policy_id,
                pool=given.pool,
                egress_ips=given.addresses,
                destinations=policy.destinations,
                otherwise=policy.otherwise,
            )
    live = live_gateways(snapshot, {program.pool for program in programs.values()} | hosted)
    return DesiredNode(
        node=node.name,
        uplinks=_uplinks(snapshot),
        tunnel_address=node.addresses[0],
        tunnel_mac=tunnel_mac(node.name),
        peers=peers(snapshot),
        excluded=excluded(snapshot),
        policies=tuple(programs.values()),
        pods={address: program.policy_id for key, program in programs.items() for address in own_pods.get(key, ())},
        blocked_pods=frozenset(blocked),
        live_gateways=live,
        slices=tuple(piece for claim in snapshot.claims.values() for piece in claim.slices),
        proxy_endpoints=_proxy_endpoints(snapshot),
        is_gateway=bool(hosted),
        announced=announced(snapshot, live),
        pool_ranges=frozenset(network for pool in snapshot.pools.values() for network in pool.ranges),
        own_addresses=frozenset(node.addresses) | {own.ip for _, own in snapshot.links.addresses},
    )


def _pods(selection: Selection, snapshot: Snapshot) -> dict[Key, tuple[Address, ...]]:
    """The selected pods' addresses, without any that is a node's: what nodes send is never steered."""
    nodes = of_nodes(snapshot)
    return {
        key: tuple(address for address in addresses if address not in nodes)
        for key, addresses in selection.addresses.items()
    }


def react(desired: DesiredNode, snapshot: Snapshot) -> DesiredNode:
    """`desired` with nothing changed but what follows from which gateways are alive now: the short way."""
    live = live_gateways(snapshot, desired.live_gateways)
    return replace(desired, live_gateways=live, announced=announced(snapshot, live))


def excluded(snapshot: Snapshot) -> frozenset[Network]:
    """Destinations that are inside the cluster, or nowhere."""
    found = set(NEVER_REDIRECTED) | snapshot.never_redirected
    found.update(snapshot.node.pod_cidrs)
    found.update(ip_network(address) for address in snapshot.node.addresses)
    for other in snapshot.egress_nodes:
        found.update(other.pod_cidrs)
        found.update(ip_network(address) for address in other.addresses)
    for services in snapshot.service_cidrs:
        found.update(services.cidrs)
    for api in snapshot.api_endpoints:
        found.update(ip_network(address) for address in api.addresses)
    return frozenset(found)


def probed(snapshot: Snapshot, desired: DesiredNode) -> tuple[Peer, ...]:
    """The gateways whose health matters here: other nodes' of every pool in use."""
    wanted = desired.live_gateways.keys()
    names = {other.key.name for other in snapshot.egress_nodes if other.gateway_for & wanted}
    return tuple(peer for peer in desired.peers if peer.node in names)


def _proxy_endpoints(snapshot: Snapshot) -> dict[tuple[Address, int], str]:
    mine = gateway_for(snapshot)
    gateways = [(snapshot.node.name, snapshot.node.addresses, mine)]
    gateways += [
        (other.key.name, other.addresses, other.gateway_for)
        for other in sorted(snapshot.egress_nodes, key=lambda other: other.key)
        if other.key.name != snapshot.node.name
    ]
    endpoints: dict[tuple[Address, int], str] = {}
    for name, addresses, pools in gateways:
        for pool in sorted(pools & snapshot.pools.keys()):
            port = snapshot.pools[pool].proxy_port
            if port is not None:
                # An address that two nodes claim is the first one's: an address of this node is never another's.
                endpoints.update({(a, port): name for a in addresses if (a, port) not in endpoints})
    return endpoints


def _uplinks(snapshot: Snapshot) -> tuple[str, ...]:
    node, links = snapshot.node, snapshot.links
    underlay = links.of_address(node.addresses[0])
    if underlay is None:
        raise UnresolvableError(
            f"no interface of this node bears {node.addresses[0]}, its InternalIP: "
            "the agent must run on the host's network, and kubelet's --node-ip must be an address of the node"
        )
    others = {links.of_address(address) for address in node.addresses[1:]} | set(links.defaults.values())
    others |= {pool.interface for pool in snapshot.pools.values()}
    return (underlay, *sorted(name for name in others if name is not None and name != underlay))
