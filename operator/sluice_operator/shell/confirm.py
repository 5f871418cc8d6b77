"""Asks the API server what `core.deletion` needs to know, and says so when the uninstall is not meant.

Invariants:
- Changes nothing but that it posts one Event, on the Job.
- Evidence that may not be read counts against the uninstall.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from sluice_api.names import CONFIRM_UNINSTALL
from sluice_operator.core.deletion import judge
from sluice_operator.shell import events, kube
from sluice_operator.shell.kube import Api, Document, NotFound, Rejected, Unavailable

OPERATOR_DEPLOYMENT: Final = "sluice-operator"
PATIENCE: Final = 30.0
"""Seconds: Argo CD creates the hooks of a phase in any order, so the right to read may come after the Job."""
RETRY: Final = 1.0


async def meant(api: Api, *, job: str, namespace: str, say: Callable[[str], None], clock: Callable[[], float]) -> bool:
    """Whether the uninstall that Job `job` runs is meant; if not, tells how to make it so.

    What may not be read within PATIENCE counts against it: a Job that a tool has renamed has no right to read about
    itself, and would have none to remove anything. Raises Unavailable when the API server does not answer.
    """
    end = clock() + PATIENCE
    while True:
        try:
            evidence = await _read(api, kube.JOB, job, namespace)
            operator = await _read(api, kube.DEPLOYMENT, OPERATOR_DEPLOYMENT, namespace)
            home = await api.get(kube.NAMESPACE, namespace)
            break
        except (Rejected, Unavailable) as error:
            if clock() >= end:
                if isinstance(error, Unavailable):
                    raise
                say(_refusal(str(error), namespace))
                return False
            say(f"waiting: {error}")
            await asyncio.sleep(RETRY)
    judgement = judge(job=evidence, operator=operator, namespace=home)
    say(judgement.why)
    if not judgement.meant:
        text = _refusal(judgement.why, namespace)
        say(text)
        if evidence is not None:
            await events.post_about(api, evidence, reason="NotUninstalled", message=text, reporter=job)
    return judgement.meant


def _refusal(why: str, namespace: str) -> str:
    return (
        f"nothing was removed: {why}. Leave this Job out of rendered manifests (uninstall.enabled=false, or "
        f"helm template --no-hooks). To remove Sluice from the nodes: kubectl label namespace {namespace} "
        f"{CONFIRM_UNINSTALL}=true, then delete the Job and apply it again"
    )


async def _read(api: Api, resource: kube.Resource, name: str, namespace: str) -> Document | None:
    try:
        return await api.get(resource, name, namespace=namespace)
    except NotFound:
        return None
