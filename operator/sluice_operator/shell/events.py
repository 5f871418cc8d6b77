"""Kubernetes Events for transitions: what `kubectl describe` and `kubectl events` show.

Best effort: an Event that cannot be posted is logged and forgotten, since the condition it tells of has been written.
"""

import logging
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from sluice_api.names import API_VERSION, FIELD_MANAGER_OPERATOR
from sluice_operator.core.actions import Notice
from sluice_operator.shell.kube import EVENT, Api, ApiError, Document

log = logging.getLogger(__name__)


async def post(api: Api, notice: Notice, *, reporter: str) -> None:
    """Post one Event; `reporter` is this pod's name."""
    regarding = {"apiVersion": API_VERSION, "kind": notice.kind, "name": notice.name, "uid": notice.uid}
    if notice.namespace:
        regarding["namespace"] = notice.namespace
    await _post(api, regarding, severity=notice.severity, reason=notice.reason, note=notice.message, reporter=reporter)


async def post_about(api: Api, document: Document, *, reason: str, message: str, reporter: str) -> None:
    """Post a Warning on an object of Kubernetes, as the API server answered it."""
    metadata = document["metadata"]
    regarding = {"apiVersion": document["apiVersion"], "kind": document["kind"], "name": metadata["name"]}
    regarding |= {"uid": metadata["uid"], "namespace": metadata["namespace"]}
    await _post(api, regarding, severity="Warning", reason=reason, note=message, reporter=reporter)


async def _post(
    api: Api, regarding: Mapping[str, str], *, severity: str, reason: str, note: str, reporter: str
) -> None:
    # Events of cluster-scoped objects live in the default namespace, where kubectl looks for them.
    namespace = regarding.get("namespace", "default")
    document = {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{regarding['name'][:200]}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "reportingController": f"sluice.dev/{FIELD_MANAGER_OPERATOR}",
        "reportingInstance": reporter[:128],
        "action": "Reconcile",
        "reason": reason,
        "type": severity,
        "note": note[:1024],
        "regarding": dict(regarding),
    }
    try:
        await api.create(EVENT, document, namespace=namespace)
    except ApiError as error:
        log.warning("cannot post an event: %s", error)
