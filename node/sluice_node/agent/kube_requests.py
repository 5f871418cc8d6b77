"""Requests to the API server as values, apart from how they are sent.

Sources: the Kubernetes API concepts (list, watch, bookmarks, limits) and server-side apply. Pure: no I/O.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sluice_api.names import (
    AGENT_APP,
    API_VERSION,
    EGRESS_IPS,
    EGRESS_NODES,
    FIELD_MANAGER_AGENT,
    LABEL_APP,
    POLICIES,
    POOLS,
    agent_lease,
)
from sluice_api.timers import SILENCE

PAGE: Final = 500
"""Objects in one page of a list: what the API server's own clients ask for."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind's collection. `fields` is a field selector that narrows it; without an `optional` kind the agent can do
    its work."""

    api_version: str
    plural: str
    kind: str
    fields: str = ""
    optional: bool = False
    namespace: str = ""

    @property
    def path(self) -> str:
        """The path of the collection: of one namespace, or over all."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        within = f"namespaces/{self.namespace}/" if self.namespace else ""
        return f"{root}{self.api_version}/{within}{self.plural}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `seconds` without a byte from the server end it."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content: str = "application/json"
    seconds: float = 15.0


POOL_KIND: Final = Resource(API_VERSION, POOLS, "EgressPool")
POLICY_KIND: Final = Resource(API_VERSION, POLICIES, "EgressPolicy")
EGRESS_IP_KIND: Final = Resource(API_VERSION, EGRESS_IPS, "EgressIP")
EGRESS_NODE_KIND: Final = Resource(API_VERSION, EGRESS_NODES, "EgressNode")
SERVICE_CIDR_KIND: Final = Resource("networking.k8s.io/v1", "servicecidrs", "ServiceCIDR", optional=True)
"""Stable since Kubernetes 1.33. Without it services are still told apart by their endpoints, once kube-proxy has
replaced the destination."""

API_ENDPOINTS_KIND: Final = Resource(
    "discovery.k8s.io/v1", "endpointslices", "EndpointSlice", fields="metadata.name=kubernetes", namespace="default"
)
"""Where the API server itself is: often on no node of the cluster, and never to be reached with an egress IP."""


def pods_of(node: str) -> Resource:
    """The pods of one node: the API server has an index for this very selector."""
    return Resource("v1", "pods", "Pod", fields=f"spec.nodeName={node}")


def node_of(name: str) -> Resource:
    """This agent's own Node, as a collection of at most one."""
    return Resource("v1", "nodes", "Node", fields=f"metadata.name={name}")


def list_page(resource: Resource, *, proceed: str = "") -> Request:
    """One page of a consistent list; `proceed` is the token that the page before ended with."""
    query = {"limit": str(PAGE)}
    if resource.fields:
        query["fieldSelector"] = resource.fields
    if proceed:
        query["continue"] = proceed
    return Request("GET", resource.path, query, seconds=30.0)


def watch(resource: Resource, *, version: str, lifetime: int, inactivity: float) -> Request:
    """Changes after a resource version, for `lifetime` seconds; bookmarks keep the version fresh (about one a minute),
    so `inactivity` seconds without a byte mean that nobody is there."""
    query = {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(lifetime),
    }
    if resource.fields:
        query["fieldSelector"] = resource.fields
    return Request("GET", resource.path, query, seconds=inactivity)


def get_version(*, seconds: float) -> Request:
    """Whether anybody is there: what every client may ask, and what costs the server nothing."""
    return Request("GET", "/version", seconds=seconds)


def apply_egress_node(name: str, *, node_uid: str) -> Request:
    """Create the EgressNode, or renew its owner: it goes when its Node goes."""
    metadata = {"name": name, "ownerReferences": [_owner(name, node_uid)]}
    return _apply(EGRESS_NODE_KIND, name, {"metadata": metadata, "spec": {}})


def apply_egress_node_status(name: str, status: Mapping[str, Any]) -> Request:
    """Make the EgressNode's status this one; a field left out is removed."""
    return _apply(EGRESS_NODE_KIND, name, {"metadata": {"name": name}, "status": status}, subresource="/status")


def apply_holder(name: str, *, holder: str) -> Request:
    """Say who holds an egress IP: of the status only this field is the agents'."""
    body = {"metadata": {"name": name}, "status": {"holder": holder}}
    return _apply(EGRESS_IP_KIND, name, body, subresource="/status")


def apply_heartbeat(node: str, *, node_uid: str, namespace: str, now: str) -> Request:
    """Create the Lease that says that this agent lives, or renew its owner: it goes when its Node goes. `now` in
    RFC 3339."""
    lease = _lease_kind(namespace)
    metadata = {
        "name": agent_lease(node),
        "namespace": namespace,
        "labels": {LABEL_APP: AGENT_APP},
        "ownerReferences": [_owner(node, node_uid)],
    }
    spec = {"holderIdentity": node, "leaseDurationSeconds": int(SILENCE), "renewTime": now}
    return _apply(lease, agent_lease(node), {"metadata": metadata, "spec": spec})


def renew_heartbeat(node: str, *, namespace: str, now: str) -> Request:
    """Renew that Lease, which must be there. A merge patch: an apply would cost the API server several times as much,
    for each node and every few seconds."""
    return Request(
        "PATCH",
        f"{_lease_kind(namespace).path}/{agent_lease(node)}",
        {"fieldManager": FIELD_MANAGER_AGENT},
        json.dumps({"spec": {"renewTime": now}}, separators=(",", ":")).encode(),
        "application/merge-patch+json",
    )


def _lease_kind(namespace: str) -> Resource:
    return Resource("coordination.k8s.io/v1", "leases", "Lease", namespace=namespace)


def _owner(node: str, uid: str) -> dict[str, str]:
    return {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}


def _apply(resource: Resource, name: str, body: Mapping[str, Any], subresource: str = "") -> Request:
    document = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
    return Request(
        "PATCH",
        f"{resource.path}/{name}{subresource}",
        # Of two agents that were the holder one after the other, the later one is right.
        {"fieldManager": FIELD_MANAGER_AGENT, "force": "true"},
        json.dumps(document, separators=(",", ":")).encode(),
        "application/apply-patch+yaml",
    )
