"""Everything the agent has been told, and the snapshot made of it.

Invariants: no snapshot before every store has synced and the Node and its links were read: an empty view must never be
mistaken for an empty cluster.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sluice_node.agent import kube_requests as requests
from sluice_node.agent.kube_client import KubeClient
from sluice_node.agent.reflector import Reflector
from sluice_node.agent.store import Store
from sluice_node.core import objects
from sluice_node.core.desired import Address, Network
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressNode, Key, Node
from sluice_node.core.snapshot import Snapshot


class ClusterState:
    """`changed` is called with what changed, whenever a snapshot would differ; `gone` with each EgressNode that is no
    longer there; `api_server` gives the addresses at which the API server was found."""

    def __init__(
        self,
        *,
        node: str,
        namespace: str,
        never_redirected: frozenset[Network],
        changed: Callable[[str], None],
        gone: Callable[[Key], None],
        api_server: Callable[[], frozenset[Address]] = frozenset,
    ) -> None:
        self.node_name = node
        self.node: Node | None = None
        self.links: Links | None = None
        self._namespace = namespace
        self._never_redirected = never_redirected
        self._changed = changed
        self._api_server = api_server
        self.pods = Store("Pod", objects.pod, changed)
        self.policies = Store("EgressPolicy", objects.policy, changed)
        self.pools = Store("EgressPool", objects.pool, changed)
        self.egress_ips = Store("EgressIP", objects.egress_ip, changed)
        self.egress_nodes = Store("EgressNode", objects.egress_node, changed, gone)
        self.service_cidrs = Store("ServiceCIDR", objects.service_cidr, changed)
        self.api_endpoints = Store("EndpointSlice", objects.endpoints, changed)
        self._stores = (
            self.pods, self.policies, self.pools, self.egress_ips, self.egress_nodes, self.service_cidrs,
            self.api_endpoints,
        )  # fmt: skip

    def reflectors(self, client: KubeClient) -> "list[Reflector[Any]]":
        """What fills the stores from the API server."""
        return [
            Reflector(client, requests.pods_of(self.node_name), self.pods),
            Reflector(client, requests.POLICY_KIND, self.policies),
            Reflector(client, requests.POOL_KIND, self.pools),
            Reflector(client, requests.EGRESS_IP_KIND, self.egress_ips),
            Reflector(client, requests.EGRESS_NODE_KIND, self.egress_nodes),
            Reflector(client, requests.SERVICE_CIDR_KIND, self.service_cidrs),
            Reflector(client, requests.API_ENDPOINTS_KIND, self.api_endpoints),
        ]

    def set_node(self, node: Node) -> None:
        """This agent's own Node was read."""
        if node != self.node:
            self.node = node
            self._changed(f"Node {node.name} has addresses {', '.join(map(str, node.addresses)) or 'none'}")

    def set_links(self, links: Links) -> None:
        """The node's interfaces were read."""
        if links != self.links:
            self.links = links
            self._changed("the node's interfaces changed")

    def own(self) -> EgressNode | None:
        """This node's EgressNode as the API server has it."""
        return self.egress_nodes.get(Key("", self.node_name))

    def missing(self) -> list[str]:
        """What has not been read yet."""
        missing = [store.kind for store in self._stores if not store.synced]
        missing += ["Node"] * (self.node is None) + ["interfaces"] * (self.links is None)
        return missing

    def snapshot(self, alive: frozenset[str], withheld: Mapping[Address, str] | None = None) -> Snapshot | None:
        """All that is known now; None while anything is missing."""
        if self.node is None or self.links is None or self.missing():
            return None
        return Snapshot(
            node=self.node,
            links=self.links,
            pods=self.pods.values(),
            policies=self.policies.values(),
            pools={pool.key.name: pool for pool in self.pools.values()},
            egress_ips=self.egress_ips.values(),
            egress_nodes=self.egress_nodes.values(),
            service_cidrs=self.service_cidrs.values(),
            api_endpoints=self.api_endpoints.values(),
            alive=alive,
            namespace=self._namespace,
            never_redirected=self._never_redirected,
            api_server=self._api_server(),
            withheld=withheld or {},
        )
