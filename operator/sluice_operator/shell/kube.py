"""Requests to the Kubernetes API: one small client, errors sorted by what the caller must do about them.

Invariants:
- Every request has a time limit; nothing here retries, since only the caller knows whether its decision still holds.
- Every write names its field manager. A write decided on a version carries it, so that the API server refuses it when
  the object has moved on.
- Documents are plain dicts: this module knows nothing of what they mean.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config

from sluice_api.names import EGRESS_IPS, EGRESS_NODES, FIELD_MANAGER_OPERATOR, GROUP, POLICIES, POOLS, VERSION

Document = dict[str, Any]
REQUEST_SECONDS: Final = 10.0
PAGE: Final = 500
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
WEBHOOK_FAILED: Final = "failed calling webhook"
"""How the API server begins its complaint (apiserver, pkg/admission/plugin/webhook/errors)."""
SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of one kind live."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """As written in a document."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        """The request path of the collection, of an object, or of its subresource."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [base]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


EGRESS_POOL: Final = Resource(GROUP, VERSION, POOLS, "EgressPool", False)
EGRESS_POLICY: Final = Resource(GROUP, VERSION, POLICIES, "EgressPolicy", True)
EGRESS_IP: Final = Resource(GROUP, VERSION, EGRESS_IPS, "EgressIP", False)
EGRESS_NODE: Final = Resource(GROUP, VERSION, EGRESS_NODES, "EgressNode", False)
NAMESPACE: Final = Resource("", "v1", "namespaces", "Namespace", False)
NODE: Final = Resource("", "v1", "nodes", "Node", False)
CONFIG_MAP: Final = Resource("", "v1", "configmaps", "ConfigMap", True)
DEPLOYMENT: Final = Resource("apps", "v1", "deployments", "Deployment", True)
DAEMON_SET: Final = Resource("apps", "v1", "daemonsets", "DaemonSet", True)
SERVICE: Final = Resource("", "v1", "services", "Service", True)
DISRUPTION_BUDGET: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True)
JOB: Final = Resource("batch", "v1", "jobs", "Job", True)
SERVICE_CIDR: Final = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", False)
ENDPOINT_SLICE: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True)
LEASE: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease", True)
EVENT: Final = Resource("events.k8s.io", "v1", "events", "Event", True)
GATEWAY_KINDS: Final = {resource.kind: resource for resource in (DEPLOYMENT, SERVICE, DISRUPTION_BUDGET)}


class ApiError(Exception):
    """A request did not do what was asked; the message names the request and the server's reason."""


class Conflict(ApiError):
    """The object is not at the version that the decision was made on: decide again."""


class AlreadyExists(Conflict):
    """Somebody else created an object of this name first."""


class NotFound(ApiError):
    """The object is not there."""


class Rejected(ApiError):
    """The server will refuse this request each time: invalid, or not permitted. `said` are its own words alone."""

    def __init__(self, text: str, *, said: str = "") -> None:
        super().__init__(text)
        self.said = said or text


class Unavailable(ApiError):
    """No answer, or one that says to try later. Whether a write took effect is unknown."""


class Api(Protocol):
    """What the rest of the operator asks of the API server; the tests have one in memory."""

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> Document:
        """One object. Raises NotFound."""

    async def list(self, resource: Resource, *, namespace: str = "", labels: str = "") -> tuple[list[Document], int]:
        """All objects (of a namespace, with labels) and the version of the collection."""

    async def create(self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "") -> Document:
        """Create an object. Raises AlreadyExists."""

    async def update(self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "") -> Document:
        """Replace an object; its metadata.resourceVersion is the precondition. Raises Conflict, NotFound."""

    async def patch(
        self, resource: Resource, name: str, document: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> Document:
        """Merge patch; metadata.resourceVersion, if given, is the precondition. Raises Conflict, NotFound."""

    async def apply(
        self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "", force: bool = False
    ) -> Document:
        """Server-side apply. Without `force`, Conflict when another manager owns a field with another value."""

    async def delete(
        self, resource: Resource, name: str, *, namespace: str = "", uid: str = "", version: int = 0
    ) -> None:
        """Delete an object, of this uid and version if given. Raises Conflict, NotFound."""


class KubeApi:
    """The API over HTTP, with the connection settings of the pod's service account or of KUBECONFIG."""

    def __init__(self, api_client: Any) -> None:
        self._client = api_client

    @classmethod
    async def connect(cls) -> "KubeApi":
        """A client for the cluster this process runs in, or else the one that KUBECONFIG names."""
        configuration = client.Configuration()
        configuration.retries = False
        if SERVICE_ACCOUNT_TOKEN.exists():
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(client_configuration=configuration)
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> Document:
        """See Api.get."""
        return await self._request("GET", resource.path(name, namespace=namespace))

    async def list(self, resource: Resource, *, namespace: str = "", labels: str = "") -> tuple[list[Document], int]:
        """See Api.list."""
        items: list[Document] = []
        version = 0
        async for page in self._pages(resource.path(namespace=namespace), labels):
            items += page["items"]
            version = int(page["metadata"]["resourceVersion"])
        return items, version

    async def create(self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "") -> Document:
        """See Api.create."""
        return await self._request("POST", resource.path(namespace=namespace), body=document)

    async def update(self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "") -> Document:
        """See Api.update."""
        path = resource.path(document["metadata"]["name"], namespace=namespace)
        return await self._request("PUT", path, body=document)

    async def patch(
        self, resource: Resource, name: str, document: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> Document:
        """See Api.patch."""
        path = resource.path(name, namespace=namespace, subresource=subresource)
        return await self._request("PATCH", path, body=document, content_type=MERGE_PATCH)

    async def apply(
        self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "", force: bool = False
    ) -> Document:
        """See Api.apply."""
        path = resource.path(document["metadata"]["name"], namespace=namespace)
        query = {"force": "true"} if force else {}
        return await self._request("PATCH", path, query=query, body=document, content_type=APPLY_PATCH)

    async def delete(
        self, resource: Resource, name: str, *, namespace: str = "", uid: str = "", version: int = 0
    ) -> None:
        """See Api.delete."""
        preconditions = ({"uid": uid} if uid else {}) | ({"resourceVersion": str(version)} if version else {})
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        await self._request("DELETE", resource.path(name, namespace=namespace), body=options)

    async def _pages(self, path: str, labels: str) -> AsyncIterator[Document]:
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self._request("GET", path, query=query)
            yield page
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        parameters = dict(query or {})
        if method not in ("GET", "DELETE"):
            parameters["fieldManager"] = FIELD_MANAGER_OPERATOR
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._client.configuration.host + path + (f"?{urlencode(parameters)}" if parameters else "")
        try:
            response = await self._client.rest_client.request(
                method,
                url,
                headers=headers,
                body=None if body is None else dict(body),
                _request_timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            )
            data = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{method} {path}: {str(error) or type(error).__name__}") from error
        if response.status < 300:
            return _parsed(data)
        raise _error(method, path, response.status, data)


def _parsed(data: bytes) -> Document:
    document: Document = json.loads(data)
    return document


def _error(method: str, path: str, status: int, data: bytes) -> ApiError:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = {}
    reason, message = answer.get("reason", ""), answer.get("message") or data[:200].decode(errors="replace")
    text = f"{method} {path}: {status} {message}"
    if status == 409:
        return AlreadyExists(text) if reason == "AlreadyExists" else Conflict(text)
    if status == 404:
        return NotFound(text)
    # An admission webhook that does not answer is about this object: all others must not wait for it.
    if status == 500 and WEBHOOK_FAILED in message:
        return Rejected(text, said=message)
    # 401: the token ran out and the next request brings a new one; 410: a list page expired.
    if status >= 500 or status in (401, 408, 410, 429):
        return Unavailable(text)
    return Rejected(text, said=message)
