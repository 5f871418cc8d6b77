"""What whoever installs Sluice decides about the pods of all gateways: pull secrets, labels, log format and the like.

What one pool decides (how many, where, with what resources) is in its spec. The chart renders these settings as one
JSON object, the operator reads it once when it starts, and every pool's Deployment is made with it (`core.gateway`).

Invariants:
- Strict: a setting that is not known, or of another type, is refused by name before anything is reconciled.
- Pure: no I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Variable(BaseModel):
    """One environment variable of a container."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1)]
    value: str = ""
    valueFrom: dict[str, Any] = Field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As the API server shows it: without what is empty, or the Deployment would differ for ever."""
        return self.model_dump(exclude_defaults=True)


class _Given(BaseModel):
    """The JSON object, in the words of a pod's spec."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pullSecrets: list[str] = []
    serviceAccount: str = ""
    priorityClassName: str = "system-cluster-critical"
    logFormat: Literal["text", "json"] = "json"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    args: list[str] = []
    env: list[Variable] = []


@dataclass(frozen=True, slots=True)
class GatewayPods:
    """The settings; an empty `service_account` is the namespace's default one."""

    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    service_account: str = ""
    priority_class: str = "system-cluster-critical"
    log_format: str = "json"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: tuple[Mapping[str, Any], ...] = ()


DEFAULTS: Final = GatewayPods()


def read(text: str) -> GatewayPods:
    """The settings from JSON. Raises ValueError that names each wrong field, its value and what it ought to be."""
    try:
        given = _Given.model_validate_json(text)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the settings'} is {fault['input']!r}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        ]
        raise ValueError("; ".join(faults)) from error
    return GatewayPods(
        pull_policy=given.pullPolicy,
        pull_secrets=tuple(given.pullSecrets),
        service_account=given.serviceAccount,
        priority_class=given.priorityClassName,
        log_format=given.logFormat,
        labels=given.labels,
        annotations=given.annotations,
        arguments=tuple(given.args),
        environment=tuple(variable.document() for variable in given.env),
    )
