"""What of a spec the cluster around it makes futile: a family that nothing has, destinations inside, too few nodes.

Invariants:
- Nothing is said of what is not known: without a Node there is no family that is missing, and none too few.
- Everything is derived when it is first asked for, once a plan, and asked by look-ups: cost follows the number of
  Nodes once, and of policies with destinations.
- Pure: no I/O, no clock.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

from sluice_api.reasons import Reason
from sluice_operator.core.degraded import Shortfall
from sluice_operator.core.pools import ResolvedPool
from sluice_operator.core.project_agents import toleration
from sluice_operator.core.snapshot import Address, Policy, Pool, Snapshot, Span, span_of
from sluice_operator.core.words import count, names

_FAMILIES: Final = {4: "IPv4", 6: "IPv6"}


class Surroundings:
    """The cluster as one snapshot shows it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @cached_property
    def families(self) -> frozenset[int]:
        """The families in which pods or nodes have addresses; empty: nothing is known of any Node."""
        nodes = self._snapshot.cluster_nodes.values()
        return frozenset(
            thing.version for node in nodes for group in (node.addresses, node.pod_cidrs) for thing in group
        )

    def lacks(self, version: int) -> bool:
        """Whether nothing in the cluster has an address of this family."""
        return bool(self.families) and version not in self.families

    def of_pool(self, resolved: ResolvedPool) -> Iterator[Shortfall]:
        """What of a pool no packet can use."""
        for version in sorted(resolved.families):
            if self.lacks(version):
                yield Shortfall(
                    Reason.FAMILY_UNAVAILABLE,
                    f"spec.addresses: no Node of this cluster has an {_FAMILIES[version]} address or pod range, so "
                    f"those of the pool ({resolved.total(version)}) can never be used; remove them",
                )

    def of_policy(self, policy: Policy, addresses: tuple[Address, ...]) -> Iterator[Shortfall]:
        """What of a policy no packet can use: a family only if it asks for it, or has no other."""
        asked = (policy.families or frozenset()) | {address.version for address in policy.requested}
        lost = [address for address in addresses if self.lacks(address.version)]
        wanted = [version for version in sorted(asked) if self.lacks(version)]
        if wanted or (lost and len(lost) == len(addresses)):
            missing = names(_FAMILIES[version] for version in wanted or sorted({a.version for a in lost}))
            yield Shortfall(
                Reason.FAMILY_UNAVAILABLE,
                f"spec.addresses: no Node of this cluster has an {missing} address or pod range, so no pod can leave "
                f"with {names(lost) or f'an {missing} address'}; leave {missing} out, or use another pool",
            )
        if policy.destinations and all(self._is_inside(span) for span in policy.destinations):
            yield Shortfall(
                Reason.DESTINATIONS_IN_CLUSTER,
                "spec.destinations: all of them are pods, Services or nodes of this cluster, where traffic goes its "
                "usual way and never leaves with an egress IP; write networks outside, or remove the policy",
            )

    def hosts_of(self, pool: Pool) -> tuple[str, ...]:
        """The nodes on which the scheduler may put a gateway of a pool, one on each (Kubernetes documentation,
        "Assigning Pods to Nodes", "Taints and Tolerations")."""
        tolerations = [toleration(entry) for entry in pool.gateways.tolerations]
        return tuple(
            name
            for name, node in sorted(self._snapshot.cluster_nodes.items())
            if _has_labels(node.labels, pool.gateways.node_selector)
            and all(
                taint.effect == "PreferNoSchedule" or any(entry.covers(taint) for entry in tolerations)
                for taint in node.taints
            )
        )

    def too_few(self, pool: Pool) -> str:
        """That the cluster has fewer nodes for gateways than the pool wants gateways; empty when it has enough."""
        hosts, wanted = self.hosts_of(pool), pool.gateways.replicas
        if not self._snapshot.cluster_nodes or len(hosts) >= wanted:
            return ""
        which = f" ({names(hosts)})" if hosts else ""
        return (
            f"only {count(len(hosts), 'node')}{which} of {len(self._snapshot.cluster_nodes)} may run a gateway, and "
            "no more than one: label or uncordon nodes, change spec.gateways.nodeSelector or tolerations, or lower "
            f"spec.gateways.replicas from {wanted}"
        )

    def _is_inside(self, span: Span) -> bool:
        version, first, last = span
        spans = self._inside.get(version, ())
        place = bisect_right(spans, (first, _HIGHEST)) - 1
        return place >= 0 and spans[place][1] >= last

    @cached_property
    def _inside(self) -> Mapping[int, tuple[tuple[int, int], ...]]:
        """By family the addresses first..last of pods, Services, nodes and the API server: merged and in order."""
        snapshot = self._snapshot
        things = [
            *(thing for node in snapshot.cluster_nodes.values() for thing in (*node.addresses, *node.pod_cidrs)),
            *(network for networks in snapshot.service_cidrs.values() for network in networks),
            *(address for addresses in snapshot.api_server.values() for address in addresses),
        ]
        merged: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for version, first, last in sorted(map(span_of, things)):
            spans = merged[version]
            if spans and first <= spans[-1][1] + 1:
                spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
            else:
                spans.append((first, last))
        return {version: tuple(spans) for version, spans in merged.items()}


_HIGHEST: Final = 1 << 128


def _has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())
