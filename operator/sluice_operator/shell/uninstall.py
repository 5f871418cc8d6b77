"""`sluice-operator uninstall`: takes Sluice out of the nodes before its programs are taken away.

The order matters. The operator stops first, or it would put back what is removed; the gateways go next, so that no
node is a gateway any more; then each agent, still running, cleans its own node and says so.

Invariants:
- Idempotent: every step looks at what there is, so a run that was interrupted is simply run again.
- What decides addresses stays: pools, policies and EgressIPs are kept, and a new installation finds the same
  addresses assigned.
- Whatever comes of it, no status is left that says Ready: nobody is there to correct it.
- A node whose kubelet is not ready cannot clean up and is not waited for; it is named.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from sluice_api.names import AGENT_APP, ANNOTATION_REMOVE, FINALIZER_IN_USE, LABEL_APP
from sluice_api.timers import LEASE_DURATION
from sluice_operator.core import removal
from sluice_operator.core.words import count
from sluice_operator.shell import kube
from sluice_operator.shell.confirm import OPERATOR_DEPLOYMENT
from sluice_operator.shell.kube import Api, Conflict, Document, NotFound, Unavailable
from sluice_operator.shell.leader import LEASE_NAME
from sluice_operator.shell.view import GATEWAY_LABELS

log = logging.getLogger(__name__)

POLL: Final = 0.5
AT_ONCE: Final = 16
"""Requests at a time: thousands of statuses must be written within the Job's deadline."""
REMOVED: Final = "Removed"


class Stragglers(Exception):
    """The time is up; `names` are who or what is not done."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        super().__init__(text)
        self.names = names


class Uninstaller:
    """One run. `say` gets a line of progress; `clock` counts seconds and never goes back."""

    def __init__(
        self, api: Api, *, namespace: str, timeout: float, say: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._timeout = timeout
        self._say = say
        self._clock = clock
        self._renewed: tuple[str, float] | None = None

    async def run(self) -> None:
        """Uninstall. Raises Stragglers when nodes or objects remain, ApiError when the API server refuses."""
        await self._stop_operator()
        await self._delete_gateways()
        try:
            unclean = await self._clean_nodes()
        except Stragglers as stragglers:
            await self._tell_the_truth(stragglers.names)
            raise
        await self._delete_heartbeats()
        await self._tell_the_truth(unclean)
        await self._free_pools()
        self._say("done: pools, policies and egress IPs are kept, and a new installation goes on with them")

    async def _stop_operator(self) -> None:
        try:
            await self._api.patch(
                kube.DEPLOYMENT, OPERATOR_DEPLOYMENT, {"spec": {"replicas": 0}}, namespace=self._namespace
            )
        except NotFound:
            self._say("operator: not there")
        else:
            self._say("operator: scaled to 0")
        await self._until(self._operators_left, "the operator still runs")
        self._say("operator: stopped")

    async def _operators_left(self) -> list[str]:
        """The Deployment's count of pods and, since that leaves out pods that are still ending, the lease."""
        left: list[str] = []
        with contextlib.suppress(NotFound):
            deployment = await self._api.get(kube.DEPLOYMENT, OPERATOR_DEPLOYMENT, namespace=self._namespace)
            running = (deployment.get("status") or {}).get("replicas") or 0
            left += [count(running, "operator pod")] if running else []
        with contextlib.suppress(NotFound):
            lease = await self._api.get(kube.LEASE, LEASE_NAME, namespace=self._namespace)
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") and not self._lease_is_stale(str(spec.get("renewTime"))):
                left.append(f"the lease of {spec['holderIdentity']}")
        return left

    def _lease_is_stale(self, renewed: str) -> bool:
        if self._renewed is None or self._renewed[0] != renewed:
            self._renewed = (renewed, self._clock())
        return self._clock() - self._renewed[1] >= LEASE_DURATION

    async def _delete_gateways(self) -> None:
        for resource in kube.GATEWAY_KINDS.values():
            documents, _ = await self._api.list(resource, namespace=self._namespace, labels=GATEWAY_LABELS)
            for document in documents:
                name = document["metadata"]["name"]
                await _ignoring_absence(self._api.delete(resource, name, namespace=self._namespace))
                self._say(f"gateways: deleted {resource.kind} {name}")

    async def _clean_nodes(self) -> list[str]:
        """The nodes that could not clean up, being not ready."""
        nodes, _ = await self._api.list(kube.EGRESS_NODE)
        for node in nodes:
            patch = {"metadata": {"annotations": {ANNOTATION_REMOVE: "true"}}}
            await _ignoring_absence(self._api.patch(kube.EGRESS_NODE, node["metadata"]["name"], patch))
        self._say(f"nodes: asked {len(nodes)} to clean up")
        await self._until(self._nodes_left, "nodes have not cleaned up")
        nodes, _ = await self._api.list(kube.EGRESS_NODE)
        unclean = sorted(node["metadata"]["name"] for node in nodes if not _is_removed(node))
        for name in unclean:
            self._say(f"nodes: {name} is not ready and could not clean up; restarting it does")
        for node in nodes:
            await _ignoring_absence(self._api.delete(kube.EGRESS_NODE, node["metadata"]["name"]))
        self._say("nodes: clean")
        return unclean

    async def _nodes_left(self) -> list[str]:
        ready = {node["metadata"]["name"] for node in (await self._api.list(kube.NODE))[0] if _is_ready(node)}
        egress_nodes, _ = await self._api.list(kube.EGRESS_NODE)
        names = (node["metadata"]["name"] for node in egress_nodes if not _is_removed(node))
        return sorted(name for name in names if name in ready)

    async def _delete_heartbeats(self) -> None:
        """An agent that has cleaned its node renews its Lease no more."""
        leases, _ = await self._api.list(kube.LEASE, namespace=self._namespace, labels=f"{LABEL_APP}={AGENT_APP}")
        for lease in leases:
            name = lease["metadata"]["name"]
            await _ignoring_absence(self._api.delete(kube.LEASE, name, namespace=self._namespace))

    async def _tell_the_truth(self, unclean: Sequence[str]) -> None:
        """Nobody corrects a status any more, so none may be left that says Ready."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for resource, patch_of in (
            (kube.EGRESS_POLICY, partial(removal.policy_patch, unclean=unclean, now=now)),
            (kube.EGRESS_POOL, partial(removal.pool_patch, unclean=unclean, now=now)),
            (kube.EGRESS_IP, removal.claim_patch),
        ):
            documents, _ = await self._api.list(resource)
            wanted = [(document["metadata"], patch_of(document)) for document in documents]
            writes = [(metadata, patch) for metadata, patch in wanted if patch is not None]
            for start in range(0, len(writes), AT_ONCE):
                some = writes[start : start + AT_ONCE]
                await asyncio.gather(*(self._write_status(resource, metadata, patch) for metadata, patch in some))
            if writes:
                self._say(f"status: {count(len(writes), resource.kind)} {'says' if len(writes) == 1 else 'say'} so")

    async def _write_status(self, resource: kube.Resource, metadata: Document, patch: Document) -> None:
        namespace = metadata.get("namespace", "")
        body = {"status": patch}
        await _ignoring_absence(
            self._api.patch(resource, metadata["name"], body, namespace=namespace, subresource="status")
        )

    async def _free_pools(self) -> None:
        pools, _ = await self._api.list(kube.EGRESS_POOL)
        for pool in pools:
            metadata = pool["metadata"]
            finalizers = metadata.get("finalizers") or []
            if FINALIZER_IN_USE not in finalizers:
                continue
            others = [name for name in finalizers if name != FINALIZER_IN_USE]
            patch = {"metadata": {"finalizers": others, "resourceVersion": metadata["resourceVersion"]}}
            await _ignoring_absence(self._api.patch(kube.EGRESS_POOL, metadata["name"], patch))
            self._say(f"pools: {metadata['name']} may be deleted now")

    async def _until(self, left: Callable[[], Awaitable[list[str]]], complaint: str) -> None:
        """Wait until nothing is left, saying who is waited for whenever that changes."""
        end = self._clock() + self._timeout
        said: list[str] = []
        while True:
            try:
                names = await left()
            except (Unavailable, Conflict) as error:
                log.warning("%s", error)
                names = said or ["the API server"]
            if not names:
                return
            if names != said:
                self._say(f"waiting for {', '.join(names)}")
                said = names
            if self._clock() >= end:
                raise Stragglers(f"after {self._timeout:.0f} s {complaint}: {', '.join(names)}", names)
            await asyncio.sleep(POLL)


async def _ignoring_absence(request: Awaitable[object]) -> None:
    with contextlib.suppress(NotFound):
        await request


def _is_ready(node: Document) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in (node.get("status") or {}).get("conditions") or ()
    )


def _is_removed(node: Document) -> bool:
    return any(
        condition.get("type") == "Programmed" and condition.get("reason") == REMOVED
        for condition in (node.get("status") or {}).get("conditions") or ()
    )
