"""EgressIP: the claim of one address by one policy. Named by the address, so that nobody can claim it twice."""

from typing import Annotated

from pydantic import ConfigDict, Field

from sluice_api.models.common import Condition, Model, conditions, counter, rule, rules
from sluice_api.reasons import ConditionType

Name = Annotated[str, Field(min_length=1, max_length=253)]


class Owner(Model):
    """The policy that has the address."""

    namespace: Name = Field(description="Namespace of the policy.")
    name: Name = Field(description="Name of the policy.")
    uid: str = Field(
        max_length=64,
        description="UID of the policy that the address was claimed for. A later policy of the same name inherits it.",
    )


class EgressIPSpec(Model):
    """Whose the address is."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("self == oldSelf", "an EgressIP is a claim and cannot be changed: Sluice makes and deletes it")
        )
    )

    address: str = Field(
        min_length=2,
        max_length=45,
        description="The address.",
        json_schema_extra=rules(rule("isIP(self)", "not an IP address")),
    )
    pool: Name = Field(description="The pool that it was taken from.")
    policy: Owner = Field(description="The policy that leaves with it, or did when the address rests.")
    claimed: str | None = Field(
        default=None,
        description="When the address was claimed; of two claims of a policy the older one counts, so that a backup "
        "which is restored late still wins.",
        json_schema_extra={"format": "date-time"},
    )


class SliceStatus(Model):
    """Ports of the address that one node may use."""

    ports: str = Field(max_length=11, pattern=r"^[0-9]{4,5}-[0-9]{4,5}$", description="First and last port.")
    node: Name = Field(description="The node.")
    vanished_since: str | None = Field(
        default=None,
        alias="vanishedSince",
        description="Since when there is no such node. Its machine may still run, so the ports rest for a while.",
        json_schema_extra={"format": "date-time"},
    )


class EgressIPStatus(Model):
    """Who uses the address."""

    observed_generation: int = counter("The generation that this status speaks of.", alias="observedGeneration")
    holder: str | None = Field(
        default=None,
        max_length=253,
        description="The gateway node that answers for the address, as the gateways agreed.",
    )
    slices: list[SliceStatus] = Field(
        default_factory=list,
        max_length=512,
        description="Which node uses which ports: with an address and a port from a log, this tells the node.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    nodes: int = counter("Nodes that have ports of the address.")
    resting_since: str | None = Field(
        default=None,
        alias="restingSince",
        description="Since when no policy uses the address. While it rests (spec.quarantine of the pool) only a policy "
        "of the same namespace and name gets it; deleting this object ends the rest.",
        json_schema_extra={"format": "date-time"},
    )
    conditions: list[Condition] = conditions(ConditionType.READY)
