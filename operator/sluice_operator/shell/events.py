"""Kubernetes Events for transitions: what `kubectl describe` and `kubectl events` show.

Best effort: an Event that cannot be posted is logged and forgotten, since the condition it tells of has been written.
"""

import logging
import uuid
from datetime import UTC, datetime

from sluice_api.names import API_VERSION, FIELD_MANAGER_OPERATOR
from sluice_operator.core.actions import Notice
from sluice_operator.shell.kube import EVENT, Api, ApiError, Document

log = logging.getLogger(__name__)


async def post(api: Api, notice: Notice, *, reporter: str) -> None:
    """Post one Event; `reporter` is this pod's name."""
    # Events of cluster-scoped objects live in the default namespace, where kubectl looks for them.
    namespace = notice.namespace or "default"
    try:
        await api.create(EVENT, _document(notice, namespace=namespace, reporter=reporter), namespace=namespace)
    except ApiError as error:
        log.warning("cannot post an event: %s", error)


def _document(notice: Notice, *, namespace: str, reporter: str) -> Document:
    regarding = {"apiVersion": API_VERSION, "kind": notice.kind, "name": notice.name, "uid": notice.uid}
    if notice.namespace:
        regarding["namespace"] = notice.namespace
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{notice.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "reportingController": f"sluice.dev/{FIELD_MANAGER_OPERATOR}",
        "reportingInstance": reporter[:128],
        "action": "Reconcile",
        "reason": notice.reason,
        "type": notice.severity,
        "note": notice.message[:1024],
        "regarding": regarding,
    }
