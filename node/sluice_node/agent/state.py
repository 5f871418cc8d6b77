"""Everything the agent has been told, and the snapshot made of it.

Invariants:
- No snapshot before every store has synced and the Node and its links were read: an empty view must never be mistaken
  for an empty cluster.
- A Node that is deleted changes nothing here: its machine runs, with its pods. What was known of it stays, until a Node
  of this name says something else.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from sluice_node.agent import kube_requests as requests
from sluice_node.agent.kube_client import KubeClient
from sluice_node.agent.reflector import Reflector
from sluice_node.agent.store import Store
from sluice_node.core import objects
from sluice_node.core.departed import still_served
from sluice_node.core.desired import Address, Network
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressNode, Key, Node
from sluice_node.core.objects_fields import MalformedError
from sluice_node.core.snapshot import Snapshot

log = logging.getLogger(__name__)


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
        self._heard: tuple[tuple[Address, str, str], ...] | None = None
        self.pods = Store("Pod", objects.pod, changed)
        self.policies = Store("EgressPolicy", objects.policy, changed)
        self.pools = Store("EgressPool", objects.pool, changed)
        self.egress_ips = Store("EgressIP", objects.egress_ip, changed)
        self.egress_nodes = Store("EgressNode", partial(objects.egress_node, own=node), changed, self._departs)
        self.service_cidrs = Store("ServiceCIDR", objects.service_cidr, changed)
        self.api_endpoints = Store("EndpointSlice", objects.endpoints, changed)
        self.nodes = Store("Node", objects.node, self._node_changed)
        self._gone = gone
        self._departed: dict[Key, EgressNode] = {}
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
            Reflector(client, requests.node_of(self.node_name), self.nodes),
        ]

    @property
    def registered(self) -> Node | None:
        """This agent's own Node, if there is one now: objects that are to go with it need its uid."""
        return self.node if self.nodes.get(Key("", self.node_name)) is not None else None

    def set_node(self, node: Node) -> None:
        """This agent's own Node was read. One that was made anew has no pod ranges, and perhaps no address, before
        others have looked at it: until then those of its predecessor hold."""
        known = self.node
        if known is not None and known.uid != node.uid:
            log.info("Node %s was made anew (uid %s, before: %s)", node.name, node.uid, known.uid)
        if known is not None:
            node = replace(
                node, addresses=node.addresses or known.addresses, pod_cidrs=node.pod_cidrs or known.pod_cidrs
            )
        if node != known:
            self.node = node
            self._changed(f"Node {node.name} has addresses {', '.join(map(str, node.addresses)) or 'none'}")

    def set_links(self, links: Links) -> None:
        """The node's interfaces were read."""
        if links != self.links:
            self.links = links
            self._changed("the node's interfaces changed")

    def heard_before(self) -> tuple[tuple[Address, str, str], ...]:
        """What the process before this one heard on links, as its EgressNode says: (address, MAC, interface); once."""
        heard, self._heard = self._heard, ()
        return heard or ()

    def _egress_node(self, document: dict[str, Any]) -> EgressNode:
        node = objects.egress_node(document)
        if self._heard is None and node.key.name == self.node_name:
            try:
                self._heard = objects.heard(document)
            except MalformedError as error:
                self._heard = ()
                log.warning("what this node heard before is not read: %s", error)
        return node

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
            egress_nodes=self._nodes(),
            service_cidrs=self.service_cidrs.values(),
            api_endpoints=self.api_endpoints.values(),
            alive=alive,
            namespace=self._namespace,
            never_redirected=self._never_redirected,
            api_server=self._api_server(),
            withheld=withheld or {},
        )

    def _node_changed(self, _: str) -> None:
        node = self.nodes.get(Key("", self.node_name))
        if node is not None:
            self.set_node(node)
        elif self.node is not None:
            log.warning("Node %s is gone from the API server: what this node does stays as it is", self.node_name)

    def _departs(self, node: EgressNode) -> None:
        self._departed[node.key] = node
        self._gone(node.key)

    def _nodes(self) -> tuple[EgressNode, ...]:
        """Every node that there is, and those that are gone and still to be served."""
        present = self.egress_nodes.values()
        if not self._departed:
            return present
        served = still_served(self._departed.values(), present, self.egress_ips.values())
        self._departed = {node.key: node for node in served}
        return (*(node for node in present if node.key not in self._departed), *served)
