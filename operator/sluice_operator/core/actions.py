"""What a plan may do: one dataclass per kind of write.

Invariants:
- Every action that changes an object carries the version it was decided on, so a decision made from a stale view is
  refused by the API server instead of being carried out.
- An action is data; only the shell performs it. `Plan.actions` is in the order in which it is safe to stop anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sluice_operator.core.snapshot import Address, Condition, PolicyKey, PolicyStatus, PoolStatus, Slice


@dataclass(frozen=True, slots=True)
class SetFinalizers:
    """Replace a pool's finalizers."""

    pool: str
    finalizers: tuple[str, ...]
    resource_version: int


@dataclass(frozen=True, slots=True)
class AdvanceIds:
    """Move the id counter on by compare-and-swap; without a resource version the ConfigMap is created."""

    last: int
    resource_version: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """Create the EgressIP that makes an address a policy's own."""

    name: str
    address: Address
    pool: str
    policy: PolicyKey
    policy_uid: str
    claimed: str


@dataclass(frozen=True, slots=True)
class WriteClaimStatus:
    """Say which node uses which ports of an egress IP, since when it rests (empty: a policy has it), and how it is."""

    name: str
    slices: tuple[Slice, ...]
    resting_since: str
    conditions: tuple[Condition, ...]
    generation: int
    resource_version: int


@dataclass(frozen=True, slots=True)
class Release:
    """Delete an EgressIP that has rested, provided that the API server, asked once more, agrees that its policy does
    not use it."""

    name: str
    uid: str
    address: Address
    policy: PolicyKey
    resource_version: int


@dataclass(frozen=True, slots=True)
class Notice:
    """An Event: a transition, in the words of its condition."""

    kind: Literal["EgressPolicy", "EgressPool"]
    namespace: str
    name: str
    uid: str
    severity: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class WritePolicyStatus:
    """Write an EgressPolicy's status, and tell of what changed in it."""

    key: PolicyKey
    status: PolicyStatus
    resource_version: int
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class WritePoolStatus:
    """Write an EgressPool's status, and tell of what changed in it."""

    pool: str
    status: PoolStatus
    resource_version: int
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyGatewayObject:
    """Server-side apply of one of a pool's gateway objects. `ours`: it exists and carries our labels."""

    document: Mapping[str, Any]
    ours: bool


@dataclass(frozen=True, slots=True)
class DeleteGatewayObject:
    """Delete a gateway object that its pool no longer needs."""

    kind: str
    name: str


Action = (
    SetFinalizers
    | AdvanceIds
    | Claim
    | WriteClaimStatus
    | Release
    | WritePolicyStatus
    | WritePoolStatus
    | ApplyGatewayObject
    | DeleteGatewayObject
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The writes that bring the cluster closer to what is wanted; empty when nothing differs."""

    actions: tuple[Action, ...] = ()
