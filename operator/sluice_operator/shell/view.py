"""The stores of every kind the operator reads, and the snapshot made of them.

Invariant: there is no snapshot before every store has taken one complete list, so nothing is ever decided from half
of the cluster.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sluice_api.names import GATEWAY_APP, LABEL_APP
from sluice_operator.core import agents, project, project_cluster
from sluice_operator.core.agents import Presence, Voice
from sluice_operator.core.snapshot import (
    ClusterNode,
    EgressIP,
    EgressNode,
    GatewayObject,
    IdCounter,
    Namespace,
    Network,
    Policy,
    PolicyKey,
    Pool,
    Rejection,
    Service,
    Settings,
    Snapshot,
)
from sluice_operator.shell import kube
from sluice_operator.shell.api_server import ApiServerAddresses
from sluice_operator.shell.kube import Api, Resource
from sluice_operator.shell.store import Document, Store

GATEWAY_LABELS = f"{LABEL_APP}={GATEWAY_APP}"


def _name(document: Document) -> str:
    name: str = document["metadata"]["name"]
    return name


def _service_key(document: Document) -> tuple[str, str]:
    return document["metadata"]["namespace"], document["metadata"]["name"]


def _policy_key(document: Document) -> PolicyKey:
    return PolicyKey(document["metadata"]["namespace"], document["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Followed:
    """A kind that is watched cluster-wide, and its store."""

    resource: Resource
    store: Store[Any, Any]


@dataclass(frozen=True, slots=True)
class Feed:
    """Where the events of a watched kind go: objects that are there, and objects that were deleted."""

    resource: Resource
    put: Callable[[Document], None]
    remove: Callable[[Document], None]


class View:
    """All stores; `wake` is called whenever something changed that a plan may depend on.

    `presences` are what is known of each agent's signs of life (see `heartbeats`).
    """

    def __init__(self, settings: Settings, *, wake: Callable[[str], None]) -> None:
        self._settings = settings
        self.ids = IdCounter()
        self.rejections: dict[tuple[str, str], Rejection] = {}
        self.answers: dict[tuple[str, str], GatewayObject] = {}
        self.presences: Mapping[str, Presence] = {}
        self.pools = Store[str, Pool]("pool", project=project.pool, key_of=_name, wake=wake)
        self.policies = Store[PolicyKey, Policy]("policy", project=project.policy, key_of=_policy_key, wake=wake)
        self.namespaces = Store[str, Namespace]("namespace", project=project.namespace, key_of=_name, wake=wake)
        self.egress_ips = Store[str, EgressIP]("egress IP", project=project.egress_ip, key_of=_name, wake=wake)
        self.nodes = Store[str, EgressNode]("node", project=project.egress_node, key_of=_name, wake=wake)
        self.cluster_nodes = Store[str, ClusterNode](
            "cluster node", project=project_cluster.cluster_node, key_of=_name, wake=wake
        )
        self.services = Store[tuple[str, str], Service](
            "service", project=project_cluster.service, key_of=_service_key, wake=wake
        )
        self.service_cidrs = Store[str, tuple[Network, ...]](
            "service range", project=project_cluster.service_cidr, key_of=_name, wake=wake
        )
        self.api_server = ApiServerAddresses(settings.api_server_host, wake=wake)
        self.gateway_objects = Store[tuple[str, str], GatewayObject](
            "gateway",
            project=lambda document: project.gateway_object(document, kind=document["kind"]),
            key_of=lambda document: (document["kind"], _name(document)),
            wake=wake,
        )
        self.followed = (
            Followed(kube.EGRESS_POOL, self.pools),
            Followed(kube.EGRESS_POLICY, self.policies),
            Followed(kube.NAMESPACE, self.namespaces),
            Followed(kube.EGRESS_IP, self.egress_ips),
            Followed(kube.EGRESS_NODE, self.nodes),
            Followed(kube.NODE, self.cluster_nodes),
            Followed(kube.SERVICE, self.services),
            Followed(kube.SERVICE_CIDR, self.service_cidrs),
        )

    @property
    def feeds(self) -> tuple[Feed, ...]:
        """What is watched in the whole cluster."""
        return tuple(Feed(entry.resource, entry.store.put, entry.store.remove) for entry in self.followed)

    @property
    def gateway_feeds(self) -> tuple[Feed, ...]:
        """What is watched in Sluice's own namespace: the objects that keep the pools' gateways."""
        return tuple(
            Feed(
                resource,
                put=partial(self._put_gateway_object, resource.kind),
                remove=partial(self._remove_gateway_object, resource.kind),
            )
            for resource in kube.GATEWAY_KINDS.values()
        )

    @property
    def synced(self) -> bool:
        """Whether every store has taken a complete list."""
        polled = self.gateway_objects.synced and self.api_server.synced
        return polled and all(entry.store.synced for entry in self.followed)

    def snapshot(self, *, now: str, overdue: frozenset[str] = frozenset()) -> Snapshot:
        """What is known at this moment; `overdue` is Snapshot's. Raises RuntimeError before the stores have synced."""
        if not self.synced:
            raise RuntimeError("a snapshot of stores that have not synced would be of half the cluster")
        return Snapshot(
            now=now,
            settings=self._settings,
            pools=self.pools.snapshot(),
            policies=self.policies.snapshot(),
            namespaces=self.namespaces.snapshot(),
            egress_ips=self.egress_ips.snapshot(),
            nodes=self.nodes.snapshot(),
            cluster_nodes=self.cluster_nodes.snapshot(),
            silent=agents.having(Voice.SILENT, self.presences),
            unheard=agents.having(Voice.UNHEARD, self.presences),
            services=self.services.snapshot(),
            service_cidrs=self.service_cidrs.snapshot(),
            api_server=self.api_server.known,
            overdue=overdue,
            gateway_objects=self.gateway_objects.snapshot(),
            answers=dict(self.answers),
            rejections=dict(self.rejections),
            ids=self.ids,
        )

    def ask_again(self) -> None:
        """Let the next plan try once more what the API server refused; forget what no plan wants any more."""
        self.rejections = {key: replace(entry, due=True) for key, entry in self.rejections.items() if not entry.due}

    async def list_followed(self, api: Api) -> None:
        """Reconcile every watched store with a complete list. Raises ApiError."""
        for entry in self.followed:
            documents, version = await api.list(entry.resource)
            entry.store.replace(documents, version=version)

    async def poll(self, api: Api) -> None:
        """Read again what is not watched. Raises ApiError."""
        await self.api_server.read(api)
        await self.list_gateway_objects(api)

    async def list_gateway_objects(self, api: Api) -> None:
        """Reconcile the gateway objects, those of our namespace, with a complete list. Raises ApiError."""
        found: list[Document] = []
        versions: list[int] = []
        for resource in kube.GATEWAY_KINDS.values():
            documents, version = await api.list(resource, namespace=self._settings.namespace, labels=GATEWAY_LABELS)
            # The items of a list do not say their kind.
            found += [{**document, "kind": resource.kind} for document in documents]
            versions.append(version)
        # The oldest of the three lists decides what may be considered deleted.
        self.gateway_objects.replace(found, version=min(versions))
        self.answers = {key: made for key, made in self.answers.items() if self.gateway_objects.get(key) is not None}

    def _put_gateway_object(self, kind: str, document: Document) -> None:
        """Take in an object of our namespace: the watch, unlike the list, brings those of others too.

        One that has lost our label counts as gone, so that it is made right again.
        """
        labels = document["metadata"].get("labels") or {}
        if labels.get(LABEL_APP) == GATEWAY_APP:
            self.gateway_objects.put({**document, "kind": kind})
        else:
            self._remove_gateway_object(kind, document)

    def _remove_gateway_object(self, kind: str, document: Document) -> None:
        if self.gateway_objects.get((kind, _name(document))) is not None:
            self.gateway_objects.remove({**document, "kind": kind})
