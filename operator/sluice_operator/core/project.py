"""Documents of the API server -> projections.

Invariants:
- Total: a document that some other client wrote never raises here. What is wrong with a spec becomes words in
  `problems`; a status that cannot be read counts as lost, and a lost status is rebuilt.
- Nothing but the listed fields is kept, so memory follows the number of objects, not their size.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address, ip_network
from sys import intern
from typing import Any

from sluice_api.durations import seconds as duration_seconds
from sluice_api.models.egressnode import MOST_TROUBLES
from sluice_api.names import ANNOTATION_REMOVE, LABEL_POOL
from sluice_api.reasons import Reason
from sluice_api.timers import QUARANTINE
from sluice_operator.core.snapshot import (
    Address,
    Condition,
    EgressIP,
    EgressNode,
    Expression,
    FamilyCount,
    GatewayObject,
    GatewaySpec,
    Namespace,
    NodePolicy,
    NodeTrouble,
    Policy,
    PolicyKey,
    PolicyStatus,
    Pool,
    PoolStatus,
    Reservation,
    Selector,
    Slice,
    Span,
    span_of,
)
from sluice_operator.core.validate import policy_problems, pool_problems

Document = Mapping[str, Any]


def version_of(document: Document) -> int:
    """The object's resourceVersion as a number, by which versions of one object are ordered."""
    text = str(_metadata(document).get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0


def pool(document: Document) -> Pool:
    """An EgressPool."""
    metadata, spec = _metadata(document), _mapping(document.get("spec"))
    gateways = _mapping(spec.get("gateways"))
    proxy = _mapping(gateways.get("proxy"))
    return Pool(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        generation=_number(metadata.get("generation")),
        created=metadata.get("creationTimestamp", ""),
        addresses=tuple(map(str, spec.get("addresses") or ())),
        exclude=tuple(map(str, spec.get("exclude") or ())),
        namespaces=selector(spec["namespaces"]) if spec.get("namespaces") is not None else None,
        gateways=GatewaySpec(
            replicas=_number(gateways.get("replicas", 2)),
            node_selector=_mapping(gateways.get("nodeSelector")),
            tolerations=tuple(gateways.get("tolerations") or ()),
            resources=_mapping(gateways.get("resources")),
            proxy_enabled=bool(proxy.get("enabled", True)),
            proxy_port=_number(proxy.get("port", 3128)),
        ),
        announces=_mapping(spec.get("announcement")).get("mode", "L2") == "L2",
        ports_per_slice=_number(spec.get("portsPerSlice", 1024)),
        problems=pool_problems(spec),
        quarantine=_quarantine(spec.get("quarantine")),
        reservations=tuple(filter(None, map(_reservation, spec.get("reservations") or ()))),
        quota=_number(_mapping(spec.get("quota")).get("addressesPerNamespace")) or None,
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers") or ()),
        status=_pool_status(_mapping(document.get("status"))),
        resource_version=version_of(document),
    )


def policy(document: Document) -> Policy:
    """An EgressPolicy."""
    metadata, spec = _metadata(document), _mapping(document.get("spec"))
    addresses = _mapping(spec.get("addresses"))
    families = addresses.get("families")
    return Policy(
        key=PolicyKey(metadata["namespace"], metadata["name"]),
        uid=metadata.get("uid", ""),
        generation=_number(metadata.get("generation")),
        created=metadata.get("creationTimestamp", ""),
        pool=str(spec.get("pool", "")),
        families=frozenset(6 if family == "IPv6" else 4 for family in families) if families else None,
        requested=_addresses(addresses.get("requested")),
        destinations=tuple(_spans(spec.get("destinations") or ())),
        problems=policy_problems(spec),
        status=_policy_status(_mapping(document.get("status"))),
        resource_version=version_of(document),
    )


def namespace(document: Document) -> Namespace:
    """A namespace."""
    metadata = _metadata(document)
    return Namespace(metadata["name"], dict(metadata.get("labels") or {}))


def egress_ip(document: Document) -> EgressIP | None:
    """An EgressIP; None when its address cannot be read, which the API server's validation rules out."""
    metadata, spec, status = _metadata(document), _mapping(document.get("spec")), _mapping(document.get("status"))
    address = _address(spec.get("address"))
    if address is None:
        return None
    owner = _mapping(spec.get("policy"))
    return EgressIP(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        address=address,
        pool=str(spec.get("pool", "")),
        policy=PolicyKey(str(owner.get("namespace", "")), str(owner.get("name", ""))),
        slices=_shared(tuple(filter(None, map(_slice, status.get("slices") or ())))),
        nodes=_number(status.get("nodes")),
        claimed=str(spec.get("claimed") or ""),
        resting_since=str(status.get("restingSince") or ""),
        holder=str(status.get("holder") or ""),
        generation=_number(metadata.get("generation")),
        conditions=_conditions(status),
        deleting="deletionTimestamp" in metadata,
        resource_version=version_of(document),
    )


def egress_node(document: Document) -> EgressNode:
    """An EgressNode."""
    metadata, status = _metadata(document), _mapping(document.get("status"))
    annotations = _mapping(metadata.get("annotations"))
    return EgressNode(
        name=metadata["name"],
        revision=_number(status.get("revision")),
        gateway_for=frozenset(map(str, status.get("gatewayFor") or ())),
        policies=tuple(
            NodePolicy(
                key=PolicyKey(str(entry.get("namespace", "")), str(entry.get("name", ""))),
                generation=_number(entry.get("generation")),
                pods=_number(entry.get("pods")),
                overridden=_number(entry.get("overridden")),
                overridden_by=tuple(map(str, entry.get("overriddenBy") or ())),
            )
            for entry in status.get("policies") or ()
        ),
        gateways_alive=tuple(
            (str(entry.get("node", "")), bool(entry.get("alive"))) for entry in status.get("gateways") or ()
        ),
        occupied=tuple(
            (address, intern(str(_mapping(entry).get("by", ""))))
            for entry in status.get("occupied") or ()
            if (address := _address(_mapping(entry).get("address"))) is not None
        ),
        surveyed=intern(str(status.get("surveyed") or "")),
        trouble=next(
            (
                condition.message or condition.reason
                for condition in _conditions(status)
                if condition.type == "Programmed"
                and condition.status == "False"
                and condition.reason != Reason.NODE_TROUBLE
            ),
            "",
        ),
        troubles=tuple(map(_trouble, (status.get("troubles") or ())[:MOST_TROUBLES])),
        removing=annotations.get(ANNOTATION_REMOVE) == "true",
    )


def gateway_object(document: Document, *, kind: str) -> GatewayObject:
    """A Deployment, Service or PodDisruptionBudget of a pool, less what others write into it."""
    metadata = _metadata(document)
    labels = _mapping(metadata.get("labels"))
    kept = {key: metadata.get(key) or {} for key in ("labels", "annotations")}
    return GatewayObject(
        kind=kind,
        name=metadata["name"],
        pool=str(labels.get(LABEL_POOL, "")),
        document={
            "metadata": kept | {"ownerReferences": metadata.get("ownerReferences") or []},
            "spec": document.get("spec") or {},
        },
        deleting="deletionTimestamp" in metadata,
        complaint=_complaint(_mapping(document.get("status"))) if kind == "Deployment" else "",
    )


def selector(value: object) -> Selector:
    """A LabelSelector."""
    document = _mapping(value)
    return Selector(
        labels=tuple(sorted((str(key), str(text)) for key, text in _mapping(document.get("matchLabels")).items())),
        expressions=tuple(
            Expression(
                key=str(entry.get("key", "")),
                operator=str(entry.get("operator", "")),
                values=tuple(map(str, entry.get("values") or ())),
            )
            for entry in document.get("matchExpressions") or ()
        ),
    )


def _complaint(status: Document) -> str:
    """Why a Deployment has no pods (a quota or a policy refuses them) or no ready ones after its deadline (apps/v1)."""
    for condition in _conditions(status):
        if (condition.type, condition.status) in (("ReplicaFailure", "True"), ("Progressing", "False")):
            return f"{condition.reason}: {condition.message}"
    return ""


def _trouble(value: object) -> NodeTrouble:
    entry = _mapping(value)
    policy = _mapping(entry.get("policy"))
    return NodeTrouble(
        pool=str(entry.get("pool", "")),
        policy=PolicyKey(str(policy.get("namespace", "")), str(policy.get("name", ""))) if policy else None,
        address=str(entry.get("address", "")),
        message=str(entry.get("message", "")),
    )


def _pool_status(status: Document) -> PoolStatus:
    gateways = _mapping(status.get("gateways"))
    port = status.get("proxyPort")
    return PoolStatus(
        observed_generation=_number(status.get("observedGeneration")),
        ipv4=_family_count(status.get("ipv4")),
        ipv6=_family_count(status.get("ipv6")),
        gateways_desired=_number(gateways.get("desired")),
        gateways_ready=_number(gateways.get("ready")),
        gateway_nodes=tuple(map(str, gateways.get("nodes") or ())),
        policies=_number(status.get("policies")),
        namespaces=str(_mapping(status.get("display")).get("namespaces") or ""),
        proxy=str(status.get("proxy") or ""),
        proxy_port=port if isinstance(port, int) and 0 < port < 65536 else None,
        conditions=_conditions(status),
    )


def _policy_status(status: Document) -> PolicyStatus:
    nodes = _mapping(status.get("nodes"))
    held = status.get("id")
    return PolicyStatus(
        observed_generation=_number(status.get("observedGeneration")),
        id=held if isinstance(held, int) else None,
        revision=_number(status.get("revision")),
        addresses=_addresses(status.get("addresses")),
        pods=_number(status.get("pods")),
        nodes_concerned=_number(nodes.get("concerned")),
        nodes_programmed=_number(nodes.get("programmed")),
        conditions=_conditions(status),
    )


def _conditions(status: Document) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            type=str(entry.get("type", "")),
            status=str(entry.get("status", "Unknown")),
            reason=str(entry.get("reason", "")),
            message=str(entry.get("message", "")),
            observed_generation=_number(entry.get("observedGeneration")),
            last_transition_time=str(entry.get("lastTransitionTime", "")),
        )
        for entry in status.get("conditions") or ()
    )


def _family_count(value: object) -> FamilyCount:
    count = _mapping(value)
    numbers = {name: _number(count.get(name)) for name in ("total", "assigned", "free", "resting", "reserved")}
    return FamilyCount(**numbers, last_assigned=_address(count.get("lastAssigned")))


def _reservation(value: object) -> Reservation | None:
    entry = _mapping(value)
    address = _address(entry.get("address"))
    if address is None:
        return None
    return Reservation(address, str(entry.get("namespace", "")), str(entry.get("policy") or ""))


def _quarantine(value: object) -> int:
    """Seconds. What cannot be read, which the schema rules out, rests as long as is usual, never shorter."""
    try:
        return int(QUARANTINE) if value is None else duration_seconds(str(value))
    except ValueError:
        return int(QUARANTINE)


@lru_cache(maxsize=1024)
def _shared(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
    """One object for equal values: most egress IPs are divided among the nodes in the same way."""
    return slices


def _slice(value: object) -> Slice | None:
    entry = _mapping(value)
    first, _, last = str(entry.get("ports", "")).partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        return None
    return Slice(
        node=intern(str(entry.get("node", ""))),
        first=int(first),
        last=int(last),
        vanished=intern(str(entry.get("vanishedSince") or "")),
    )


def _address(value: object) -> Address | None:
    try:
        return ip_address(str(value))
    except ValueError:
        return None


def _spans(destinations: Iterable[object]) -> Iterator[Span]:
    for destination in destinations:
        for value in _mapping(destination).get("cidrs") or ():
            with suppress(ValueError):  # it is one of the policy's problems
                yield span_of(ip_network(str(value), strict=False))


def _addresses(values: Iterable[object] | None) -> tuple[Address, ...]:
    return tuple(address for address in map(_address, values or ()) if address is not None)


def _metadata(document: Document) -> Document:
    return _mapping(document.get("metadata"))


def _mapping(value: object) -> Document:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
