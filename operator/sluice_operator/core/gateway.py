"""The Kubernetes objects that keep a pool's gateways: a Deployment, a Service and a PodDisruptionBudget.

Invariants:
- Documents are pure functions of the pool, so the same pool always gives the same bytes.
- Every object is owned by its pool: deleting the pool takes them with it.
- `differs` decides whether a write is needed; without a difference nothing is written.
- Pure: no I/O, no clock.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from sluice_api.names import AGENT_SOCKET, API_VERSION, GATEWAY_APP, GROUP, LABEL_APP, LABEL_POOL, PROXY_UID
from sluice_api.timers import GATEWAY_GRACE, GATEWAY_PROGRESS
from sluice_operator.core.gatewaypods import GatewayPods
from sluice_operator.core.snapshot import GatewayObject, Pool, Settings

ANNOTATION_HASH: Final = f"{GROUP}/applied-hash"
FIRST_PROXY_PORT: Final = 13128
Document = dict[str, Any]


def documents(pool: Pool, settings: Settings, *, proxy_port: int) -> tuple[Document, ...]:
    """Every object the pool needs; without a proxy there is nothing for a Service to lead to."""
    needed = [_deployment(pool, settings, proxy_port=proxy_port), _disruption_budget(pool, settings)]
    if pool.gateways.proxy_enabled:
        needed.append(_service(pool, settings, proxy_port=proxy_port))
    return tuple(_sealed(document) for document in needed)


def deployment_name(pool: str) -> str:
    """Name of a pool's Deployment and PodDisruptionBudget."""
    return f"{pool}-gateway"


def proxy_url(pool: Pool, settings: Settings) -> str:
    """What a client puts into HTTPS_PROXY; empty when the pool has no proxy."""
    if not pool.gateways.proxy_enabled:
        return ""
    return f"http://{pool.name}.{settings.namespace}.svc:{pool.gateways.proxy_port}"


def differs(live: GatewayObject | None, wanted: Mapping[str, Any]) -> bool:
    """Whether `wanted` must be applied: the object is missing, was made from another document, or was edited.

    Server-side defaults add fields, so the live object may hold more than the wanted one. `resources` is compared by
    the hash only: the API server rewrites quantities (0.5 becomes 500m).
    """
    if live is None:
        return True
    if digest_of(live.document) != digest_of(wanted):
        return True
    return not (
        _covers(live.document.get("spec"), wanted["spec"])
        and _covers(live.document.get("metadata"), _metadata_to_compare(wanted))
    )


def is_ours(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an object under a name that we need is a gateway object, or was: somebody may have edited our labels."""
    metadata = live["metadata"]
    owners = {owner.get("uid") for owner in metadata.get("ownerReferences") or ()}
    ours = {owner["uid"] for owner in wanted["metadata"]["ownerReferences"]}
    return (metadata.get("labels") or {}).get(LABEL_APP) == GATEWAY_APP or bool(owners & ours)


def key_of(document: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name."""
    return document["kind"], document["metadata"]["name"]


def digest_of(document: Mapping[str, Any]) -> str:
    """The hash by which a document is known to have been applied; empty for one that is not ours."""
    annotations: Mapping[str, str] = document.get("metadata", {}).get("annotations") or {}
    return annotations.get(ANNOTATION_HASH, "")


def proxy_ports(pools: Iterable[Pool], live: Mapping[tuple[str, str], GatewayObject]) -> dict[str, int]:
    """The port each pool's proxy listens on, unique in the cluster since gateways share their node's addresses.

    The running Deployment is the truth, then the pool's status; new pools get the lowest free port from 13128.
    Of two pools that claim one port the older keeps it.
    """
    in_order = sorted(pools, key=lambda pool: (pool.created, pool.name))
    ports: dict[str, int] = {}
    for pool in in_order:
        held = _listening_port(live.get(("Deployment", deployment_name(pool.name)))) or pool.status.proxy_port
        if held is not None and held not in ports.values():
            ports[pool.name] = held
    taken = set(ports.values())
    for pool in in_order:
        if pool.name not in ports:
            port = next(number for number in range(FIRST_PROXY_PORT, 65536) if number not in taken)
            ports[pool.name] = port
            taken.add(port)
    return ports


def _listening_port(deployment: GatewayObject | None) -> int | None:
    if deployment is None:
        return None
    containers = deployment.document.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or [{}]
    arguments = containers[0].get("args") or []
    for flag, value in pairwise(arguments):
        if flag == "--listen-port" and value.isdecimal():
            return int(value)
    return None


def _deployment(pool: Pool, settings: Settings, *, proxy_port: int) -> Document:
    labels = _labels(pool)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(pool, settings, name=deployment_name(pool.name)),
        "spec": {
            "replicas": pool.gateways.replicas,
            "selector": {"matchLabels": labels},
            "progressDeadlineSeconds": int(GATEWAY_PROGRESS),
            # Anti-affinity is required, so a surge pod needs a spare node; taking one away first always works.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "template": {
                "metadata": _pod_metadata(labels, settings.gateway_pods),
                "spec": _pod_spec(pool, settings, proxy_port=proxy_port, labels=labels),
            },
        },
    }


def _pod_spec(pool: Pool, settings: Settings, *, proxy_port: int, labels: Mapping[str, str]) -> Document:
    spec: Document = {
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(GATEWAY_GRACE),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(pool, settings, proxy_port=proxy_port)],
        "volumes": [{"name": "agent", "hostPath": {"path": _socket_directory(), "type": "Directory"}}],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(labels)},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": dict(labels)}}
                ]
            }
        },
    }
    pods = settings.gateway_pods
    if pods.priority_class:
        spec["priorityClassName"] = pods.priority_class
    if pods.service_account:
        spec["serviceAccountName"] = pods.service_account
    if pods.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pods.pull_secrets]
    if pool.gateways.node_selector:
        spec["nodeSelector"] = dict(pool.gateways.node_selector)
    if pool.gateways.tolerations:
        spec["tolerations"] = [dict(entry) for entry in pool.gateways.tolerations]
    return spec


def _container(pool: Pool, settings: Settings, *, proxy_port: int) -> Document:
    pods = settings.gateway_pods
    arguments = ["--pool", pool.name, "--listen-port", str(proxy_port), "--log-format", pods.log_format]
    if not pool.gateways.proxy_enabled:
        arguments.append("--no-proxy")
    arguments += pods.arguments
    container: Document = {
        "name": "proxy",
        "image": settings.gateway_image,
        "imagePullPolicy": pods.pull_policy,
        "args": arguments,
        "ports": [{"name": "proxy", "containerPort": proxy_port, "hostPort": proxy_port, "protocol": "TCP"}],
        "readinessProbe": _probe("/readyz", proxy_port, period=2, failures=2),
        "livenessProbe": _probe("/healthz", proxy_port, period=10, failures=3),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # Connecting to a socket needs the socket's own mode only, so the mount itself stays read-only.
        "volumeMounts": [{"name": "agent", "mountPath": _socket_directory(), "readOnly": True}],
    }
    if pods.environment:
        container["env"] = [dict(variable) for variable in pods.environment]
    if pool.gateways.resources:
        container["resources"] = dict(pool.gateways.resources)
    return container


def _probe(path: str, port: int, *, period: int, failures: int) -> Document:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }


def _service(pool: Pool, settings: Settings, *, proxy_port: int) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(pool, settings, name=pool.name),
        "spec": {
            "type": "ClusterIP",
            "ipFamilyPolicy": "PreferDualStack",
            "selector": _labels(pool),
            "ports": [{"name": "proxy", "port": pool.gateways.proxy_port, "targetPort": proxy_port, "protocol": "TCP"}],
        },
    }


def _disruption_budget(pool: Pool, settings: Settings) -> Document:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(pool, settings, name=deployment_name(pool.name)),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(pool)}},
    }


def _metadata(pool: Pool, settings: Settings, *, name: str) -> Document:
    return {
        "name": name,
        "namespace": settings.namespace,
        "labels": {**settings.gateway_pods.labels, **_labels(pool), "app.kubernetes.io/managed-by": "sluice-operator"},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "EgressPool",
                "name": pool.name,
                "uid": pool.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _pod_metadata(labels: Mapping[str, str], pods: GatewayPods) -> Document:
    """No label of an installer replaces one that selectors need."""
    metadata: Document = {"labels": {**pods.labels, **labels}}
    if pods.annotations:
        metadata["annotations"] = dict(pods.annotations)
    return metadata


def _labels(pool: Pool) -> dict[str, str]:
    return {LABEL_APP: GATEWAY_APP, LABEL_POOL: pool.name}


def _socket_directory() -> str:
    return AGENT_SOCKET.rpartition("/")[0]


def _sealed(document: Document) -> Document:
    """The document with a hash of itself, by which a later run knows that it need not write."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return document | {"metadata": document["metadata"] | {"annotations": {ANNOTATION_HASH: digest}}}


def _metadata_to_compare(wanted: Mapping[str, Any]) -> Document:
    return {"labels": wanted["metadata"]["labels"], "ownerReferences": wanted["metadata"]["ownerReferences"]}


def _covers(live: object, wanted: object) -> bool:
    """Whether `live` holds everything in `wanted`; lists must match element by element."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            key == "resources" or (key in live and _covers(live[key], value)) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_covers(one, other) for one, other in zip(live, wanted, strict=True))
        )
    return live == wanted
