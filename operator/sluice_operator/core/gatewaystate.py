"""What is to be written of a pool's gateway objects, and what the API server and Kubernetes' controllers say to it.

Invariants:
- A document that the API server refused is not sent again by every plan, but when it is another one or its time has
  come; what the server said is known meanwhile.
- What was refused and what was never tried are told apart: of the latter nothing is said yet.
- What somebody in the API server changes of every document (a mutating webhook) is not fought over: what it made of the
  last one is left as it is, until the document or the live object is another.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sluice_operator.core import gateway
from sluice_operator.core.actions import ApplyGatewayObject
from sluice_operator.core.snapshot import GatewayObject, Pool, Rejection, Settings, Snapshot


@dataclass(frozen=True, slots=True)
class GatewayState:
    """One pool's gateway objects. `documents` are those there are to be, `applies` those to write now.

    `undecided`: one of them was never tried, so whether it is refused is not known yet. `refused` says what the API
    server does not take and why, `complaint` why the Deployment has no pods.
    """

    documents: tuple[Mapping[str, Any], ...] = ()
    applies: tuple[ApplyGatewayObject, ...] = ()
    undecided: bool = False
    refused: tuple[str, ...] = ()
    complaint: str = ""


def state_of(pool: Pool, snapshot: Snapshot, settings: Settings, *, proxy_port: int) -> GatewayState:
    """The state of the gateway objects that a pool needs."""
    documents = gateway.documents(pool, settings, proxy_port=proxy_port)
    deployment = snapshot.gateway_objects.get(("Deployment", gateway.deployment_name(pool.name)))
    attempts = list(_attempts(documents, snapshot))
    return GatewayState(
        documents=documents,
        applies=tuple(apply for apply, rejection in attempts if rejection is None or rejection.due),
        undecided=any(rejection is None and _is_new(apply.document, snapshot) for apply, rejection in attempts),
        refused=tuple(_words(apply.document, rejection) for apply, rejection in attempts if rejection is not None),
        complaint=deployment.complaint if deployment is not None and not deployment.deleting else "",
    )


def _attempts(
    documents: tuple[Mapping[str, Any], ...], snapshot: Snapshot
) -> Iterator[tuple[ApplyGatewayObject, Rejection | None]]:
    """What differs from what is live, and what the API server said when it was asked for it last."""
    for document in documents:
        key = gateway.key_of(document)
        live = snapshot.gateway_objects.get(key)
        if (live is not None and live.deleting) or not gateway.differs(live, document):
            continue
        if live is not None and live == snapshot.answers.get(key) and not _is_new(document, snapshot):
            continue  # an admission webhook makes this of it, and would do so again
        said = snapshot.rejections.get(key)
        refused = said if said is not None and said.digest == gateway.digest_of(document) else None
        yield ApplyGatewayObject(document, ours=live is not None), refused


def _is_new(document: Mapping[str, Any], snapshot: Snapshot) -> bool:
    """Whether the live object was made from another document, rather than edited since."""
    live: GatewayObject | None = snapshot.gateway_objects.get(gateway.key_of(document))
    return live is None or gateway.digest_of(live.document) != gateway.digest_of(document)


def _words(document: Mapping[str, Any], rejection: Rejection) -> str:
    kind, name = gateway.key_of(document)
    return (
        f"the API server refuses {kind} {name}: {rejection.said}; "
        "correct spec.gateways, or whatever else refuses it (a quota, an admission policy)"
    )
