"""apply(plan): carries out a plan's writes, in order, and stops at the first one the API server does not agree with.

Invariants:
- Before every write the lease is checked by the monotonic clock: a process that lost it, or slept through its end,
  writes nothing more.
- The answer to every write goes into the stores, so the next plan sees it without waiting for a watch.
- A conflict means that the plan was made from an outdated view: the object is read again and nothing more is written.
- A write the server will never accept (invalid, not permitted) is reported and passed over: one bad object must not
  hold up all others.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice_operator.core import gateway, render
from sluice_operator.core.actions import (
    Action,
    AdvanceIds,
    ApplyGatewayObject,
    Claim,
    DeleteGatewayObject,
    Notice,
    Plan,
    Release,
    SetFinalizers,
    WriteClaimStatus,
    WritePolicyStatus,
    WritePoolStatus,
)
from sluice_operator.core.project import policy as project_policy
from sluice_operator.core.snapshot import IdCounter, Rejection
from sluice_operator.shell import kube
from sluice_operator.shell.kube import Api, Conflict, Document, NotFound, Rejected
from sluice_operator.shell.view import View

log = logging.getLogger(__name__)

ID_CONFIG_MAP = "sluice-policy-ids"


class LostLease(Exception):
    """This process is no longer the leader; the rest of the plan is not carried out."""


@dataclass(slots=True)
class Outcome:
    """What became of a plan. `stale`: something had moved on, plan again at once.

    Of the writes that were rejected, `told` many are known to the next plan, which says so where people look.
    """

    written: int = 0
    rejected: int = 0
    told: int = 0
    stale: str = ""
    notices: list[Notice] = field(default_factory=list)


class Applier:
    """Carries out plans against `api`, keeping `view` up to date; `may_write` is asked before every write."""

    def __init__(self, api: Api, view: View, *, namespace: str, may_write: Callable[[], bool]) -> None:
        self._api = api
        self._view = view
        self._namespace = namespace
        self._may_write = may_write

    async def apply(self, plan: Plan) -> Outcome:
        """Carry out a plan. Raises Unavailable when the API server does not answer, LostLease when we may not write."""
        outcome = Outcome()
        for action in plan.actions:
            if not self._may_write():
                raise LostLease
            try:
                await self._perform(action)
            except (Conflict, NotFound) as error:
                outcome.stale = str(error)
                await self._read_again(action)
                return outcome
            except Rejected as error:
                outcome.rejected += 1
                if isinstance(action, ApplyGatewayObject):
                    outcome.told += 1
                    self._note_rejection(action, error)
                else:
                    log.error("%s refused: %s", _describe(action), error)
                continue
            outcome.written += 1
            log.info("%s", _describe(action))
            if isinstance(action, WritePolicyStatus | WritePoolStatus):
                outcome.notices += action.notices
        return outcome

    async def read_ids(self) -> None:
        """Read the id counter, which only the leader moves."""
        try:
            document = await self._api.get(kube.CONFIG_MAP, ID_CONFIG_MAP, namespace=self._namespace)
        except NotFound:
            self._view.ids = IdCounter()
            return
        self._take_ids(document)

    async def _perform(self, action: Action) -> None:
        match action:
            case SetFinalizers():
                await self._set_finalizers(action)
            case AdvanceIds():
                await self._advance_ids(action)
            case Claim():
                document = render.claim(action)
                self._view.egress_ips.put(await self._api.create(kube.EGRESS_IP, document))
            case WriteClaimStatus():
                status = render.claim_status(
                    action.slices,
                    resting_since=action.resting_since,
                    conditions=action.conditions,
                    generation=action.generation,
                )
                patch = _status_patch(status, action.resource_version)
                answer = await self._api.patch(kube.EGRESS_IP, action.name, patch, subresource="status")
                self._view.egress_ips.put(answer)
            case WritePolicyStatus():
                patch = _status_patch(render.policy_status(action.status), action.resource_version)
                answer = await self._api.patch(
                    kube.EGRESS_POLICY,
                    action.key.name,
                    patch,
                    namespace=action.key.namespace,
                    subresource="status",
                )
                self._view.policies.put(answer)
            case WritePoolStatus():
                patch = _status_patch(render.pool_status(action.status), action.resource_version)
                answer = await self._api.patch(kube.EGRESS_POOL, action.pool, patch, subresource="status")
                self._view.pools.put(answer)
            case Release():
                await self._release(action)
            case ApplyGatewayObject():
                await self._apply_gateway_object(action)
            case DeleteGatewayObject():
                await self._api.delete(kube.GATEWAY_KINDS[action.kind], action.name, namespace=self._namespace)
                self._view.answers.pop((action.kind, action.name), None)
                self._view.gateway_objects.gone((action.kind, action.name))

    async def _set_finalizers(self, action: SetFinalizers) -> None:
        metadata = {"finalizers": list(action.finalizers), "resourceVersion": str(action.resource_version)}
        answer = await self._api.patch(kube.EGRESS_POOL, action.pool, {"metadata": metadata})
        if not action.finalizers and "deletionTimestamp" in answer["metadata"]:
            self._view.pools.remove(answer)
        else:
            self._view.pools.put(answer)

    async def _advance_ids(self, action: AdvanceIds) -> None:
        document: Document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ID_CONFIG_MAP, "namespace": self._namespace},
            "data": {"last": str(action.last)},
        }
        if action.resource_version is None:
            answer = await self._api.create(kube.CONFIG_MAP, document, namespace=self._namespace)
        else:
            patch = {"metadata": {"resourceVersion": action.resource_version}, "data": document["data"]}
            answer = await self._api.patch(kube.CONFIG_MAP, ID_CONFIG_MAP, patch, namespace=self._namespace)
        self._take_ids(answer)

    async def _release(self, action: Release) -> None:
        """Delete a claim, after asking once more whether its policy uses it.

        The store may have missed that a policy of this name exists (again); the API server has not.
        """
        try:
            document = await self._api.get(kube.EGRESS_POLICY, action.policy.name, namespace=action.policy.namespace)
        except NotFound:
            self._view.policies.gone(action.policy)
        else:
            known = self._view.policies.get(action.policy)
            self._view.policies.put(document)
            if known != project_policy(document):
                raise Conflict(f"policy {action.policy} has changed, so {action.address} is not released yet")
        await self._api.delete(kube.EGRESS_IP, action.name, uid=action.uid, version=action.resource_version)
        self._view.egress_ips.gone(action.name)

    async def _apply_gateway_object(self, action: ApplyGatewayObject) -> None:
        kind, name = gateway.key_of(action.document)
        resource = kube.GATEWAY_KINDS[kind]
        ours = action.ours or await self._is_ours(resource, action.document)
        try:
            answer = await self._api.apply(resource, action.document, namespace=self._namespace, force=ours)
        except Conflict as error:
            # Not a stale view: somebody made an object under the name we need since we looked.
            raise Rejected(f"{kind} {name} is not ours: {error}") from error
        key = gateway.key_of(action.document)
        self._view.rejections.pop(key, None)
        self._view.gateway_objects.put({"kind": kind, **answer})
        made = self._view.gateway_objects.get(key)
        if made is not None:
            self._view.answers[key] = made

    async def _is_ours(self, resource: kube.Resource, document: Mapping[str, Any]) -> bool:
        """Look before a name is taken. Raises Rejected when somebody else's object has it.

        That an apply without force conflicts is no protection: it does so only where both set a field to different
        values, and adds our labels, port and owner to the rest; the object would then be deleted with our pool.
        """
        name = document["metadata"]["name"]
        try:
            live = await self._api.get(resource, name, namespace=self._namespace)
        except NotFound:
            return False
        if not gateway.is_ours(live, document):
            said = f"{resource.kind} {name} is there already and is not ours: delete it, or rename the pool"
            raise Rejected(said, said=said)
        return True

    def _note_rejection(self, action: ApplyGatewayObject, error: Rejected) -> None:
        key = gateway.key_of(action.document)
        before = self._view.rejections.get(key)
        said = Rejection(gateway.digest_of(action.document), error.said)
        self._view.rejections[key] = said
        again = before is not None and (before.digest, before.said) == (said.digest, said.said)
        log.log(logging.DEBUG if again else logging.ERROR, "%s refused: %s", _describe(action), error)

    async def _read_again(self, action: Action) -> None:
        match action:
            case AdvanceIds():
                await self.read_ids()
            case Claim() | WriteClaimStatus() | Release():
                await self._refresh(self._view.egress_ips, kube.EGRESS_IP, action.name, key=action.name)
            case WritePolicyStatus():
                namespace, name = action.key
                await self._refresh(self._view.policies, kube.EGRESS_POLICY, name, key=action.key, namespace=namespace)
            case SetFinalizers() | WritePoolStatus():
                await self._refresh(self._view.pools, kube.EGRESS_POOL, action.pool, key=action.pool)
            case ApplyGatewayObject() | DeleteGatewayObject():
                pass  # listed again within seconds

    async def _refresh(self, store: Any, resource: kube.Resource, name: str, *, key: Any, namespace: str = "") -> None:
        try:
            store.put(await self._api.get(resource, name, namespace=namespace))
        except NotFound:
            store.gone(key)

    def _take_ids(self, document: Document) -> None:
        text = str((document.get("data") or {}).get("last", "0"))
        self._view.ids = IdCounter(int(text) if text.isdecimal() else 0, document["metadata"]["resourceVersion"])


def _status_patch(status: Document, version: int) -> Document:
    return {"metadata": {"resourceVersion": str(version)}, "status": status}


def _describe(action: Action) -> str:
    match action:
        case SetFinalizers():
            text = f"pool {action.pool}: finalizers {list(action.finalizers)}"
        case AdvanceIds():
            text = f"policy ids: counter at {action.last}"
        case Claim():
            text = f"claim {action.address} of pool {action.pool} for policy {action.policy}"
        case WriteClaimStatus():
            rests = f", rests since {action.resting_since}" if action.resting_since else ""
            text = f"egress IP {action.name}: {len(action.slices)} slices{rests}, {_ready_of(action.conditions)}"
        case Release():
            text = f"release {action.address} of policy {action.policy}"
        case WritePolicyStatus():
            text = f"policy {action.key}: status, {_ready_of(action.status.conditions)}"
        case WritePoolStatus():
            text = f"pool {action.pool}: status, {_ready_of(action.status.conditions)}"
        case ApplyGatewayObject():
            text = f"apply {action.document['kind']} {action.document['metadata']['name']}"
        case DeleteGatewayObject():
            text = f"delete {action.kind} {action.name}"
    return text


def _ready_of(conditions: Any) -> str:
    return next((f"Ready={entry.status} {entry.reason}" for entry in conditions if entry.type == "Ready"), "no Ready")
